"""Silences as an Alertmanager has them: alerts that nobody is told of for a time. Pure.

They are no resources: somebody makes one at night, with a reason and an end, and it is over by itself.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.spec.durations import duration

_MATCHER = re.compile(r"([a-zA-Z_]\w*)(=~|!~|!=|=)(.+)", re.DOTALL)
LONGEST = timedelta(days=30)


def silence(matchers: Sequence[str], lasts: str, why: str, who: str, now: datetime) -> tuple[Json, timedelta]:
    """What an Alertmanager is asked for, and how long it lasts. Raises Permanent."""
    try:
        lasting = duration(lasts)
    except ValueError as error:
        raise Permanent(f"`--for {lasts}` is no time: {error}.") from None
    if not timedelta(0) < lasting <= LONGEST:
        raise Permanent(
            f"A silence lasts between a second and {LONGEST.days} days. What is to be silent for longer is "
            "no alert: change the rule, or the policy."
        )
    if not why.strip():
        raise Permanent("A silence has a reason: say it with --why.")
    body = {
        "matchers": [_matcher(one) for one in matchers],
        "startsAt": now.isoformat(),
        "endsAt": (now + lasting).isoformat(),
        "createdBy": who,
        "comment": why.strip(),
    }
    return body, lasting


def lasting(found: Sequence[Json]) -> list[Json]:
    """Those that are not over, the first to end first."""
    there = [one for one in found if one["status"]["state"] != "expired"]
    return sorted(there, key=lambda one: (one["endsAt"], one["id"]))


def row(one: Json) -> tuple[str, ...]:
    alerts = ", ".join(f"{m['name']}{_sign(m)}{m['value']}" for m in one["matchers"])
    until = datetime.fromisoformat(one["endsAt"]).strftime("%Y-%m-%d %H:%M UTC")
    return one["id"][:8], alerts, until, one["createdBy"], one["comment"]


def named(found: Sequence[Json], text: str) -> str:
    """The id that begins so. Raises Permanent where none does, or several."""
    ids = [one["id"] for one in found if one["id"].startswith(text)]
    if len(ids) == 1:
        return str(ids[0])
    what = f"{len(ids)} silences begin" if ids else "no silence that lasts begins"
    raise Permanent(f"{what.capitalize()} with {text!r}. `gamma silence ls` lists them.")


def _matcher(text: str) -> Json:
    parts = _MATCHER.fullmatch(text)
    if parts is None:
        raise Permanent(
            f"{text!r} says no alerts. Write label=value, label!=value, label=~regex or label!~regex."
        )
    name, sign, value = parts.groups()
    return {"name": name, "value": value, "isEqual": sign in ("=", "=~"), "isRegex": sign.endswith("~")}


def _sign(matcher: Json) -> str:
    equal = matcher.get("isEqual", True)
    return {(True, False): "=", (True, True): "=~", (False, False): "!=", (False, True): "!~"}[
        equal, matcher["isRegex"]
    ]
