"""The kind Dataset: rows of text from a pinned source, cleaned, split once and for all, and checked."""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.change import Impact
from gamma_orch.core.kind import Fields, Traits
from gamma_orch.core.observation import Observation
from gamma_orch.core.provider import Asked, Permanent, Task
from gamma_orch.kinds.models import dataset_spec
from gamma_orch.kinds.models.dataset_spec import DatasetSpec
from gamma_orch.kinds.models.derivation import Derivation, derive
from gamma_orch.kinds.models.pointing import Pointer, Pointing, built_before, pinned_source
from gamma_orch.kinds.models.source import identity
from gamma_orch.kinds.models.versions import installed
from gamma_orch.spec.kind import Kind
from gamma_orch.targets import BUILDS, Targets

if TYPE_CHECKING:
    from gamma_orch.kinds.models.building import Builder

ROWS = 1000  # of a query, at a time


def derivations(fields: Fields) -> tuple[Derivation, Derivation | None]:
    """What makes the rows, and what checks them (None where nothing is expected of them)."""
    raw = derive(installed, "fetch_data", {"source": identity(fields["source"])})
    rows = derive(installed, "prepare_data", dataset_spec.preparation(fields), raw=raw)
    if not fields["expectations"]:
        return rows, None
    return rows, derive(installed, "check_data", {"expectations": _flat(fields["expectations"])}, data=rows)


def _flat(expectations: Sequence[Json]) -> list[Json]:
    return [{**{k: v for k, v in one.items() if k != "with"}, **one.get("with", {})} for one in expectations]


class DatasetProvider:
    def __init__(self, targets: Targets) -> None:
        from gamma_orch.kinds.models.building import store_of

        self._targets = targets
        self._pointing = Pointing(store_of(targets), targets.environment, targets.state.parent)

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        return await asyncio.to_thread(self._pointing.observe, "Dataset", asked)

    async def apply(self, task: Task) -> None:
        """Raises Temporary or Permanent."""
        from gamma_orch.kinds.models.building import build

        local: dict[str, Json] = {"source": task.fields["source"]}
        if "postgres" in task.fields["source"]:
            path = self._targets.state / "builds" / "queries" / f"{task.address.name}.jsonl"
            pin = await self._query(task.fields["source"]["postgres"], path)
            local["source"] = {"rows": str(path)}
        else:
            pin = await asyncio.to_thread(self._pointing.pins, task.fields)
        rows, check = derivations(pinned_source(task.fields, pin))

        def work(builder: "Builder") -> None:
            builder.folder(rows)  # hashed: what is damaged is made anew
            made = builder.artifact(rows)
            checked = builder.artifact(check) if check is not None else None
            facts = made.facts
            outputs: dict[str, Json] = {
                "digest": made.digest,
                "key": made.key,
                "rows": facts.get("rows", {}),
                "size": made.size,
            }
            if checked is not None:
                outputs["expectations"] = checked.facts.get("passed", 0)
            told = {"facts": facts, "check": checked.key if checked else None}
            pointer = Pointer(made.key, made.digest, dict(task.fields), outputs, pin, told)
            self._pointing.point(task.address, pointer)

        online = "hub" in task.fields["source"]
        log = f"{self._targets.environment}-dataset-{task.address.name}"
        await build(self._targets, self._pointing.store, log, task.tell, work, _none_given, local, online)

    async def delete(self, task: Task) -> None:
        """The environment points at it no more. The rows stay until they are collected."""
        await asyncio.to_thread(self._pointing.unpoint, task.address)

    def estimate(self, planned: Mapping[Address, Fields]) -> Mapping[Address, Impact]:
        found: dict[Address, Impact] = {}
        for address, fields in planned.items():
            if "postgres" in fields["source"]:
                found[address] = Impact(note="build: the rows that the query gives then")
                continue
            rows, check = derivations(pinned_source(fields, self._pointing.pins(fields)))
            made = self._pointing.store.find(rows.key)
            if made is None:
                found[address] = Impact(note="build")
            elif check is not None and self._pointing.store.find(check.key) is None:
                found[address] = Impact(note=f"check; the rows are there ({built_before(made)})")
            else:
                found[address] = Impact(note=f"reuse ({built_before(made)})")
        return found

    async def _query(self, query: Json, path: Path) -> str:
        """The rows of a query as JSON Lines in a file, and their digest. In one snapshot, read-only."""
        import asyncpg

        path.parent.mkdir(parents=True, exist_ok=True)
        hashed = hashlib.sha256()
        postgres = self._targets.postgres(query["server"])
        wrong = (asyncpg.PostgresSyntaxError, asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError)
        try:
            async with (
                postgres.connection(query["database"]) as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                with path.open("wb") as file:
                    async for row in connection.cursor(query["sql"], prefetch=ROWS):
                        line = json.dumps(dict(row), default=str, ensure_ascii=False).encode() + b"\n"
                        hashed.update(line)
                        file.write(line)
        except wrong as error:
            raise Permanent(f"source.postgres.sql cannot be run: {error}. Try it with psql first.") from None
        except asyncpg.ReadOnlySQLTransactionError:
            raise Permanent("source.postgres.sql writes; it has to be a SELECT.") from None
        return hashed.hexdigest()


def _none_given(digest: str) -> Any:
    raise AssertionError(digest)  # a dataset is made from nothing that another resource makes


KIND = Kind(
    name="Dataset",
    family="models",
    summary="Rows of text from a pinned source, cleaned, split by a hash of each row, and checked.",
    spec=DatasetSpec,
    provider=DatasetProvider,
    traits=Traits(
        normalise=dataset_spec.normalise,
        convergent=True,
        target=lambda _fields: BUILDS,
    ),
    outputs={
        "digest": "the digest of its content",
        "key": "the key of its artifact in the store",
        "rows": "how many rows each split has",
        "size": "its bytes",
        "expectations": "how many expectations it met",
    },
)
