"""From a dashboard and what somebody has chosen to questions for a Prometheus, and from its answers to what
the page draws. Called by `server`, and by the checks of the kind; knows nothing of how it is sent.

A dashboard is the fields of the kind (docs/monitoring.md): expressions with variables, times in seconds.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import ProviderError

POINTS = 240  # about so many over the span; Prometheus gives 11,000 at most
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)  # seconds
AT_ONCE = 8  # questions
NOW = ("gauge", "table")  # panels that show the latest alone
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")


class Asked(Protocol):
    """A Prometheus."""

    async def query(self, expr: str, at: float) -> list[Json]: ...

    async def query_range(self, expr: str, start: float, end: float, step: float) -> list[Json]: ...


@dataclass(frozen=True, slots=True)
class Board:
    name: str
    prometheus: str
    fields: Json


@dataclass(frozen=True, slots=True)
class Choice:
    """What somebody looks at."""

    board: str
    span: float  # seconds until now
    variables: Mapping[str, Sequence[str]] = field(default_factory=dict)  # no value: all


def step_of(span: float) -> int:
    """Seconds from one point to the next."""
    return next((step for step in STEPS if span / step <= POINTS), STEPS[-1])


def used(expr: str) -> set[str]:
    """The variables in an expression."""
    return {braced or plain for braced, plain in _VARIABLE.findall(expr)}


def filled(expr: str, variables: Mapping[str, Sequence[str]]) -> str:
    """With what was chosen in the place of each variable: a regular expression in a string of PromQL."""

    def value(found: re.Match[str]) -> str:
        chosen = variables.get(found[1] or found[2], ())
        pattern = "|".join(map(re.escape, chosen)) if chosen else ".*"
        return pattern.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return _VARIABLE.sub(value, expr)


async def answers(board: Board, choice: Choice, now: float, asked: Asked) -> AsyncIterator[Json]:
    """What each variable can be and what each panel shows, as they come. What cannot be had says why."""
    step = step_of(choice.span)
    end = now // step * step  # so that points stay where they are from one answer to the next
    few = asyncio.Semaphore(AT_ONCE)

    async def variable(said: Json) -> Json:
        async with few:
            expr = f"group by ({said['label']}) (last_over_time({said['metric']}[{int(choice.span)}s]))"
            found = await _or_why(asked.query(expr, now))
        if isinstance(found, str):
            return {"variable": said["name"], "values": [], "error": found}
        values = sorted(one["metric"].get(said["label"], "") for one in found)
        return {"variable": said["name"], "values": [value for value in values if value], "error": ""}

    async def panel(number: int, said: Json) -> Json:
        async def series(query: Json) -> list[Json] | str:
            expr = filled(query["expr"], choice.variables)
            async with few:
                if said["type"] in NOW:
                    return await _or_why(asked.query(expr, now))
                return await _or_why(asked.query_range(expr, end - choice.span, end, step))

        found = await asyncio.gather(*map(series, said["queries"]))
        errors = [one for one in found if isinstance(one, str)]
        drawn = [_drawn(q, one) for q, some in enumerate(found) if not isinstance(some, str) for one in some]
        answer = {"panel": number, "start": end - choice.span, "end": end, "step": step}
        return {**answer, "series": drawn, "error": "\n".join(dict.fromkeys(errors))}

    panels = [one for row in board.fields["rows"] for one in row["panels"]]
    waiting = [variable(one) for one in board.fields["variables"]]
    waiting += [panel(number, one) for number, one in enumerate(panels)]
    for done in asyncio.as_completed(waiting):
        yield await done


def _drawn(query: int, found: Json) -> Json:
    """A series: its points as Prometheus writes them, of one moment a single one."""
    return {"query": query, "labels": found["metric"], "points": found.get("values") or [found["value"]]}


async def _or_why(asking: Awaitable[list[Json]]) -> list[Json] | str:
    try:
        return await asking
    except ProviderError as error:
        return str(error)
