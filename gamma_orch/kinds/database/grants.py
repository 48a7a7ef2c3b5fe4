"""What a role may do: privileges as a map, and the statements between two such maps.

A map is database -> object -> sorted privileges, for example
`{"shop": {"table public.accounts": ["insert", "select"], "schema public": ["usage"]}}`.
An object that the spec names is owned as a whole: a privilege that somebody adds to it by hand is
drift. An object that it does not name is nobody's business.

`table app.*` stands for every table of a schema that is there when Gamma looks, but for those named
by themselves. Pure; called by `role`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gamma_orch.core.canonical import Json
from gamma_orch.kinds.database import sql
from gamma_orch.kinds.database.catalog import Catalog

GRANTABLE = " with grant option"
DEFAULTS = {"table": "r", "sequence": "S", "function": "f", "type": "T", "schema": "n"}
Objects = Mapping[str, Sequence[str]]  # one database's part of the map


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """An object of the map, taken apart."""

    kind: str
    schema: str
    name: str

    @property
    def all_of_schema(self) -> bool:
        return self.name == "*"


def key(kind: str, schema: str, name: str) -> str:
    if kind == "database":
        return "database"
    return f"schema {schema}" if kind == "schema" else f"{kind} {schema}.{name}"


def target(text: str, database: str) -> Target:
    kind, _, rest = text.partition(" ")
    if kind == "database":
        return Target("database", "", database)
    if kind == "schema":
        return Target("schema", rest, rest)
    schema, _, name = rest.partition(".")
    return Target(kind, schema, name)


def held(here: Catalog, role: str, named: Iterable[str], wanted: Objects) -> dict[str, list[str]]:
    """What a role has on the named objects of a database. What is not there is left out."""
    every = list(named)
    found: dict[str, list[str]] = {}
    for text in every:
        one = target(text, here.database)
        if one.all_of_schema:
            members = _members(here, one, every)
            found[text] = _of_all([_of_one(here, role, member, wanted.get(text)) for member in members],
                                  wanted.get(text, ()))  # fmt: skip
        elif _exists(here, one):
            found[text] = _of_one(here, role, one, wanted.get(text))
    return {text: privileges for text, privileges in found.items() if privileges}


def _members(here: Catalog, pattern: Target, named: Iterable[str]) -> list[Target]:
    apart = {target(text, here.database) for text in named}
    every = (Target(row.kind, row.schema, row.name) for row in here.relations)
    return [
        one for one in every if (one.kind, one.schema) == (pattern.kind, pattern.schema) and one not in apart
    ]


def _of_all(members: Sequence[Sequence[str]], wanted: Sequence[str]) -> list[str]:
    """One answer for all tables of a schema: as wanted but for what one of them lacks or has too much."""
    lacking = {one for one in wanted if any(one not in privileges for privileges in members)}
    too_many = {one for privileges in members for one in privileges}
    return sorted((set(wanted) | too_many) - lacking)


def _of_one(here: Catalog, role: str, one: Target, wanted: Sequence[str] | None) -> list[str]:
    if wanted is not None and _owner(here, one) == role:
        return sorted(wanted)  # an owner may do everything, and can take nothing from itself for long
    return sorted(
        row.privilege + (GRANTABLE if row.grantable else "")
        for row in here.grants
        if row.grantee == role and (row.kind, row.schema, row.name) == (one.kind, one.schema, one.name)
    )


def _owner(here: Catalog, one: Target) -> str | None:
    if one.kind == "schema":
        return here.schemas[one.name].owner
    return next(
        (
            row.owner
            for row in here.relations
            if (row.kind, row.schema, row.name) == (one.kind, one.schema, one.name)
        ),
        None,
    )


def _exists(here: Catalog, one: Target) -> bool:
    if one.kind == "database":
        return True
    if one.kind == "schema":
        return one.name in here.schemas
    return any((row.kind, row.schema, row.name) == (one.kind, one.schema, one.name) for row in here.relations)


def statements(here: Catalog, role: str, wanted: Objects, recorded: Objects) -> Iterator[str]:
    """The difference between what a role has and what it is to have, as GRANT and REVOKE."""
    named = {*wanted, *recorded}
    for text in sorted(named):
        one = target(text, here.database)
        members = _members(here, one, named) if one.all_of_schema else [one] if _exists(here, one) else []
        want = set(wanted.get(text, ()))
        for member in members:
            have = set(_of_one(here, role, member, wanted.get(text)))
            if text not in wanted:
                have &= set(recorded[text])  # only what was ours is taken back
            # REVOKE of a privilege takes its grant option too, so it comes before the GRANT.
            for verb, privileges in (("REVOKE", have - want), ("GRANT", want - have)):
                if privileges:
                    yield _statement(verb, sorted(privileges), member, role)


def _statement(verb: str, privileges: Sequence[str], one: Target, role: str) -> str:
    words = ", ".join(sorted({text.removesuffix(GRANTABLE).upper() for text in privileges}))
    name = sql.ident(one.name) if one.kind in ("database", "schema") else sql.qualified(one.schema, one.name)
    way = "TO" if verb == "GRANT" else "FROM"
    return f"{verb} {words} ON {one.kind.upper()} {name} {way} {sql.ident(role)}"


# Default privileges: `{"shop": {"table in app": ["select"], "table in app by migrator": [...]}}`


def default_key(kind: str, schema: str, creator: str | None) -> str:
    return f"{kind} in {schema}" + (f" by {creator}" if creator else "")


def _default(text: str, me: str) -> tuple[str, str, str]:
    kind, _, rest = text.partition(" in ")
    schema, _, creator = rest.partition(" by ")
    return kind, schema, creator or me


def defaults_held(here: Catalog, role: str, named: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in named:
        kind, schema, creator = _default(text, here.me)
        privileges = sorted(
            row.privilege + (GRANTABLE if row.grantable else "")
            for row in here.defaults
            if (row.creator, row.schema, row.kind, row.grantee) == (creator, schema, DEFAULTS[kind], role)
        )
        if privileges:
            found[text] = privileges
    return found


def default_statements(here: Catalog, role: str, wanted: Objects, recorded: Objects) -> Iterator[str]:
    for text in sorted({*wanted, *recorded}):
        kind, schema, creator = _default(text, here.me)
        if text not in wanted and (schema not in here.schemas or creator not in here.roles):
            continue  # what it hung on is gone, and it with it
        have = set(defaults_held(here, role, [text]).get(text, ()))
        want = set(wanted.get(text, ()))
        if text not in wanted:
            have &= set(recorded[text])
        head = f"ALTER DEFAULT PRIVILEGES FOR ROLE {sql.ident(creator)} IN SCHEMA {sql.ident(schema)}"
        for verb, way, privileges in (("REVOKE", "FROM", have - want), ("GRANT", "TO", want - have)):
            if privileges:
                words = ", ".join(sorted({one.removesuffix(GRANTABLE).upper() for one in privileges}))
                yield f"{head} {verb} {words} ON {kind.upper()}S {way} {sql.ident(role)}"


def databases(fields: Mapping[str, Json]) -> list[str]:
    """The databases in which a role has something."""
    return sorted({*fields.get("grants", {}), *fields.get("defaultPrivileges", {})})


def missing(here: Catalog, wanted: Objects) -> list[str]:
    """The named objects that are not there."""
    every = [target(text, here.database) for text in wanted]
    return [
        f"{one.kind} {one.schema}.{one.name}" if one.kind != "schema" else f"schema {one.name}"
        for one in every
        if not one.all_of_schema and not _exists(here, one)
    ]


def described(here: Catalog, role: str) -> list[dict[str, Json]]:
    """What a role has in a database, as grants of a spec without the database."""
    found: dict[Target, list[str]] = {}
    for row in here.grants:
        one = Target(row.kind, row.schema, row.name)
        if row.grantee == role and not row.grantable and _owner(here, one) != role:
            found.setdefault(one, []).append(row.privilege)
    given: list[dict[str, Json]] = []
    for one, privileges in sorted(found.items()):
        grant: dict[str, Json] = {"on": one.kind, "privileges": sorted(privileges)}
        if one.kind != "database" and one.schema != "public":
            grant["schema"] = one.schema
        if one.kind in ("table", "sequence"):
            grant["names"] = [one.name]
        given.append(grant)
    return given
