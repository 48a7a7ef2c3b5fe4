"""What one database alone cannot show: do all databases of a server agree, and do their pools fit?

Pure; called by the language through `Kind.check`, before anything is connected to.
"""

from collections.abc import Iterable, Mapping, Sequence

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic
from gamma_orch.core.resource import Resource

TOO_MANY = "GAM601"
CONTRADICTION = "GAM602"

# PostgreSQL's own defaults, where no Database of the server says otherwise.
MAX_CONNECTIONS = 100
SUPERUSER_RESERVED = 3


def check(resources: Sequence[Resource]) -> Iterable[Diagnostic]:
    servers: dict[str, list[Resource]] = {}
    for resource in sorted(resources, key=lambda one: one.address):
        server = resource.spec.get("server") or "main"
        if isinstance(server, str):
            servers.setdefault(server, []).append(resource)
    for server, databases in servers.items():
        yield from _contradictions(server, databases)
        yield from _too_many(server, databases)


def _contradictions(server: str, databases: Sequence[Resource]) -> Iterable[Diagnostic]:
    """Settings belong to the server: what one database sets, another would set back for ever."""
    first: dict[str, tuple[Resource, Json]] = {}
    for resource in databases:
        for name, value in (resource.spec.get("settings") or {}).items():
            other, before = first.setdefault(name.casefold(), (resource, value))
            if before != value:
                yield Diagnostic(
                    CONTRADICTION,
                    f"{other.address} sets {name} to {before!r} on the same server {server!r}; "
                    "settings belong to the server",
                    path=("spec", "settings", name),
                    address=resource.address,
                    hint="say it in one place only",
                )


def _too_many(server: str, databases: Sequence[Resource]) -> Iterable[Diagnostic]:
    top = _number(databases, "max_connections", MAX_CONNECTIONS)
    reserved = _number(databases, "superuser_reserved_connections", SUPERUSER_RESERVED)
    reserved += _number(databases, "reserved_connections", 0)
    needed, parts = 0, []
    for resource in databases:
        connections = resource.spec.get("connections") or {}
        for service, pool in (connections.get("pools") or {}).items():
            count = _pool(pool)
            needed += count
            parts.append(f"{service} {count}")
        keep = connections.get("reserve") or 0
        if isinstance(keep, int) and keep:
            needed += keep
            parts.append(f"reserve of {resource.address.name} {keep}")
    if needed <= top - reserved:
        return
    asking = [one for one in databases if (one.spec.get("connections") or {}).get("pools")] or databases
    yield Diagnostic(
        TOO_MANY,
        f"the pools on server {server!r} may open {needed} connections ({', '.join(parts)}), and it accepts "
        f"{top - reserved} (max_connections {top}, of which {reserved} are reserved)",
        path=("spec", "connections"),
        address=asking[-1].address,
        hint=f"make the pools smaller, or set max_connections to at least {needed + reserved}",
    )


def _pool(pool: Mapping[str, Json]) -> int:
    """The most connections that a pool opens. A part that is not known yet counts as none."""
    size, overflow, replicas = (pool.get("size", 0), pool.get("overflow", 0), pool.get("replicas", 1))
    if not all(isinstance(part, int) for part in (size, overflow, replicas)):
        return 0
    return int((size + overflow) * replicas)


def _number(databases: Sequence[Resource], setting: str, default: int) -> int:
    for resource in databases:
        value = (resource.spec.get("settings") or {}).get(setting)
        if isinstance(value, (int, str)) and str(value).isdigit():
            return int(value)
    return default
