"""The kind Service: an HTTP API that serves models, as processes that each run the wanted bundle.

Observing is asking every worker which bundle it runs; healthy means that all that should be there are, and
all run the same one. Applying compiles the bundle and rolls it out (`rollout`).
"""

import asyncio
import importlib.metadata
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Traits
from gamma_orch.core.observation import ABSENT, Observation, Seen, Unreadable
from gamma_orch.core.provider import Asked, Permanent, ProviderError, Task, Temporary
from gamma_orch.kinds.serving import agreement
from gamma_orch.kinds.serving.house import House
from gamma_orch.kinds.serving.service_spec import ServiceSpec, normalise
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.quantities import seconds_of
from gamma_orch.targets import Targets
from gamma_orch.targets.embedded_postgres import State

if TYPE_CHECKING:
    from gamma_orch.kinds.serving.compiling import Artifact
    from gamma_orch.targets.embedded_valkey import EmbeddedValkey
    from gamma_orch.targets.supervised import Program, Supervised

# Seconds after which supervisord kills a worker that it stops. A worker ends its drain by itself; another
# number here would make supervisord close the listening socket, so it is the same for all.
STOP = 330


class ServiceProvider:
    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._place = targets.state / targets.environment

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        found = {one.address: await self._look(one.address.name) for one in asked}
        for folder in sorted(self._place.glob("service-*")):
            address = Address("Service", folder.name.removeprefix("service-"))
            if address not in found and self._house(address.name).exists:
                found[address] = await self._look(address.name)
        return found

    async def apply(self, task: Task) -> None:
        """Raises Temporary or Permanent; what ran before runs on until the new bundle has proved itself."""
        from gamma_orch.kinds.serving.compiling import compiled
        from gamma_orch.kinds.serving.rollout import Rollout

        name, house = task.address.name, self._house(task.address.name)
        fields = {**task.reveal(dict(task.fields)), **self._own(house)}
        valkey = await asyncio.to_thread(self._valkey, fields)
        made = await asyncio.to_thread(compiled, name, fields, self._artifact, house.hashed, valkey, _code())
        house.store(made.bundle, made.secrets, task.fields)
        watch = seconds_of(fields["rollout"]["watch"])
        rollout = Rollout(house, self._supervised(), self._program(name, fields), task.tell, watch)
        await rollout.run(made.bundle.digest, house.current())

    async def delete(self, task: Task) -> None:
        """Workers drain and stop; the folder goes."""
        name = task.address.name
        await asyncio.to_thread(self._supervised().remove, self._group(name))
        await asyncio.to_thread(self._house(name).destroy)

    # --- looking ----------------------------------------------------------------------------------

    async def _look(self, name: str) -> Observation:
        house = self._house(name)
        try:
            current = house.current()
            if not current:
                return ABSENT
            fields = house.fields(current)  # not the bundle: an older version's may be of another form
            wanted = self._program(name, fields)
            served = fields["models"].values()
            keys = sorted({one["key"] for model in served for one in model["versions"].values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return Unreadable(
                f"What Service/{name} runs cannot be read from {house.folder}: {error}. "
                "Delete the file `current` in it to have all of it made anew."
            )
        try:
            faults = [fault async for fault in self._faults(name, current, wanted)]
            if self._shares(fields) and self._embedded().state() is not State.RUNNING:
                faults.append("Valkey does not run: workers go on without a shared cache and shared limits")
        except ProviderError as error:
            return Unreadable(str(error))
        outputs = {
            "url": f"http://{wanted.host}:{wanted.port}",
            "bundle": current,
            "keys": keys,
        }
        return Seen(fields, outputs, not faults, "; ".join(faults))

    async def _faults(self, name: str, current: str, wanted: "Program") -> AsyncIterator[str]:
        from gamma_orch.app import control

        slots = await asyncio.to_thread(self._supervised().slots, self._group(name))
        running = [slot.number for slot in slots if slot.runs]
        if len(running) != wanted.workers:
            yield f"{len(running)} of {wanted.workers} workers run"
        if outdated := [slot.number for slot in slots if slot.runs and slot.digest != wanted.digest]:
            yield f"workers of an older version run: {', '.join(map(str, outdated))}"
        for number in running:
            try:
                state = await control.ask(self._house(name).folder, number, "state")
            except control.Silent as error:
                yield str(error)
                continue
            if state["bundle"] != current:
                yield f"worker {number} runs the bundle {state['bundle'][:12] or 'none'}, not {current[:12]}"
            elif not state["ready"]:
                yield f"worker {number} is not ready"

    # --- parts ------------------------------------------------------------------------------------

    def _house(self, name: str) -> House:
        return House(self._place / f"service-{name}")

    def _supervised(self) -> "Supervised":
        from gamma_orch.targets.supervised import Supervised, Supervisor

        return Supervised(Supervisor(self._place / "supervisor"))

    def _group(self, name: str) -> str:
        return f"service-{name}"

    def _program(self, name: str, fields: Fields) -> "Program":
        from gamma_orch.targets.supervised import Program

        listen = fields["listen"]
        return Program(
            name=self._group(name),
            command=(sys.executable, "-P", "-m", "gamma_orch.app.worker", str(self._house(name).folder)),
            workers=fields["workers"],
            host=listen["host"],
            port=listen["port"],
            environment={"GAMMA_CODE": _code()},
            stop_seconds=STOP,
        )

    def _own(self, house: House) -> Mapping[str, Json]:
        return {"tokens": house.secret("tokens"), "columns": house.secret("columns")}

    def _valkey(self, fields: Fields) -> str:
        """The URL of the Valkey that workers share; "" where nothing asks for one."""
        if fields.get("valkey"):
            return str(fields["valkey"])
        return self._embedded().ensure() if self._shares(fields) else ""

    def _shares(self, fields: Fields) -> bool:
        """Whether the embedded Valkey is needed."""
        return not fields.get("valkey") and bool(
            fields.get("limits") or (fields.get("cache") or {}).get("shared")
        )

    def _embedded(self) -> "EmbeddedValkey":
        from gamma_orch.targets.embedded_valkey import EmbeddedValkey

        return EmbeddedValkey(self._place / "valkey-main")

    def _artifact(self, key: str) -> "Artifact":
        """A model's files on this machine. Raises Temporary or Permanent."""
        from gamma_orch.kinds.serving.compiling import Artifact
        from gamma_orch.runtimes.folder import Card
        from gamma_orch.store.artifacts import Artifacts
        from gamma_orch.store.errors import StoreError

        store = Artifacts(self._targets.builds.store, self._targets.state / "builds")
        try:
            found = store.find(key)
            if found is None:
                raise Permanent(f"The artifact {key[:12]} is not in the store. Apply its Model again.")
            folder = store.folder(found)
            task = Card.read(folder).task
        except StoreError as error:
            raise Temporary(str(error)) from error
        except (OSError, ValueError) as error:
            raise Permanent(f"The artifact {key[:12]} is no model: {error}. Build its Model anew.") from None
        return Artifact(str(folder), {file.path: file.sha256 for file in found.files}, task)


def _code() -> str:
    """The version of the app that workers run. In a checkout its files, for a version says nothing there."""
    from gamma_orch.app import code

    return f"{importlib.metadata.version('gamma-orch')}+{code.digest()}"


KIND = Kind(
    name="Service",
    family="serving",
    summary="An HTTP API that serves models: to whom, how often, from which cache, in how many processes.",
    spec=ServiceSpec,
    provider=ServiceProvider,
    traits=Traits(normalise=normalise, refers=True, convergent=True),
    outputs={
        "url": "where it answers",
        "bundle": "the digest of the bundle that its workers run",
        "keys": "the keys of the artifacts that it serves",
    },
    check=agreement.services,
)
