"""What the kinds on an Alertmanager have in common: each of their resources is a part of its configuration.

`PartProvider` observes and applies parts; a kind says how its fields become receivers and routes (`render`).
A resource is healthy while the server runs its part as it was put there: what is compared is the server's own
word, with secrets left out, which it does not tell.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.core.leaves import encode
from gamma_orch.core.observation import ABSENT, Observation, Seen, Unreadable
from gamma_orch.core.provider import Asked, ProviderError, Task
from gamma_orch.spec.durations import duration
from gamma_orch.targets import Targets
from gamma_orch.targets.alertmanager import Alertmanager

HIDDEN = "<secret>"


class PartProvider:
    KIND: ClassVar[str]

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    def render(self, name: str, fields: Json) -> dict[str, list[Json]]:
        """`receivers` and `routes`, of fields whose secrets are revealed."""
        raise NotImplementedError

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        places = {one.address: _places(one) for one in asked}
        names = sorted({name for found in places.values() for name in found})
        looked = dict(zip(names, await asyncio.gather(*map(self._look, names)), strict=True))
        found = {one.address: _found(one.address, [looked[n] for n in places[one.address]]) for one in asked}
        for one in looked.values():  # those that no spec names any more
            if isinstance(one, dict):
                found |= {address: seen for address, seen in one.items() if address not in found}
        return found

    async def apply(self, task: Task) -> None:
        """Raises Temporary, or Permanent where Alertmanager refuses it; then it goes by what was before."""
        fields, name = task.fields, task.address.name
        part = self.render(self._mark(name), task.reveal(dict(fields)))
        said = {**part, "fields": encode(dict(fields)), "kind": self.KIND, "name": name}
        await self._targets.alertmanager(fields["alertmanager"]).put(self._file(name), said)
        for before in (task.recorded, task.live):  # it has moved to another server
            if before and before["alertmanager"] != fields["alertmanager"]:
                await self._targets.alertmanager(before["alertmanager"]).put(self._file(name), None)

    async def delete(self, task: Task) -> None:
        for place in {one["alertmanager"] for one in (task.recorded, task.live) if one}:
            alertmanager = self._targets.alertmanager(place)
            if alertmanager.exists:
                await alertmanager.put(self._file(task.address.name), None)

    def _file(self, name: str) -> str:
        return f"{self.KIND}-{name}"

    def _mark(self, name: str) -> str:
        return mark(self._targets.environment, name)

    async def _look(self, name: str) -> "dict[Address, Observation] | Unreadable":
        try:
            alertmanager = self._targets.alertmanager(name)
            if not await asyncio.to_thread(lambda: alertmanager.exists):
                return {}
            return await self._seen(alertmanager)
        except ProviderError as error:
            return Unreadable(str(error))

    async def _seen(self, alertmanager: Alertmanager) -> dict[Address, Observation]:
        running = await alertmanager.running()
        parts = await asyncio.to_thread(alertmanager.parts)
        found: dict[Address, Observation] = {}
        for part in parts.values():
            if part["kind"] == self.KIND:
                why = "; ".join(differences(part, running))
                found[Address(self.KIND, part["name"])] = Seen(part["fields"], healthy=not why, why=why)
        return found


def mark(environment: str, name: str) -> str:
    return f"gamma:{environment}:{name}"


def target(fields: Fields) -> str:
    return f"alertmanager/{fields['alertmanager']}"


def differences(part: Json, running: Json) -> Iterator[str]:
    """Where a part is not what runs."""
    receivers = {one["name"]: one for one in running.get("receivers") or ()}
    for wanted in part["receivers"]:
        if (found := receivers.get(wanted["name"])) is None:
            yield f"Alertmanager has no receiver {wanted['name']}"
        elif not within(wanted, found):
            yield f"the receiver {wanted['name']} was changed in Alertmanager"
    there = (running.get("route") or {}).get("routes") or []
    if not all(any(within(wanted, found) for found in there) for wanted in part["routes"]):
        yield "its routes were changed in Alertmanager"


def within(wanted: Json, found: Json) -> bool:
    """Whether all that is wanted is there. The server fills in more, writes times in its own way, and does
    not tell secrets."""
    if found == HIDDEN:
        return True
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            name in found and within(value, found[name]) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        pairs: Any = zip(wanted, found, strict=False) if isinstance(found, list) else ()
        return isinstance(found, list) and len(wanted) == len(found) and all(within(a, b) for a, b in pairs)
    return wanted == found or _same_time(wanted, found) or _same_matcher(wanted, found)


def _same_time(wanted: Json, found: Json) -> bool:
    """10s and 10s, 3600s and 1h, 90s and 1m30s."""
    try:
        return isinstance(found, str) and duration(wanted).total_seconds() == _seconds(found)
    except (ValueError, AttributeError):
        return False


def _seconds(text: str) -> float:
    import re

    parts = re.findall(r"(\d+)(ms|[smhdwy])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(text)
    sizes = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
    return sum(int(number) * sizes[unit] for number, unit in parts)


def _same_matcher(wanted: Json, found: Json) -> bool:
    return (
        isinstance(wanted, str)
        and isinstance(found, str)
        and wanted.replace(" ", "") == found.replace(" ", "")
    )


def _places(one: Asked) -> list[str]:
    known = (fields["alertmanager"] for fields in (one.recorded, one.wanted) if fields)
    return list(dict.fromkeys(known))


def _found(address: Address, looked: Sequence["dict[Address, Observation] | Unreadable"]) -> Observation:
    for one in looked:
        if isinstance(one, Unreadable):
            return one
        if address in one:
            return one[address]
    return ABSENT
