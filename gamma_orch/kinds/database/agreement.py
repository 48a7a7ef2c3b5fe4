"""Do the names in a spec fit together: is a table's schema in the table's database, and so on?

Each name by itself leads to a resource, which the language has checked; that they lead to one place is
seen here, before anything runs. Pure; called by the language through `Kind.check`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gamma_orch.core.address import Address
from gamma_orch.core.diagnostic import Diagnostic, Path, Severity, did_you_mean
from gamma_orch.core.resource import Resource

ELSEWHERE = "GAM603"
UNDECLARED = "GAM604"
All = Mapping[Address, Resource]


def tables(resources: Sequence[Resource], everything: All) -> Iterable[Diagnostic]:
    for resource in resources:
        spec = resource.spec
        database = spec["database"]
        if schema := spec.get("schema"):
            yield from _same(
                resource, ("schema",), f"Schema/{schema}", _database(everything, "Schema", schema), database
            )
        for number, key in enumerate(spec.get("foreignKeys") or ()):
            there = key["references"]
            path = ("foreignKeys", number, "references")
            yield from _same(
                resource, path, f"Table/{there}", _database(everything, "Table", there), database
            )


def indexes(resources: Sequence[Resource], everything: All) -> Iterable[Diagnostic]:
    """A warning: a table may have columns that no spec names, and an index may be of those."""
    for resource in resources:
        table = everything.get(Address("Table", str(resource.spec["table"])))
        if table is None:
            continue
        known = table.spec["columns"]
        for path, name in _columns(resource.spec):
            if isinstance(name, str) and name not in known:
                yield Diagnostic(
                    UNDECLARED,
                    f"{table.address} declares no column {name!r}; the index is built only if it is there",
                    path=("spec", *path),
                    address=resource.address,
                    hint=did_you_mean(name, list(known)),
                    severity=Severity.WARNING,
                )


def _columns(spec: Mapping[str, object]) -> Iterator[tuple[Path, object]]:
    for part in ("columns", "include"):
        given = spec.get(part)
        for number, key in enumerate(given if isinstance(given, list) else ()):
            if isinstance(key, Mapping):
                yield (part, number, "column"), key.get("column")
            else:
                yield (part, number), key


def roles(resources: Sequence[Resource], everything: All) -> Iterable[Diagnostic]:
    for resource in resources:
        server = resource.spec.get("server") or "main"
        for number, name in enumerate(resource.spec.get("memberOf") or ()):
            other = everything.get(Address("Role", name))
            if other and (other.spec.get("server") or "main") != server:
                yield _elsewhere(
                    resource,
                    ("memberOf", number),
                    f"Role/{name}",
                    f"server {other.spec['server']!r}",
                    f"server {server!r}",
                )
        for part in ("grants", "defaultPrivileges"):
            for number, one in enumerate(resource.spec.get(part) or ()):
                yield from _grant(resource, (part, number), one, server, everything)


def _grant(
    resource: Resource, at: Path, one: Mapping[str, object], server: str, everything: All
) -> Iterator[Diagnostic]:
    named: list[tuple[Path, str, object]] = [(("database",), "Database", one.get("database"))]
    tables = one.get("tables")
    if isinstance(tables, list):
        named += [(("tables", number), "Table", name) for number, name in enumerate(tables)]
    for path, kind, name in named:
        database = name if kind == "Database" else _database(everything, kind, name)
        there = everything.get(Address("Database", str(database)))
        if there and (there.spec.get("server") or "main") != server:
            where = f"server {there.spec['server']!r}"
            yield _elsewhere(resource, (*at, *path), f"{kind}/{name}", where, f"server {server!r}")
    if one.get("schema") and one.get("database"):
        found = _database(everything, "Schema", one["schema"])
        yield from _same(resource, (*at, "schema"), f"Schema/{one['schema']}", found, one["database"])


def _database(everything: All, kind: str, name: object) -> str | None:
    resource = everything.get(Address(kind, str(name)))
    return str(resource.spec["database"]) if resource else None


def _same(
    resource: Resource, path: Path, other: str, found: str | None, wanted: object
) -> Iterator[Diagnostic]:
    if found is not None and found != wanted:
        yield _elsewhere(resource, path, other, f"Database/{found}", f"Database/{wanted}")


def _elsewhere(resource: Resource, path: Path, other: str, found: str, wanted: str) -> Diagnostic:
    return Diagnostic(
        ELSEWHERE,
        f"{other} is in {found}, and {resource.address} is about {wanted}",
        path=("spec", *path),
        address=resource.address,
        hint="name one that is there too",
    )
