"""Whose an object is: a line `gamma:{"o":"Index/x","e":"dev"}` in its COMMENT.

The mark is a field like any other: `normalise` wants it, `observe` reads it back, so taking over an
unmarked object is an ordinary difference, and losing the mark is drift. What people wrote into the
comment stays, in the lines before it.

What always holds: nothing unmarked is ever dropped, and nothing that carries another resource's
mark is ever changed.
"""

import json
from dataclasses import dataclass

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json, digest
from gamma_orch.core.kind import Fields
from gamma_orch.core.provider import Permanent, Task

PREFIX = "gamma:"


@dataclass(frozen=True, slots=True)
class Mark:
    owner: str  # "Index/x"
    environment: str
    # What was wanted and how PostgreSQL read it back, together, at the last apply. As long as both
    # are the same, they are known to mean the same, and nobody needs to ask PostgreSQL again.
    sense: str = ""


def sense(written: Json, read: Json) -> str:
    return digest([written, read])[:16]


def split(comment: str | None) -> tuple[str, Mark | None]:
    """What people wrote, and the mark. A line that only looks like a mark is what people wrote."""
    human: list[str] = []
    mark = None
    for line in (comment or "").splitlines():
        found = _parsed(line)
        if found is None:
            human.append(line)
        else:
            mark = found
    return "\n".join(human), mark


def _parsed(line: str) -> Mark | None:
    if not line.startswith(PREFIX):
        return None
    try:
        body = json.loads(line.removeprefix(PREFIX))
        return Mark(str(body["o"]), str(body["e"]), str(body.get("h", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def joined(human: str, mark: Mark) -> str:
    body = {"o": mark.owner, "e": mark.environment}
    if mark.sense:
        body["h"] = mark.sense
    line = PREFIX + json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return f"{human}\n{line}" if human else line


def shown(comment: str | None, environment: str) -> str | None:
    """The mark as the value of the field `mark`; None where there is none."""
    _, mark = split(comment)
    if mark is None:
        return None
    return mark.owner if mark.environment == environment else f"{mark.owner} of {mark.environment}"


def known_as(address: Address, *recorded: Fields | None) -> set[str]:
    """The marks under which an address may be found: its own, and one it was moved from."""
    names = {str(address)}
    names |= {fields["mark"] for fields in recorded if fields and isinstance(fields.get("mark"), str)}
    return names


def check_ours(comment: str | None, task: Task, environment: str, what: str) -> None:
    """Raises Permanent where an object belongs to another resource. An unmarked one may be taken over."""
    found = shown(comment, environment)
    if found is not None and found not in known_as(task.address, task.recorded):
        raise Permanent(
            f"{what} carries the mark of {found}, so {task.address} does not touch it. "
            "Give one of the two another name, or say `moved: {from: ...}` if it was renamed."
        )


def check_deletable(comment: str | None, task: Task, environment: str, what: str) -> None:
    """Raises Permanent where an object is not marked as this resource's."""
    check_ours(comment, task, environment, what)
    if shown(comment, environment) is None:
        raise Permanent(
            f"{what} does not carry Gamma's mark of {task.address}, so it is not dropped. "
            "Drop it yourself if it can go."
        )
