"""The kind Service: an HTTP API that serves models, as processes that each run the wanted bundle.

Observing is asking every worker which bundle it runs, and nginx which configuration; healthy means that all
that should be there are, and all run the same one. Applying compiles the bundle and rolls it out (`rollout`,
on Ray Serve `cluster`). From the one engine to the other, what answered before ends last.
"""

import asyncio
import contextlib
import importlib.metadata
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Traits
from gamma_orch.core.observation import ABSENT, Observation, Seen, Unreadable
from gamma_orch.core.provider import Asked, Permanent, ProviderError, Task, Tell, Temporary, silent
from gamma_orch.kinds.serving import agreement, programs
from gamma_orch.kinds.serving.bounds import machine
from gamma_orch.kinds.serving.house import House
from gamma_orch.kinds.serving.service_spec import ServiceSpec, normalise
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.quantities import seconds_of
from gamma_orch.targets import Targets
from gamma_orch.targets.embedded_postgres import State

if TYPE_CHECKING:
    from gamma_orch.app.bundle import Bundle
    from gamma_orch.kinds.serving.cluster import Cluster
    from gamma_orch.kinds.serving.compiling import Artifact
    from gamma_orch.kinds.serving.front import Front
    from gamma_orch.kinds.serving.rollout import Rollout
    from gamma_orch.targets.embedded_valkey import EmbeddedValkey
    from gamma_orch.targets.supervised import Program, Supervised


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

        name, house = task.address.name, self._house(task.address.name)
        fields = {**task.reveal(dict(task.fields)), **self._own(house)}
        valkey = await asyncio.to_thread(self._valkey, fields)
        made = await asyncio.to_thread(compiled, name, fields, self._artifact, house.hashed, valkey, _code())
        if task.recorded and task.recorded.get("workers") != task.fields["workers"]:
            house.scale(None)  # somebody wrote another number: a policy begins from there
        wanted = self._workers(name, fields)
        front = self._front(name, fields, made.bundle, task.tell)
        if front is not None:
            await front.check()  # before anything has changed
        house.store(made.bundle, made.secrets, task.fields)
        watch = seconds_of(fields["rollout"]["watch"])
        if programs.is_on_ray(fields):
            await self._deploy(name, fields, made.bundle.digest, task.tell, watch)
            return
        rollout = self._rollout(name, wanted, front, task.tell, watch)
        await rollout.run(made.bundle.digest, house.current())
        await self._leave(house, task.tell)

    async def resize(self, name: str, workers: int | None, tell: Tell) -> None:
        """As many workers of each replica as a policy wants, or as the spec says. No request is lost: new
        ones start with the bundle, and those too many drain. Raises Temporary or Permanent."""
        house = self._house(name)
        house.scale(workers)
        current = house.current()
        fields = house.fields(current)
        if programs.is_on_ray(fields):
            await self._deploy(name, fields, current, tell, 0.0)
            return
        wanted = self._workers(name, fields)
        front = self._front(name, fields, house.bundle(current), tell)
        await self._rollout(name, wanted, front, tell, 0.0).run(current, current)

    async def delete(self, task: Task) -> None:
        """Workers drain and stop, after the nginx in front of them; the folder goes. Raises Temporary."""
        house = self._house(task.address.name)
        await self._stop(task.address.name)
        await self._leave(house, task.tell)
        await asyncio.to_thread(house.destroy)

    # --- on Ray Serve -----------------------------------------------------------------------------

    async def _deploy(self, name: str, fields: Fields, digest: str, tell: Tell, watch: float) -> None:
        """Have it on Ray Serve, and then nowhere else. Raises Temporary or Permanent; then what ran before
        runs on."""
        house, listen = self._house(name), fields["listen"]
        place, wanted = self._cluster(name, fields), self._on_ray(name, fields, digest)
        cluster = self._at(place, house, tell)
        starts = await cluster.starts(wanted, listen["host"], listen["port"])
        ports = {one.port for one in self._supervised().programs()}
        if starts and cluster.here and listen["port"] in ports:
            raise Permanent(
                f"Ray Serve does not run yet, and would need the port {listen['port']}, where workers of "
                "supervisord answer. Write another one into `listen`: what Ray Serve has once it keeps."
            )
        known = house.clusters()
        house.remember([*(one for one in known if one != place), place])
        try:
            await cluster.run(wanted, listen["host"], listen["port"], house.current(), watch)
        except ProviderError:
            with contextlib.suppress(ProviderError):
                if not await cluster.has(place["name"]):
                    house.remember([one for one in known if one != place])
            raise
        await self._stop(name)
        await self._leave(house, tell, place)

    async def _stop(self, name: str) -> None:
        """The programs of supervisord, the one with the port first."""
        supervised = self._supervised()
        others = [one.name for one in supervised.programs() if programs.is_of(name, one.name)]
        for program in dict.fromkeys((programs.door(name), *others)):
            await asyncio.to_thread(supervised.remove, program)

    async def _leave(self, house: House, tell: Tell, kept: Mapping[str, str] | None = None) -> None:
        """The clusters that it is not wanted on. One may have two URLs."""
        for place in house.clusters():
            if place != kept:
                cluster = self._at(place, house, tell)
                if kept is None or not await cluster.is_at(self._at(kept, house)):
                    await cluster.remove(place["name"])
                house.remember([one for one in house.clusters() if one != place])

    def _cluster(self, name: str, fields: Fields) -> dict[str, str]:
        """Where it is on Ray Serve. A URL that is a secret, and is not revealed here, is the last one. Raises
        Permanent where there is none."""
        url, house = fields["ray"]["url"], self._house(name)
        if not isinstance(url, str):
            if not (known := house.clusters()):
                raise Permanent(
                    f"On which cluster Service/{name} is cannot be read: {house.folder / 'clusters'} is "
                    "gone. Delete the file `current` beside it to have it deployed anew."
                )
            url = known[-1]["url"]
        return {"url": url, "name": f"gamma-{self._targets.environment}-{name}"}

    def _at(self, place: Mapping[str, str], house: House, tell: Tell = silent) -> "Cluster":
        from gamma_orch.kinds.serving.cluster import Cluster
        from gamma_orch.targets.ray_serve import RayServe

        return Cluster(RayServe(place["url"]), house, tell, here=not machine(place["url"]))

    def _on_ray(self, name: str, fields: Fields, digest: str) -> dict[str, Json]:
        from gamma_orch.kinds.serving.cluster import config

        house = self._house(name)
        home = str(house.folder.resolve())
        return config(self._cluster(name, fields)["name"], house.sized(fields), home, _code(), digest)

    async def _ray_faults(self, name: str, fields: Fields, current: str) -> list[str]:
        """Raises Temporary or Permanent where the cluster cannot be asked."""
        cluster = self._at(self._cluster(name, fields), self._house(name))
        return await cluster.faults(self._on_ray(name, fields, current))

    # --- looking ----------------------------------------------------------------------------------

    async def _look(self, name: str) -> Observation:
        house = self._house(name)
        try:
            current = house.current()
            if not current:
                return ABSENT
            fields = house.fields(current)  # not the bundle: an older version's may be of another form
            wanted = self._workers(name, fields)
            on_ray, clusters, url = programs.is_on_ray(fields), house.clusters(), programs.url(fields)
            served = fields["models"].values()
            parts = (part for one in served for part in (one["versions"], one.get("adapters", {})))
            keys = sorted({artifact["key"] for part in parts for artifact in part.values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return Unreadable(
                f"What Service/{name} runs cannot be read from {house.folder}: {error}. "
                "Delete the file `current` in it to have all of it made anew."
            )
        try:
            faults = [fault async for fault in self._faults(name, current, wanted)]
            if programs.replicas(fields):
                faults += await self._front_faults(name, fields, current)
            if on_ray:
                faults += await self._ray_faults(name, fields, current)
            if len(clusters) > on_ray:
                faults.append("it may be on a Ray cluster where it is not wanted any more")
            if self._shares(fields) and self._embedded().state() is not State.RUNNING:
                faults.append("Valkey does not run: workers go on without a shared cache and shared limits")
        except ProviderError as error:
            return Unreadable(str(error))
        outputs = {
            "url": url,
            "bundle": current,
            "keys": keys,
        }
        return Seen(fields, outputs, not faults, "; ".join(faults))

    async def _faults(self, name: str, current: str, wanted: "Sequence[Program]") -> AsyncIterator[str]:
        from gamma_orch.app import control

        supervised, home = self._supervised(), self._house(name).folder
        for program in wanted:
            slots = await asyncio.to_thread(supervised.slots, program.name)
            running = [slot for slot in slots if slot.runs]
            where = f" of {program.name}" if program.unix else ""
            if len(running) != program.workers:
                yield f"{len(running)} of {program.workers} workers{where} run"
            if outdated := [program.first + one.number for one in running if one.digest != program.digest]:
                yield f"workers of an older version run: {', '.join(map(str, outdated))}"
            if program.unix and not await asyncio.to_thread(Path(program.unix).is_socket):
                yield f"the socket{where} is gone"
            for number in (program.first + slot.number for slot in running):
                try:
                    state = await control.ask(home, number, "state")
                except control.Silent as error:
                    yield str(error)
                    continue
                if (bundle := state["bundle"]) != current:
                    yield f"worker {number} runs the bundle {bundle[:12] or 'none'}, not {current[:12]}"
                elif not state["ready"]:
                    yield f"worker {number} is not ready"
        names = {program.name for program in wanted} | {programs.door(name)}
        for other in supervised.programs():
            if programs.is_of(name, other.name) and other.name not in names:
                yield f"{other.name} runs, and is not wanted"

    async def _front_faults(self, name: str, fields: Fields, current: str) -> list[str]:
        from gamma_orch.targets.nginx import Missing

        try:
            front = self._front(name, fields, self._house(name).bundle(current))
        except Missing as error:
            return [str(error)]
        except (OSError, ValueError):
            return ["the bundle is of an older version"]
        return [fault async for fault in front.faults()] if front is not None else []

    # --- parts ------------------------------------------------------------------------------------

    def _house(self, name: str) -> House:
        return House(self._place / f"service-{name}")

    def _supervised(self) -> "Supervised":
        from gamma_orch.targets.supervised import Supervised, Supervisor

        return Supervised(Supervisor(self._place / "supervisor"))

    def _workers(self, name: str, fields: Fields) -> "tuple[Program, ...]":
        """The programs, with as many workers as are wanted now. Raises Permanent."""
        house = self._house(name)
        return programs.workers(name, house.sized(fields), house.folder, _code())

    def _rollout(
        self, name: str, wanted: "tuple[Program, ...]", front: "Front | None", tell: Tell, watch: float
    ) -> "Rollout":
        from gamma_orch.kinds.serving.rollout import Rollout

        is_of = partial(programs.is_of, name)
        return Rollout(self._house(name), self._supervised(), is_of, wanted, front, tell, watch)

    def _front(self, name: str, fields: Fields, bundle: "Bundle", tell: Tell = silent) -> "Front | None":
        """Raises Permanent for what nginx could not read, and Missing."""
        from gamma_orch.kinds.serving import proxy
        from gamma_orch.kinds.serving.front import Front
        from gamma_orch.targets.nginx import Nginx

        if not programs.replicas(fields):
            return None
        home, said = self._house(name).folder, fields["proxy"]
        nginx = Nginx(home.resolve() / "nginx")
        told = proxy.Proxy(
            folder=str(nginx.folder),
            replicas=programs.sockets(fields, home),
            others=tuple(said["others"]),
            connections=said["connections"],
            user="root" if os.geteuid() == 0 else "",
        )
        text, digest = proxy.rendered(told, bundle)
        program = programs.proxy(name, fields, nginx.command(), nginx.form())
        return Front(nginx, self._supervised(), program, text, digest, seconds_of(fields["drain"]), tell)

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
