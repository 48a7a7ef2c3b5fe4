"""The workbench of these tests: specs in, changes and effects out, on a real server.

It does what the engine does around a provider: validate, normalise, observe, compare, apply, read back,
record. So a test says what is wanted and looks at what the planner would show.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.change import Action, Change
from gamma_orch.core.compare import compare
from gamma_orch.core.fingerprint import Fingerprint
from gamma_orch.core.kind import Fields
from gamma_orch.core.leaves import Secret, encode
from gamma_orch.core.observation import Absent, Observation, Seen
from gamma_orch.core.provider import Asked, Opcode, Provider, Task
from gamma_orch.core.record import Record
from gamma_orch.core.resource import NO_LIFECYCLE
from gamma_orch.core.settle import differences
from gamma_orch.kinds.database import database, index, role, schema, table
from gamma_orch.spec.references import plain
from gamma_orch.targets import Targets

KINDS = {kind.name: kind for kind in (database.KIND, schema.KIND, table.KIND, role.KIND, index.KIND)}
OPCODES = {
    Action.CREATE: Opcode.CREATE,
    Action.UPDATE: Opcode.UPDATE,
    Action.ADOPT: Opcode.UPDATE,
    Action.REPLACE: Opcode.REPLACE,
}
SAME = Fingerprint("", "", "")

ACCOUNTS: Json = {
    "database": "main",
    "columns": {
        "id": {"type": "bigint", "identity": "always"},
        "email": {"type": "text"},
        "plan": {"type": "text", "default": "'free'"},
        "created_at": {"type": "timestamptz", "default": "now()"},
    },
    "primaryKey": ["id"],
}


class Bench:
    create = Opcode.CREATE

    def __init__(
        self, declared: Mapping[str, Mapping[str, Json]], state: Path, name: str, environment: str
    ) -> None:
        self.name = name  # of the database, and a prefix for roles, which all databases share
        self.secrets: dict[str, str] = {}
        self.targets = Targets(environment, state, declared, self.reveal)
        self.providers: dict[str, Provider] = {
            kind: found.provider(self.targets) for kind, found in KINDS.items()
        }
        self.wanted: dict[Address, Fields] = {}
        self.records: dict[Address, Fields] = {}

    async def aclose(self) -> None:
        await self.targets.aclose()

    def again(self, environment: str = "") -> "Bench":
        """Another process on the same world, which knows nothing yet."""
        environment = environment or self.targets.environment
        other = Bench(self.targets._declared, self.targets.state, self.name, environment)
        other.wanted = dict(self.wanted)
        other.secrets = self.secrets
        return other

    # What is wanted

    def want(self, address: str, spec: Json) -> Address:
        """Validate and normalise a spec as the language would. Parents must be wanted before."""
        at = Address.parse(address)
        kind = KINDS[at.kind]
        model = kind.spec.model_validate(spec, by_alias=True, by_name=False)
        self.wanted[at] = kind.traits.normalise(at, plain(model), self.wanted.__getitem__)
        return at

    async def ready(self, **spec: Json) -> None:
        """Make Database/main."""
        await self.apply("Database/main", {"name": self.name, **spec})

    def secret(self, name: str, value: str) -> Secret:
        """A secret whose digest tells whether its value changed, and nothing else."""
        self.secrets[name] = value
        return Secret(name, f"d{abs(hash(value))}")

    def reveal(self, tree: Json) -> Json:
        return self.secrets[tree.name] if isinstance(tree, Secret) else tree

    # What is there

    def asked(self, at: Address) -> Asked:
        wanted = self.wanted.get(at)
        return Asked(at, encode(wanted) if wanted else None, self.records.get(at))

    async def observe(self, address: str | Address) -> Observation:
        at = Address.parse(address) if isinstance(address, str) else address
        return (await self.providers[at.kind].observe([self.asked(at)]))[at]

    async def seen(self, address: str) -> Seen:
        found = await self.observe(address)
        assert isinstance(found, Seen), found
        return found

    async def seen_of(self, address: str, spec: Json) -> Seen:
        self.want(address, spec)
        return await self.seen(address)

    async def change(self, address: str, spec: Json = None) -> Change:
        """What a plan would say."""
        at = self.want(address, spec) if spec is not None else Address.parse(address)
        kind = KINDS[at.kind]
        fields = self.records.get(at)
        record = Record(fields, {}, SAME) if fields is not None else None
        wanted = encode(self.wanted[at])
        return compare(at, wanted, SAME, NO_LIFECYCLE, record, await self.observe(at), kind.traits)

    # What is done

    def task(self, at: Address, opcode: Opcode, fields: Fields) -> Task:
        return Task("key", opcode, at, fields, self.records.get(at), None, self.reveal)

    async def apply(self, address: str, spec: Json = None) -> Change:
        """Plan it, do it, read it back, record it. Gives what the plan said."""
        change = await self.change(address, spec)
        at = change.address
        assert change.action is not Action.REFUSE, change.detail
        if change.action in OPCODES:
            await self.providers[at.kind].apply(self.task(at, OPCODES[change.action], self.wanted[at]))
        await self.check(at)
        self.records[at] = encode(self.wanted[at])
        return change

    async def check(self, at: Address) -> None:
        """The engine's own test of a read-back."""
        found = await self.observe(at)
        assert isinstance(found, Seen), found
        assert found.healthy, found.why
        wrong = differences(encode(self.wanted[at]), found.fields, self.records.get(at, {}))
        assert not wrong, (wrong, found.fields)

    async def delete(self, address: str) -> None:
        at = Address.parse(address)
        self.records.setdefault(at, encode(self.wanted[at]))
        await self.providers[at.kind].delete(self.task(at, Opcode.DELETE, {}))
        assert isinstance(await self.observe(at), Absent)
        del self.records[at]

    # Behind Gamma's back

    @asynccontextmanager
    async def sql(self, database: str | None = None) -> AsyncIterator[Any]:
        """A connection of somebody else's, to the test's database."""
        import asyncpg

        postgres = self.targets.postgres("main")
        url = await postgres._url()
        connection = await asyncpg.connect(url, database=database or self.name)
        try:
            yield connection
        finally:
            await connection.close()

    async def run_on_maintenance(self, statement: str) -> None:
        async with self.sql("postgres") as connection:
            await connection.execute(statement)

    async def run(self, *statements: str) -> Any:
        """Run statements by hand; gives the value of the last, where it has one."""
        async with self.sql() as connection:
            for statement in statements[:-1]:
                await connection.execute(statement)
            last = statements[-1]
            if last.lstrip().lower().startswith(("select", "show")):
                return await connection.fetchval(last)
            await connection.execute(last)
            return None
