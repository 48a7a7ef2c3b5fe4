"""The kind Database: one database of a server, its extensions, and the server's settings.

Settings belong to the server, so two databases of one server must not contradict each other; that,
and whether all connection pools together fit `max_connections`, is checked before anything runs.
A setting that is read at start only restarts the server: by default where Gamma runs the server
itself, elsewhere never.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, did_you_mean
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.core.leaves import encode, is_secret
from gamma_orch.core.observation import ABSENT, Observation, Seen
from gamma_orch.core.provider import Asked, Permanent, Task
from gamma_orch.core.resource import Resource
from gamma_orch.kinds.database import catalog, connections, marks, settings, settings_converge, sql
from gamma_orch.kinds.database.catalog import Catalog
from gamma_orch.kinds.database.passing import Place, World, check_stays, locate, passing, plain
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.model import Item
from gamma_orch.spec.written_out import WrittenOut
from gamma_orch.targets import MissingDatabase, Targets

if TYPE_CHECKING:
    from gamma_orch.targets.postgres import Postgres


class Pool(WrittenOut):
    size: int = Field(ge=0)
    """Connections that one process keeps open."""
    overflow: int = Field(default=0, ge=0)
    """Connections that one process may open beyond that."""
    replicas: int = Field(default=1, ge=0)
    """Processes that have such a pool."""


class Connections(WrittenOut):
    reserve: int = Field(default=0, ge=0)
    """Connections kept free for people and for Gamma."""
    pools: dict[str, Pool] = Field(default_factory=dict)
    """The pools that connect to this database, by service."""


class DatabaseSpec(WrittenOut):
    server: str = "main"
    """The target of the environment on which the database is."""
    name: str | None = None
    """The name in PostgreSQL. Default: the resource's name, with - and . as _."""
    settings: dict[str, Item[str | int | float | bool]] = Field(default_factory=dict)
    """Settings of the server, as in postgresql.conf: 16MB, on, 200. What is not named here is left alone."""
    extensions: list[str] = Field(default_factory=list)
    """Extensions that must exist in the database. Their versions are not managed."""
    connections: Connections = Field(default_factory=Connections)
    """How many connections are needed, checked against max_connections before anything runs."""
    allow_restart: bool | None = Field(default=None, alias="allowRestart")
    """Whether a setting may restart the server. Default: only where Gamma runs the server itself."""

    @field_validator("settings")
    @classmethod
    def _shape(cls, value: dict[str, Json]) -> dict[str, Json]:
        wrong = [text for name, given in value.items() if (text := settings.shape_error(name, given))]
        wrong += [f"{name} cannot be a secret: whoever connects can read it" for name in _secret(value)]
        if wrong:
            raise ValueError("; ".join(wrong))
        return value


def _secret(given: Mapping[str, Json]) -> list[str]:
    return [name for name, value in given.items() if is_secret(encode(value))]


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    fields: dict[str, Json] = {
        "mark": str(address),
        "server": spec.get("server") or "main",
        "name": spec.get("name") or plain(address.name),
        "settings": dict(spec.get("settings") or {}),
        "extensions": {str(name): True for name in spec.get("extensions") or ()},
    }
    if spec.get("allowRestart") is not None:
        fields["allowRestart"] = spec["allowRestart"]
    return fields


def foresee(fields: Fields) -> Mapping[str, Json]:
    return {"name": fields["name"], "server": fields["server"]}


def places(fields: Fields) -> list[Place]:
    return [(fields["server"], fields["name"])]


