"""The kind Role: who may log in, and what they may do in which database.

Privileges converge as the difference between what the role has and what it is to have, in one
transaction a database. A password is never read back: it is set when the role is made and whenever
the secret changed, and goes to the server as a SCRAM verifier only.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.core.leaves import LEAVES, encode
from gamma_orch.core.observation import ABSENT, Observation, Seen
from gamma_orch.core.provider import Asked, Opcode, Permanent, Task
from gamma_orch.kinds.database import catalog, grants, marks, scram, sql
from gamma_orch.kinds.database.catalog import Catalog, RoleRow
from gamma_orch.kinds.database.passing import (
    Place,
    World,
    asked,
    check_stays,
    find,
    marked_extras,
    passing,
    plain,
)
from gamma_orch.kinds.database.schema import database_resource
from gamma_orch.kinds.database.written_out import WrittenOut
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.model import Item, Names
from gamma_orch.targets import MissingDatabase, Targets

if TYPE_CHECKING:
    from gamma_orch.targets.postgres import Postgres

LOCK_TIMEOUT = "2s"

Attribute = Literal["superuser", "createdb", "createrole", "replication", "bypassrls"]
PRIVILEGES = {
    "database": {"connect", "create", "temporary"},
    "schema": {"usage", "create"},
    "table": {"select", "insert", "update", "delete", "truncate", "references", "trigger", "maintain"},
    "sequence": {"usage", "select", "update"},
    "function": {"execute"},
    "type": {"usage"},
}


class Grant(WrittenOut):
    on: Literal["database", "schema", "table", "sequence"]
    """What kind of object."""
    database: Annotated[str, Names("Database")] | None = None
    """The database it is in. Needed except where `tables` says it."""
    schema_: Annotated[str, Names("Schema")] | None = Field(default=None, alias="schema")
    """The schema it is in. Default: public."""
    tables: list[Item[Annotated[str, Names("Table")]]] = Field(default_factory=list)
    """Tables that are resources."""
    names: list[Item[str]] = Field(default_factory=list)
    """Tables or sequences by their names in PostgreSQL; * is all that are there."""
    privileges: list[str] = Field(min_length=1)
    """select, insert, update, delete, usage, connect, ..."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        _check_privileges(self.on, self.privileges)
        if self.tables and self.on != "table":
            raise ValueError(f"`tables` goes with `on: table`, not with `on: {self.on}`")
        if self.names and self.on in ("database", "schema"):
            raise ValueError(f"`names` does not go with `on: {self.on}`, which is named by `{self.on}`")
        if not self.tables and not self.database:
            raise ValueError(
                "say in which `database`" + (", or which `tables`" if self.on == "table" else "")
            )
        if self.on in ("table", "sequence") and not self.tables and not self.names:
            raise ValueError(f"say which {self.on}s in `names` (or `['*']` for all that are there)")
        return self


class DefaultPrivilege(WrittenOut):
    on: Literal["table", "sequence", "function", "type"]
    """What kind of object."""
    database: Annotated[str, Names("Database")]
    """The database."""
    schema_: Annotated[str, Names("Schema")] | None = Field(default=None, alias="schema")
    """The schema in which objects will be made. Default: public."""
    by: Annotated[str, Names("Role")] | None = None
    """The role that will make them. Default: the one with which Gamma connects."""
    privileges: list[str] = Field(min_length=1)
    """What this role gets on each of them."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        _check_privileges(self.on, self.privileges)
        return self


def _check_privileges(kind: str, given: Sequence[str]) -> None:
    known = PRIVILEGES[kind]
    unknown = [one for one in given if one.lower() not in known]
    if unknown:
        raise ValueError(
            f"no privilege on a {kind}: {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        )


class RoleSpec(WrittenOut):
    REFERS: ClassVar[frozenset[str]] = frozenset({"password"})

    server: str = "main"
    """The target of the environment on which the role is."""
    name: str | None = None
    """The name in PostgreSQL. Default: the resource's name, with - and . as _."""
    login: bool = True
    """Whether it can connect, or only be a group for others."""
    password: Any = None
    """Its password, as ${secret.name}. It is never read back, only replaced when the secret changes."""
    connection_limit: int | None = Field(default=None, alias="connectionLimit", ge=0)
    """How many connections it may have at once. Default: as many as the server."""
    attributes: list[Attribute] = Field(default_factory=list)
    """Rights over the whole server. Any that is not named is taken away."""
    member_of: list[Item[Annotated[str, Names("Role")]]] = Field(default_factory=list, alias="memberOf")
    """Roles whose privileges it has too."""
    builtin_roles: list[str] = Field(default_factory=list, alias="builtinRoles")
    """Roles of PostgreSQL's own: pg_monitor, pg_read_all_data."""
    grants: list[Grant] = Field(default_factory=list)
    """What it may do. On the objects named here it has these privileges and no others."""
    default_privileges: list[DefaultPrivilege] = Field(default_factory=list, alias="defaultPrivileges")
    """What it will be able to do with objects that are made later."""

    @field_validator("password")
    @classmethod
    def _secret(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, LEAVES):
            raise ValueError("a password is not written into a spec; write ${secret.NAME}")
        return value

    @field_validator("builtin_roles")
    @classmethod
    def _builtin(cls, value: list[str]) -> list[str]:
        other = [one for one in value if not one.startswith("pg_")]
        if other:
            raise ValueError(
                f"{', '.join(other)} is none of PostgreSQL's own roles; use `memberOf` for resources"
            )
        return value


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    members = [of(Address("Role", name))["name"] for name in spec.get("memberOf") or ()]
    fields: dict[str, Json] = {
        "mark": str(address),
        "server": spec.get("server") or "main",
        "name": spec.get("name") or plain(address.name),
        "login": spec.get("login", True),
        "connectionLimit": spec["connectionLimit"] if spec.get("connectionLimit") is not None else -1,
        "attributes": sorted(spec.get("attributes") or ()),
        "memberOf": sorted({*members, *(spec.get("builtinRoles") or ())}),
        "grants": _grants(spec.get("grants") or (), of),
        "defaultPrivileges": _defaults(spec.get("defaultPrivileges") or (), of),
    }
    if spec.get("password") is not None:
        fields["password"] = spec["password"]
    return fields


