"""Types of fields of this family. What a spec may say, a bundle can hold: the bounds here are those of
`app.bundle`, so that what is out of them is said at its line and not by a step that fails.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from gamma_orch.app.routes import ROUTES, SCOPES
from gamma_orch.core.leaves import Secret, Unknown, leaves
from gamma_orch.spec.model import Names
from gamma_orch.spec.quantities import Latency, Size, seconds_of, size_of

NAME = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"
LONGEST = 366 * 86_400  # seconds
DRAIN = 300  # seconds: supervisord kills a worker that takes much longer to stop
PERIODS = {"s": 1, "min": 60, "h": 3600, "day": 86_400}
# `edge` counts no limit for what tells whether a worker lives, nor for a WebSocket.
LIMITED = tuple(sorted({one.name for one in ROUTES if not one.socket} - {"health", "ready"}))
# The scopes and routes whose path says which model is meant.
OF_A_MODEL = frozenset(one.scope for one in ROUTES if "{model}" in one.path)
WITH_A_MODEL = tuple(one.name for one in ROUTES if "{model}" in one.path)
_RATE = re.compile(r"([1-9][0-9]{0,8})/(s|min|h|day)")
_MODEL = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|([a-z0-9][a-z0-9.-]*)?\*")


def rate_of(text: str) -> tuple[int, int]:
    """How many, and in how many seconds. Raises ValueError with the way to write it."""
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError("a rate is a whole number and a period s, min, h or day: 100/s, 5000/day")
    return int(found[1]), PERIODS[found[2]]


def _rate(text: str) -> str:
    rate_of(text)
    return text


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text))


def _place(text: str) -> str:
    host, _, port = text.rpartition(":")
    if (
        not re.fullmatch(r"[A-Za-z0-9.-]+", host)
        or not re.fullmatch(r"[0-9]{1,5}", port)
        or not (1 <= int(port) <= 65_535)
    ):
        raise ValueError("a place here is a host and a port: 10.0.0.2:8000")
    return text


def _scope(text: str) -> str:
    base, colon, model = text.partition(":")
    if base not in SCOPES or (colon and base not in OF_A_MODEL):
        raise ValueError(f"no scope {text!r}; there are {', '.join(SCOPES)}, and predict:MODEL for one model")
    if colon and not _MODEL.fullmatch(model):
        raise ValueError(
            f"no scope {text!r}; behind the colon stands the name of a model, or how names begin, and a *"
        )
    return text


def _limited(text: str) -> str:
    route, colon, model = text.partition(":")
    if route not in LIMITED:
        raise ValueError(f"no route {route!r} that limits are counted for; there are {', '.join(LIMITED)}")
    if colon and (route not in WITH_A_MODEL or not _MODEL.fullmatch(model) or model.endswith("*")):
        raise ValueError(
            f"{text!r} is no route of one model; those have the model in their path: "
            + ", ".join(f"{one}:MODEL" for one in WITH_A_MODEL)
        )
    return text


def _within_a_year(text: str) -> str:
    if seconds_of(text) > LONGEST:
        raise ValueError("a time here is 366 days or less")
    return text


def _some(text: str) -> str:
    if not seconds_of(text):
        raise ValueError("a time here is longer than 0s")
    return text


def _drain(text: str) -> str:
    if seconds_of(text) > DRAIN:
        raise ValueError(f"a worker drains for {DRAIN} s or less")
    return text


def at_least(least: str) -> Callable[[str], str]:
    def checked(text: str) -> str:
        if size_of(text) < size_of(least):
            raise ValueError(f"a size here is {least} or more")
        return text

    return checked


def secret(value: Any) -> Any:
    """What only a secret gives. What is broken has been complained about."""
    if not any(isinstance(leaf, (Secret, Unknown)) for leaf in leaves(value)):
        raise ValueError("a secret is not written into a spec; write ${secret.NAME}")
    return value


def machine(url: str) -> str:
    """What a URL names; "" for this machine. Where it is a secret, as it is written: nobody knows."""
    host = urlsplit(url).hostname or ""
    return "" if host in ("127.0.0.1", "localhost", "::1") else host or url


Rate = Annotated[str, AfterValidator(_rate)]
Network = Annotated[str, AfterValidator(_network)]
Place = Annotated[str, AfterValidator(_place)]
Scope = Annotated[str, AfterValidator(_scope)]
LimitedRoute = Annotated[str, AfterValidator(_limited)]
Time = Annotated[Latency, AfterValidator(_within_a_year)]
Drain = Annotated[Latency, AfterValidator(_drain)]
SomeTime = Annotated[Time, AfterValidator(_some)]
Body = Annotated[Size, AfterValidator(at_least("1kB"))]
ModelName = Annotated[str, Names("Model")]
ApiName = Annotated[str, Field(pattern=NAME, max_length=128)]