class DatabaseProvider:
    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        return await passing(self._targets, asked, places, self._look, self._extras)

    async def apply(self, task: Task) -> None:
        """Raises Temporary or Permanent; Permanent also where a setting waits for a restart that is not
        allowed, after it was written."""
        fields = task.fields
        postgres = self._targets.postgres(fields["server"])
        here = await _read(postgres, fields["name"])
        if here is None:
            await self._create(postgres, fields["name"])
            here = await catalog.read(postgres, fields["name"])
        await self._mark(postgres, task, here)
        async with postgres.lock("settings"):
            await settings_converge.converge(postgres, task)
        await _converge_extensions(postgres, task)

    async def delete(self, task: Task) -> None:
        """Drop the database and take back the settings. The database must carry our mark."""
        fields = task.recorded or task.live or {}
        postgres = self._targets.postgres(fields["server"])
        name = fields["name"]
        here = await _read(postgres, name)
        if here is None:
            return
        what = f"Database {name!r} on {postgres.title}"
        marks.check_deletable(here.databases.get(name), task, self._targets.environment, what)
        async with postgres.lock("settings"):
            await settings_converge.write(
                postgres, {}, settings_converge.released_of(fields, {}, here.settings)
            )
        postgres.forget(name)
        async with postgres.connection() as connection:
            await connection.execute(f"DROP DATABASE IF EXISTS {sql.ident(name)}")

    async def describe(self, server: str, database: str, name: str) -> Json | None:
        """The spec under which the database as it is would be kept; None where there is none.

        Settings are left out: they are the server's, and most are nobody's wish.
        """
        here = await _read(self._targets.postgres(server), name or database)
        if here is None:
            return None
        return {
            "server": server,
            "name": here.database,
            "extensions": sorted(here.extensions - {"plpgsql"}),
        }

    async def _look(self, one: Asked, world: World) -> Observation:
        found = locate(one, world, places, _in)
        fields = one.wanted or one.recorded or {}
        server = found[0][0] if found else str(fields["server"])
        postgres = self._targets.postgres(server)
        here = found[1].catalog if found else None
        # A database that is not there yet shares its server's settings all the same.
        known = here or await catalog.read(postgres, None)
        if one.wanted:
            wrong = [
                settings.problem(key, value, known.settings)
                for key, value in settings_converge.given(one.wanted)
            ]
            if any(wrong):
                raise Permanent(" ".join(text for text in wrong if text))
        if here is None:
            self._check_not_renamed(one, known)
            return ABSENT
        seen = self._seen(one, postgres, here)
        instead = "Move its data by hand and make a new resource beside it, or take the spec back."
        check_stays(one, seen.fields, ("server", "name"), instead)
        return seen

    def _seen(self, one: Asked, postgres: "Postgres", here: Catalog) -> Seen:
        wanted, recorded = one.wanted or {}, one.recorded or {}
        named = {**wanted.get("extensions", {}), **recorded.get("extensions", {})}
        fields: dict[str, Json] = {
            "mark": marks.shown(here.databases[here.database], self._targets.environment),
            "server": postgres.name,
            "name": here.database,
            "settings": settings_converge.observed(wanted, recorded, here.settings),
            "extensions": {name: True for name in sorted(named) if name in here.extensions},
        }
        policy = (one.wanted if one.wanted is not None else recorded).get("allowRestart")
        if policy is not None:
            fields["allowRestart"] = policy  # a rule for Gamma, not a fact about the server
        host, port = postgres.host_port
        outputs = {
            "name": here.database,
            "host": host,
            "port": port,
            "server": postgres.name,
            "version": here.version,
        }
        return Seen(fields, outputs)

    def _check_not_renamed(self, one: Asked, known: Catalog) -> None:
        ours = marks.known_as(one.address, one.recorded)
        for other, comment in known.databases.items():
            if marks.shown(comment, self._targets.environment) in ours:
                raise Permanent(
                    f"Database {other!r} carries the mark of {one.address}, so it was renamed outside. "
                    f"Rename it back, or write `name: {other}` into the spec."
                )

    def _extras(self, place: Place, found: Catalog) -> dict[Address, Seen]:
        extras: dict[Address, Seen] = {}
        for name, comment in found.databases.items():
            mark = marks.shown(comment, self._targets.environment)
            if mark and mark.startswith("Database/") and " " not in mark:
                extras[Address.parse(mark)] = Seen({"mark": mark, "server": place[0], "name": name})
        return extras

    async def _create(self, postgres: "Postgres", name: str) -> None:
        import asyncpg

        async with postgres.connection() as connection:
            try:
                # template0, because template1 is somebody's to write to and may have another encoding.
                await connection.execute(
                    f"CREATE DATABASE {sql.ident(name)} TEMPLATE template0 ENCODING 'UTF8'"
                )
            except asyncpg.DuplicateDatabaseError:
                return

    async def _mark(self, postgres: "Postgres", task: Task, here: Catalog) -> None:
        name = here.database
        comment = here.databases.get(name)
        environment = self._targets.environment
        marks.check_ours(comment, task, environment, f"Database {name!r} on {postgres.title}")
        human, _ = marks.split(comment)
        text = marks.joined(human, marks.Mark(str(task.address), environment))
        if text != comment:
            async with postgres.connection(name) as connection:
                await connection.execute(sql.comment("DATABASE", sql.ident(name), text))


@dataclass(frozen=True, slots=True)
class _Here:
    """A database as `locate` takes it."""

    catalog: Catalog

    @property
    def comment(self) -> str | None:
        return self.catalog.databases[self.catalog.database]


def _in(here: Catalog) -> _Here:
    return _Here(here)


async def _read(postgres: "Postgres", name: str) -> Catalog | None:
    try:
        return await catalog.read(postgres, name)
    except MissingDatabase:
        return None


async def _converge_extensions(postgres: "Postgres", task: Task) -> None:
    import asyncpg

    wanted = task.fields.get("extensions", {})
    here = await catalog.read(postgres, task.fields["name"])
    gone = [name for name in (task.recorded or {}).get("extensions", {}) if name not in wanted]
    if here.extensions.issuperset(wanted) and here.extensions.isdisjoint(gone):
        return
    async with postgres.connection(task.fields["name"]) as connection:
        for name in wanted:
            if name in here.extensions:
                continue
            try:
                await connection.execute(f"CREATE EXTENSION IF NOT EXISTS {sql.ident(name)}")
            except (asyncpg.UndefinedFileError, asyncpg.FeatureNotSupportedError):
                there: list[Any] = await connection.fetch("select name from pg_available_extensions")
                hint = did_you_mean(name, [row["name"] for row in there])
                raise Permanent(
                    f"{postgres.title} has no extension {name!r} installed; {hint or 'install its package'}."
                ) from None
        for name in gone:
            await connection.execute(f"DROP EXTENSION IF EXISTS {sql.ident(name)}")


def check(resources: Sequence[Resource], everything: Mapping[Address, Resource]) -> Iterable[Diagnostic]:
    yield from connections.check(resources)


KIND = Kind(
    name="Database",
    family="database",
    summary="A PostgreSQL database, its extensions, and settings of its server.",
    spec=DatabaseSpec,
    provider=DatabaseProvider,
    traits=Traits(
        normalise=normalise,
        convergent=True,
        foresee=foresee,
        stable=frozenset({"name", "server", "host", "port", "version"}),
        target=lambda fields: f"postgres/{fields['server']}",
    ),
    outputs={
        "name": "its name in PostgreSQL",
        "host": "the server's host",
        "port": "the server's port",
        "server": "the target it is on",
        "version": "the server's version",
    },
    check=check,
)