def _grants(given: Sequence[Json], of: Of) -> Fields:
    found: dict[str, dict[str, set[str]]] = {}
    for one in given:
        privileges = {str(word).lower() for word in one["privileges"]}
        for database, text in _objects(one, of):
            found.setdefault(database, {}).setdefault(text, set()).update(privileges)
    return {database: {text: sorted(p) for text, p in objects.items()} for database, objects in found.items()}


def _objects(one: Json, of: Of) -> list[tuple[str, str]]:
    objects = []
    for name in one.get("tables") or ():
        table = of(Address("Table", name))
        objects.append((table["database"], grants.key("table", table["schema"], table["name"])))
    if one.get("database"):
        database = of(Address("Database", one["database"]))["name"]
        schema = of(Address("Schema", one["schema"]))["name"] if one.get("schema") else "public"
        names = one.get("names") or ([""] if one["on"] in ("database", "schema") else [])
        objects += [(database, grants.key(one["on"], schema, name)) for name in names]
    return objects


def _defaults(given: Sequence[Json], of: Of) -> Fields:
    found: dict[str, dict[str, set[str]]] = {}
    for one in given:
        database = of(Address("Database", one["database"]))["name"]
        schema = of(Address("Schema", one["schema"]))["name"] if one.get("schema") else "public"
        creator = of(Address("Role", one["by"]))["name"] if one.get("by") else None
        text = grants.default_key(one["on"], schema, creator)
        words = {str(word).lower() for word in one["privileges"]}
        found.setdefault(database, {}).setdefault(text, set()).update(words)
    return {database: {text: sorted(p) for text, p in objects.items()} for database, objects in found.items()}


def foresee(fields: Fields) -> Mapping[str, Json]:
    return {"name": fields["name"], "server": fields["server"]}


def places(fields: Fields) -> list[Place]:
    """Its databases. A role with nothing in any is read through the maintenance database."""
    named: list[Place] = [(fields["server"], name) for name in grants.databases(fields)]
    return named or [(fields["server"], None)]


