"""A service on Ray Serve: its application there, from one bundle to another and back, and what is wrong.

Serve starts replicas, shares requests out and replaces what dies; a bundle is its `user_config`. What a
replica runs it says itself, in the service's folder, which every node sees (`app.on_ray`). Always:

- A rollout is over when every replica runs the wanted bundle on the wanted code, and Serve says that all is
  well. Whatever fails, what was there before is there again, and the error says what failed.
- `current` names a bundle only after every replica has run it.

`config`, `faults` and `refusal` are pure.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.core.provider import Permanent, ProviderError, Tell, Temporary
from gamma_orch.kinds.serving.house import House
from gamma_orch.kinds.serving.rollout import ERRORS, LOADING, WATCHED
from gamma_orch.spec.quantities import seconds_of
from gamma_orch.targets.ray_serve import RayServe, ends, is_of, merged

APP = "gamma_orch.app.on_ray:application"
DEPLOYMENT = "worker"  # as app.on_ray calls it
# Requests of one worker at a time. Its own bounds are the models' queues: Serve must not keep back what would
# run together with others, nor count those who listen to /v1/live.
ONGOING = 100_000
RETURNING = 60.0  # seconds in which the bundle of before answers again
LOOK = 0.25  # seconds between two looks
VISIBLE = 15.0  # seconds after which every node sees what another one has written
TRACE = "Traceback"


def config(name: str, fields: Fields, home: str, code: str, digest: str) -> dict[str, Json]:
    """What Serve is told of the application. Another `code` replaces the replicas one by one, and so do other
    `cpus`; everything else is changed in those that run."""
    return {
        "name": name,
        "route_prefix": fields["ray"]["route"],
        "import_path": APP,
        "args": {"home": home, "code": code},
        "deployments": [
            {
                "name": DEPLOYMENT,
                "num_replicas": fields["workers"],
                "user_config": {"bundle": digest},
                "max_ongoing_requests": ONGOING,
                "graceful_shutdown_timeout_s": seconds_of(fields["drain"]) + 5.0,
                "graceful_shutdown_wait_loop_s": 0.5,
                "ray_actor_options": {"num_cpus": float(fields["ray"]["cpus"])},
            }
        ],
    }


def faults(details: Json, wanted: Json, told: Mapping[str, Json]) -> Iterator[str]:
    """What is not as it should be. `details`: what Serve says. `told`: what each replica says."""
    name, home = wanted["name"], wanted["args"]["home"]
    found = details["applications"].get(name)
    if found is None:
        yield f"Ray Serve has no application {name}"
        return
    if ends(found):
        yield f"the application {name} was deleted on Ray Serve"
        return
    if not is_of(found, home):
        yield f"the application {name} on Ray Serve is not this project's"
        return
    if found["deployed_app_config"] != wanted:
        yield f"Ray Serve has another configuration of {name}"
    if found["status"] != "RUNNING":
        yield f"the application {name} is {found['status']}{_because(found)}"
    deployment = found.get("deployments", {}).get(DEPLOYMENT)
    if deployment is None:
        return
    if deployment["status"] != "HEALTHY":
        yield f"its deployment is {deployment['status']}{_because(deployment)}"
    running, count = len(_running(details, name)), wanted["deployments"][0]["num_replicas"]
    if not running == len(deployment["replicas"]) == count:
        yield f"{running} of {count} workers run, and {len(deployment['replicas'])} are there"
    yield from _replica_faults(details, wanted, told)


def refusal(details: Json, wanted: Json, told: Mapping[str, Json], stale: "tuple[str, ...]") -> str:
    """Why it will not come to what is wanted; "" where it may. `stale`: messages of before."""
    digest = wanted["deployments"][0]["user_config"]["bundle"]
    for replica in _running(details, wanted["name"]):
        says = told.get(replica)
        if says and says["wanted"] == digest and says["fault"]:
            return f"Replica {replica} refuses the bundle: {says['fault']}"
    found = details["applications"].get(wanted["name"]) or {}
    for one in (found, *found.get("deployments", {}).values()):
        message = one.get("message") or ""
        # One that is UNHEALTHY may have lost a replica, and Serve starts another.
        failed = one.get("status") == "DEPLOY_FAILED" or TRACE in message
        if failed and message not in stale:
            return f"Ray Serve cannot run it{_because(one)}"
    return ""


def _replica_faults(details: Json, wanted: Json, told: Mapping[str, Json]) -> Iterator[str]:
    for replica in _running(details, wanted["name"]):
        yield from _unlike(replica, told.get(replica, {}), wanted)


def _unlike(replica: str, says: Json, wanted: Json) -> Iterator[str]:
    digest, code = wanted["deployments"][0]["user_config"]["bundle"], wanted["args"]["code"]
    if not says:
        yield f"replica {replica} is gone, or cannot say in {wanted['args']['home']}/ray what it runs"
    elif says["bundle"] != digest:
        why = f": {says['fault']}" if says["fault"] else ""
        yield f"replica {replica} runs the bundle {says['bundle'][:12] or 'none'}, not {digest[:12]}{why}"
    elif says["code"] != code:
        yield (
            f"replica {replica} runs gamma-orch {says['code']}, and here it is {code}: install the same one "
            "on the nodes"
        )


def _because(found: Json) -> str:
    """The last words of what Serve says: the rest of a traceback helps nobody here."""
    lines = [line for line in str(found.get("message") or "").splitlines() if line.strip()]
    return f": {lines[-1].strip()[:400]}" if lines else ""


@dataclass(frozen=True, slots=True)
class Cluster:
    serve: RayServe
    house: House
    tell: Tell
    here: bool  # on this machine, so that locks in the house tell which replicas live

    async def faults(self, wanted: Json) -> list[str]:
        """Raises Temporary or Permanent where the cluster cannot be asked."""
        return list(faults(await self._read(), wanted, self._told()))

    async def has(self, name: str) -> bool:
        """Whether there is such an application. Raises as `faults` does."""
        return name in (await self._read())["applications"]

    async def is_at(self, other: "Cluster") -> bool:
        """Whether both are one cluster."""
        if self.serve.shown == other.serve.shown:
            return True
        mine, its = [(await one._read()).get("controller_info") for one in (self, other)]
        return bool(mine) and mine == its

    async def starts(self, wanted: Json, host: str, port: int) -> bool:
        """Whether Serve does not run yet. Raises as `run` does, before anything has changed."""
        details = await self._read()
        merged(details, wanted, host, port)
        return not details.get("http_options")

    async def run(self, wanted: dict[str, Any], host: str, port: int, before: str, watch: float) -> None:
        """Bring the application to this configuration. `before`: the digest of the bundle that is current;
        `watch`: seconds that another one is watched. Raises Permanent where it does not do well, and
        Temporary where the cluster was lost; in both cases what was there before is there again."""
        name, digest = wanted["name"], wanted["deployments"][0]["user_config"]["bundle"]
        found = (await self._read())["applications"].get(name)
        old = _before(found, before) if found and is_of(found, wanted["args"]["home"]) else None
        try:
            await self._bring(wanted, host, port, LOADING)
            if digest != before and (why := await self._unwell(wanted, watch)):
                raise Permanent(why)
        except ProviderError as error:
            raise type(error)(f"{error}{await self._returned(wanted, old, host, port)}") from None
        self.house.settle(digest)
        alive = {one["replica_id"] for one in _replicas(await self._read(), name)}
        for replica in self.house.told().keys() - alive:
            (self.house.folder / "ray" / f"{replica}.json").unlink(missing_ok=True)

    async def remove(self, name: str) -> None:
        """The application, with its replicas drained. Raises Temporary or Permanent."""
        home, end = str(self.house.folder.resolve()), time.monotonic() + LOADING
        await asyncio.to_thread(self.serve.remove, name, home)
        while (found := (await self._read())["applications"].get(name)) and (
            ends(found) or is_of(found, home)
        ):
            if time.monotonic() > end:
                raise Temporary(f"The application {name} does not end on Ray Serve. Apply again.")
            self.tell(f"{name}: draining", None)
            await asyncio.sleep(LOOK)

    # --- parts ------------------------------------------------------------------------------------

    async def _read(self) -> Json:
        return await asyncio.to_thread(self.serve.read)

    def _told(self) -> dict[str, Json]:
        """What each replica says, without those of which Serve does not know yet that they are dead."""
        told = self.house.told()
        return {one: says for one, says in told.items() if not self.here or self.house.lives(says["slot"])}

    async def _bring(
        self, wanted: Json, host: str, port: int, seconds: float, any_code: bool = False
    ) -> None:
        stale = _messages((await self._read())["applications"].get(wanted["name"]))
        self.tell(f"{wanted['name']}: deploying on Ray Serve", None)
        await asyncio.to_thread(self.serve.deploy, wanted, host, port)
        await self._settled(wanted, seconds, stale, any_code)

    async def _returned(self, wanted: Json, old: Json, host: str, port: int) -> str:
        """Have what was there before again, and say so."""
        try:
            if old is None:
                await self.remove(wanted["name"])
                return ""
            await self._bring(old, host, port, RETURNING, any_code=True)  # nodes have one, whatever is wanted
        except ProviderError as error:
            return f" What was there before is not there again: {error}"
        return " The bundle of before answers again."

    async def _settled(self, wanted: Json, seconds: float, stale: "tuple[str, ...]", any_code: bool) -> None:
        """Wait until nothing is wrong. `stale`: what Serve said already before. `any_code`: it need not be
        the version that is wanted. Raises Permanent where it will not come to that, and Temporary where Serve
        says nothing any more."""
        start, calm, said = time.monotonic(), 0.0, ""
        while True:
            now = time.monotonic()
            try:
                details = await self._read()
            except Temporary:
                if now - start > seconds:
                    raise
                await asyncio.sleep(LOOK)
                continue
            told = self._told()
            if any_code:
                told = {replica: {**says, "code": wanted["args"]["code"]} for replica, says in told.items()}
            left = list(faults(details, wanted, told))
            if not left:
                return
            if why := refusal(details, wanted, told, stale):
                raise Permanent(why)
            # Where Serve has done all that it will do, and a replica still is another one, waiting is no use.
            calm = (calm or now) if len(left) == len(list(_replica_faults(details, wanted, told))) else 0.0
            if now - start > seconds or (calm and now - calm > VISIBLE):
                raise Permanent(f"It is not as wanted after {now - start:.0f} s: {'; '.join(left)}.")
            if left[0] != said:
                said = left[0]
                self.tell(said, None)
            await asyncio.sleep(LOOK)

    async def _unwell(self, wanted: Json, watch: float) -> str:
        """Why the bundle goes back, after it has been watched; "" where it does well."""
        from gamma_orch.kinds.serving import figures

        metrics, slots = self.house.folder / "metrics", self.house.seats()
        start, end = figures.answered(metrics, slots), time.monotonic() + watch
        while time.monotonic() < end:
            await asyncio.sleep(min(LOOK, watch))
            now = figures.answered(metrics, slots)
            answers, failed = now[0] - start[0], now[1] - start[1]
            if answers >= WATCHED and failed > ERRORS * answers:
                return f"Workers answered {failed:.0f} of {answers:.0f} requests with an error of their own."
        if watch and (left := await self.faults(wanted)):
            return f"It did not stay well: {'; '.join(left)}."
        return ""


def _before(found: Json, digest: str) -> Json:
    """The configuration that goes back: with the bundle that has proved itself, whatever an attempt that was
    cut off has left there. None where there is none."""
    if not digest:
        return None
    there: dict[str, Any] = found["deployed_app_config"]
    return {
        **there,
        "deployments": [{**one, "user_config": {"bundle": digest}} for one in there["deployments"]],
    }


def _replicas(details: Json, name: str) -> list[Json]:
    found = details["applications"].get(name) or {}
    return list(found.get("deployments", {}).get(DEPLOYMENT, {}).get("replicas", ()))


def _running(details: Json, name: str) -> list[str]:
    return [one["replica_id"] for one in _replicas(details, name) if one["state"] == "RUNNING"]


def _messages(found: Json) -> "tuple[str, ...]":
    parts = (found, *found.get("deployments", {}).values()) if found else ()
    return tuple(one["message"] for one in parts if one.get("message"))
