"""What all that collect have in common: how they are asked, how they fail, and how a family is made."""

import os
import socket
import ssl
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Protocol, TypeAlias

from prometheus_client import Metric
from pydantic import ValidationError

Parts: TypeAlias = AsyncGenerator[Metric, None]


class Source(Protocol):
    """One collector, opened. It opens connections when it is asked, and waits in the event loop only."""

    def collect(self, seconds: float) -> Parts:
        """What there is, each part when it is there. It should be done in so many seconds, and is broken off
        a little later. Raises Failed, at its end, where something is missing."""

    def close(self) -> None:
        """Without waiting. What it collects at the moment fails."""


class Failed(Exception):
    """Not all was collected: why, in words that have no user, password, query string, header or row."""

    def __init__(self, why: str, late: bool = False) -> None:
        super().__init__(why)
        self.late = late


def family(name: str, says: str, series: Iterable[tuple[Mapping[str, str], float]], kind: str = "") -> Metric:
    """`name`: as the series are called. What ends in _total is a counter, unless `kind` says what it is."""
    kind = kind or ("counter" if name.endswith("_total") else "gauge")
    metric = Metric(name.removesuffix("_total") if kind == "counter" else name, says, kind)
    for labels, value in series:
        metric.add_sample(name, dict(labels), value)
    return metric


def reason(error: BaseException) -> str:
    """Why something could not be reached. Libraries put what was asked into their words, so only those of the
    system are told, which lie at the bottom; without any, the name of the error."""
    seen: BaseException | None = error
    while seen is not None:
        match seen:
            case ssl.SSLCertVerificationError():
                return seen.verify_message
            case ssl.SSLError():
                return f"TLS says {seen.reason}"
            case socket.gaierror():
                return "nobody knows that host"
            case OSError(errno=int(number)):
                return os.strerror(number)
            case BaseExceptionGroup():
                seen = seen.exceptions[0]
            case _:
                seen = seen.__cause__ or seen.__context__
    return type(error).__name__


def misfits(error: ValidationError) -> str:
    """What is wrong with a text, without the text."""
    faults = (f"{'.'.join(map(str, one['loc'])) or 'the whole'}: {one['msg']}" for one in error.errors())
    return "; ".join(faults)