class RoleProvider:
    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        return await passing(self._targets, asked, places, self._look, self._extras)

    async def apply(self, task: Task) -> None:
        """Raises Temporary or Permanent. A database that is to have grants must be there."""
        fields, recorded = task.fields, task.recorded or {}
        postgres = self._targets.postgres(fields["server"])
        here = await catalog.read(postgres, None)
        row = self._find(asked(task), here)
        if row is not None:
            marks.check_ours(row.comment, task, self._targets.environment, f"Role {row.name!r}")
        await self._converge(postgres, task, row)
        for name in grants.databases({"grants": {**recorded.get("grants", {}), **fields["grants"]},
                                      "defaultPrivileges": {**recorded.get("defaultPrivileges", {}),
                                                            **fields["defaultPrivileges"]}}):  # fmt: skip
            await self._grant(postgres, name, fields, recorded)

    async def delete(self, task: Task) -> None:
        """Revoke what it has in its databases and drop it. It must carry our mark and own nothing."""
        fields = task.recorded or task.live or {}
        postgres = self._targets.postgres(fields["server"])
        row = self._find(asked(task), await catalog.read(postgres, None))
        if row is None:
            return
        what = f"Role {row.name!r} on {postgres.title}"
        marks.check_deletable(row.comment, task, self._targets.environment, what)
        await self._check_owns_nothing(postgres, row.name, what)
        for name in await self._databases_with_rights(postgres, row.name):
            if name not in grants.databases(fields):
                raise Permanent(
                    f"{what} has privileges in database {name!r}, which this resource never named, so it is "
                    f"not dropped. Run DROP OWNED BY {sql.ident(row.name)} in that database first."
                )
            async with postgres.connection(name) as connection:
                # It owns nothing, as was just seen: this only takes its privileges away.
                await connection.execute(f"DROP OWNED BY {sql.ident(row.name)}")
        async with postgres.connection() as connection:
            await connection.execute(f"DROP ROLE IF EXISTS {sql.ident(row.name)}")

    async def describe(self, server: str, database: str, name: str) -> Json | None:
        """The spec under which the role as it is would be kept, with its grants in that database.

        Its password cannot be read, so it is left as it is.
        """
        here = await catalog.read(self._targets.postgres(server), database or None)
        row = here.roles.get(name)
        return _described(row, here, server, self._targets.environment) if row else None

    async def _look(self, one: Asked, world: World) -> Observation:
        fields = one.recorded or one.wanted or {}
        server = str(fields["server"])
        read = [here for place in places(fields) if (here := world.at(*place))]
        if not read:  # none of its databases is there yet; roles belong to the server
            read = [await catalog.read(self._targets.postgres(server), None)]
        row = self._find(one, read[0])
        if row is None:
            return ABSENT
        seen: dict[str, Json] = {
            "mark": marks.shown(row.comment, self._targets.environment),
            "server": server,
            "name": row.name,
            "login": row.login,
            "connectionLimit": row.limit,
            "attributes": list(row.attributes),
            "memberOf": list(row.member_of),
            "grants": {},
            "defaultPrivileges": {},
        }
        for part, look in (("grants", grants.held), ("defaultPrivileges", _defaults_held)):
            wanted, recorded = (one.wanted or {}).get(part, {}), (one.recorded or {}).get(part, {})
            for name in sorted({*wanted, *recorded}):
                here = world.at(server, name)
                named = {**wanted.get(name, {}), **recorded.get(name, {})}
                found = look(here, row.name, named, wanted.get(name, {})) if here else {}
                if found:
                    seen[part][name] = found
        check_stays(one, seen, ("server", "name"), "Run ALTER ROLE ... RENAME TO ..., or take the spec back.")
        return Seen(seen, foresee(seen))

    async def _converge(self, postgres: "Postgres", task: Task, row: RoleRow | None) -> None:
        fields, name = task.fields, sql.ident(task.fields["name"])
        statements = [] if row else [f"CREATE ROLE {name}"]
        words = _attributes(fields, row)
        if words:
            statements.append(f"ALTER ROLE {name} WITH {words}")
        have = set(row.member_of) if row else set()
        want = set(fields["memberOf"])
        statements += [f"REVOKE {sql.ident(group)} FROM {name}" for group in sorted(have - want)]
        statements += [f"GRANT {sql.ident(group)} TO {name}" for group in sorted(want - have)]
        human, _ = marks.split(row.comment if row else None)
        text = marks.joined(human, marks.Mark(str(task.address), self._targets.environment))
        if row is None or text != row.comment:
            statements.append(sql.comment("ROLE", name, text))
        password = _password_statement(task, row)
        if not statements and password is None:
            return
        async with postgres.connection() as connection, connection.transaction():
            for statement in statements:
                await connection.execute(statement)
            if password is not None:
                # Not even the verifier needs to be in the log; only a superuser may say so.
                if await connection.fetchval("select rolsuper from pg_roles where rolname = current_user"):
                    await connection.execute("SET LOCAL log_statement = 'none'")
                await connection.execute(password)

    async def _grant(self, postgres: "Postgres", database: str, fields: Fields, recorded: Fields) -> None:
        name = fields["name"]
        wanted = fields["grants"].get(database, {})
        later = fields["defaultPrivileges"].get(database, {})
        try:
            here = await catalog.read(postgres, database)
        except MissingDatabase:
            if not wanted and not later:
                return  # gone, and the grants with it
            raise
        statements = [
            *grants.statements(here, name, wanted, recorded.get("grants", {}).get(database, {})),
            *grants.default_statements(
                here, name, later, recorded.get("defaultPrivileges", {}).get(database, {})
            ),
        ]
        missing = grants.missing(here, wanted)
        if missing:
            raise Permanent(
                f"Role {name!r} is to have privileges on {', '.join(missing)}, which database {database!r} "
                "does not have. Make them first, or take them out of the grants."
            )
        if statements:
            async with postgres.connection(database) as connection, connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                for statement in statements:
                    await connection.execute(statement)

    async def _check_owns_nothing(self, postgres: "Postgres", name: str, what: str) -> None:
        query = """
            select coalesce(d.datname, '') as database, s.classid, s.objid, s.objsubid
            from pg_shdepend s left join pg_database d on d.oid = s.dbid
            where s.refclassid = 'pg_authid'::regclass and s.deptype = 'o'
              and s.refobjid = (select oid from pg_roles where rolname = $1)"""
        async with postgres.connection() as connection:
            owned = await connection.fetch(query, name)
        if not owned:
            return
        where = sorted({row["database"] for row in owned})
        first = where[-1]
        async with postgres.connection(first or None) as connection:
            shown = [
                await connection.fetchval("select pg_describe_object($1, $2, $3)", *list(row)[1:])
                for row in owned
                if row["database"] == first
            ]
        others = ", ".join(sorted(text for text in shown if text)[:5])
        raise Permanent(
            f"{what} owns {others}{f' in database {first!r}' if first else ''}, so it is not dropped. "
            f"Give what it owns to another role (REASSIGN OWNED BY {sql.ident(name)} TO ..., in each "
            "database), then apply again."
        )

    async def _databases_with_rights(self, postgres: "Postgres", name: str) -> list[str]:
        query = """
            select distinct coalesce(d.datname, o.datname) as name
            from pg_shdepend s
            left join pg_database d on d.oid = s.dbid
            left join pg_database o on s.dbid = 0 and s.classid = 'pg_database'::regclass and o.oid = s.objid
            where s.refclassid = 'pg_authid'::regclass and s.deptype <> 'o'
              and s.refobjid = (select oid from pg_roles where rolname = $1)
              and coalesce(d.datname, o.datname) is not null"""
        async with postgres.connection() as connection:
            return sorted(row["name"] for row in await connection.fetch(query, name))

    def _find(self, one: Asked, here: Catalog) -> RoleRow | None:
        return find(here.roles, one, self._targets.environment, lambda fields: str(fields["name"]))

    def _extras(self, place: Place, found: Catalog) -> dict[Address, Seen]:
        def fields(row: RoleRow) -> Fields:
            return {"server": place[0], "name": row.name}

        return marked_extras(found.roles, "Role", self._targets.environment, fields)


