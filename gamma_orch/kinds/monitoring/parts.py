"""What the kinds on an Alertmanager have in common: each of their resources is a part of its configuration.

`PartProvider` observes and applies parts; a kind says how its fields become receivers and routes (`render`).
A resource is healthy while the server runs its part as it was put there: what is compared is the server's own
word, with secrets left out, which it does not tell.
"""

import asyncio
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.core.leaves import encode
from gamma_orch.core.observation import Observation, Seen
from gamma_orch.core.provider import Task
from gamma_orch.kinds.monitoring.on_server import ServerProvider
from gamma_orch.spec.durations import duration
from gamma_orch.targets.alertmanager import Alertmanager

HIDDEN = "<secret>"


class PartProvider(ServerProvider[Alertmanager]):
    PLACE = "alertmanager"

    @abstractmethod
    def render(self, name: str, fields: Json) -> dict[str, list[Json]]:
        """`receivers`, `routes` and perhaps `inhibit_rules` and `time_intervals`, of fields whose secrets are
        revealed."""

    async def apply(self, task: Task) -> None:
        """Raises Temporary, or Permanent where Alertmanager refuses it; then it goes by what was before."""
        name, fields = task.address.name, dict(task.fields)
        part = self.render(mark(self._targets.environment, name), task.reveal(fields))
        await self._have(task, {**part, "fields": encode(fields), "kind": self.KIND, "name": name})

    def _server(self, name: str) -> Alertmanager:
        return self._targets.alertmanager(name)

    async def _put(self, server: Alertmanager, name: str, content: Any) -> None:
        await server.put(f"{self.KIND}-{name}", content)

    async def _seen(self, name: str, server: Alertmanager) -> dict[Address, Observation]:
        running = await server.running()
        parts = await asyncio.to_thread(server.parts)
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
    if not all(any(_same_route(wanted, found) for found in there) for wanted in part["routes"]):
        yield "its routes were changed in Alertmanager"
    rules = running.get("inhibit_rules") or []
    if not all(any(within(wanted, found) for found in rules) for wanted in part.get("inhibit_rules", ())):
        yield "what holds alerts back was changed in Alertmanager"
    times = {one["name"]: one["time_intervals"] for one in running.get("time_intervals") or ()}
    for wanted in part.get("time_intervals", ()):
        if times.get(wanted["name"]) != wanted["time_intervals"]:
            yield f"the times of {wanted['name']}, at which nobody is told, were changed in Alertmanager"


def _same_route(wanted: Json, found: Json) -> bool:
    """What makes it silent at times may not be added either: it would be told of less than is wanted."""
    silent = ("mute_time_intervals", "active_time_intervals")
    return within(wanted, found) and all(wanted.get(name) == found.get(name) for name in silent)


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
