"""The kind Role: who may log in, and what they may do in which database.

Privileges converge as the difference between what the role has and what it is to have, in one
transaction a database. A password is never read back: it is set when the role is made and whenever
the secret changed, and goes to the server as a SCRAM verifier only.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Traits
from gamma_orch.core.leaves import encode
from gamma_orch.core.observation import ABSENT, Observation, Seen
from gamma_orch.core.provider import Asked, Opcode, Permanent, Task
from gamma_orch.kinds.database import agreement, catalog, describing, grants, marks, role_drop, scram, sql
from gamma_orch.kinds.database.catalog import Catalog, RoleRow
from gamma_orch.kinds.database.passing import Place, World, asked, check_stays, find, marked_extras, passing
from gamma_orch.kinds.database.role_spec import RoleSpec, foresee, normalise, places
from gamma_orch.spec.kind import Kind
from gamma_orch.targets import MissingDatabase, Targets

if TYPE_CHECKING:
    from gamma_orch.targets.postgres import Postgres

LOCK_TIMEOUT = "2s"


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
        await role_drop.check_owns_nothing(postgres, row.name, what)
        for name in await role_drop.databases_with_rights(postgres, row.name):
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
        return describing.role(row, here, server, self._targets.environment) if row else None

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
    check=agreement.roles,
)