def _defaults_held(here: Catalog, role: str, named: Fields, wanted: Fields) -> dict[str, list[str]]:
    return grants.defaults_held(here, role, named)


def _attributes(fields: Fields, row: RoleRow | None) -> str:
    words = []
    if row is None or row.login != fields["login"]:
        words.append("LOGIN" if fields["login"] else "NOLOGIN")
    if row is None or row.limit != fields["connectionLimit"]:
        words.append(f"CONNECTION LIMIT {int(fields['connectionLimit'])}")
    have, want = set(row.attributes) if row else set(), set(fields["attributes"])
    words += [f"NO{word.upper()}" for word in sorted(have - want)]
    words += [word.upper() for word in sorted(want - have)]
    return " ".join(words)


def _password_statement(task: Task, row: RoleRow | None) -> str | None:
    """Set the password where the secret is another than the one last applied; None where it is not."""
    wanted, before = task.fields.get("password"), (task.recorded or {}).get("password")
    name = sql.ident(task.fields["name"])
    if wanted is None:
        return f"ALTER ROLE {name} PASSWORD NULL" if before is not None and row is not None else None
    if row is not None and task.opcode is not Opcode.CREATE and encode(wanted) == encode(before):
        return None
    verifier = scram.verifier(str(task.reveal(wanted)))
    return f"ALTER ROLE {name} PASSWORD {sql.literal(verifier)}"


def _described(row: RoleRow, here: Catalog, server: str, environment: str) -> Json:
    database = database_resource(here, environment)
    groups = [group for group in row.member_of if not group.startswith("pg_")]
    spec: dict[str, Json] = {"server": server, "name": row.name, "login": row.login}
    if row.limit >= 0:
        spec["connectionLimit"] = row.limit
    if row.attributes:
        spec["attributes"] = list(row.attributes)
    if groups:
        spec["memberOf"] = groups
    if len(groups) < len(row.member_of):
        spec["builtinRoles"] = [group for group in row.member_of if group.startswith("pg_")]
    given = grants.described(here, row.name)
    if given:
        spec["grants"] = [{**one, "database": database} for one in given]
    return spec


KIND = Kind(
    name="Role",
    family="database",
    summary="A role of a PostgreSQL server, its password, and what it may do in which database.",
    spec=RoleSpec,
    provider=RoleProvider,
    traits=Traits(
        normalise=normalise,
        convergent=True,
        foresee=foresee,
        stable=frozenset({"name", "server"}),
        target=lambda fields: f"postgres/{fields['server']}",
    ),
    outputs={"name": "its name", "server": "the target it is on"},
)
