"""The configuration of the nginx in front of a service's replicas. Pure.

What nginx answers by itself it answers as a worker would (`app.errors`), within the same bounds: the largest
body, the longest head, how long a body may take and a connection idle. Every value is checked before it comes
into the text, wherever it is from: nothing that a spec says can begin a directive.
"""

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gamma_orch.app.bundle import Bundle
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.serving.templating import filled

SLACK = 30  # seconds that a replica may need more than a model's deadline: while its only worker is restarted
LEAST = 75  # seconds: longer than the time between two signs of life on a live connection
BUFFER = 1_000_000  # bytes of a body that are kept in memory
FIELD = re.compile(r"[A-Za-z0-9.:/_-]+")  # of what stands in the text without quotes


@dataclass(frozen=True, slots=True)
class Proxy:
    """What nginx is to do, beside what the bundle says."""

    folder: str  # its own
    replicas: tuple[str, ...]  # the paths of their sockets
    others: tuple[str, ...] = ()  # replicas on other machines, as host:port
    connections: int = 4096
    user: str = ""  # only for root: as whom its workers run


@dataclass(frozen=True, slots=True)
class _Problem:
    codes: tuple[int, ...]  # nginx's own
    status: int
    kind: str
    body: str
    retry: int = 0


def rendered(proxy: Proxy, bundle: Bundle) -> tuple[str, str]:
    """The text of nginx.conf, and the digest by which the nginx that runs it is known. Raises Permanent."""
    from gamma_orch.targets.program import BACKLOG

    process = bundle.process
    deadlines = [model.deadline for model in bundle.models.values()]
    trusted = [_network(one) for one in process.trusted if "/" in one]
    request = "gamma_request" if trusted else "gamma_made"
    values: dict[str, Any] = {
        "service": _field(bundle.service),
        "user": proxy.user and _field(proxy.user),
        "connections": proxy.connections,
        "drain": max(1, round(process.drain)),
        "temporary": "temporary",
        "trusted": trusted,
        "id": request,
        "replicas": proxy.replicas,
        "others": [_field(one) for one in proxy.others],
        "where": "$gamma_where" if proxy.others else "here",
        "host": _field(process.host),
        "port": process.port,
        "backlog": BACKLOG,
        "patience": 30,  # as app.edge.BODY
        "body": process.body,
        "buffer": min(process.body, BUFFER),
        "keep_alive": round(process.keep_alive),
        "wait": max(LEAST, round(max(deadlines, default=0.0)) + SLACK),
        "folder": proxy.folder,
        "closing": f"{proxy.folder}/closing",
        "problems": list(_problems(process.body, request)),
    }
    digest = hashlib.sha256(_filled(values, "").encode()).hexdigest()
    return _filled(values, digest), digest


def _filled(values: Mapping[str, Any], digest: str) -> str:
    return filled("nginx.conf.j2", {**values, "digest": digest}, path=path, quoted=quoted)


def _problems(body: int, request: str) -> Iterator[_Problem]:
    from gamma_orch.app import errors

    told: Sequence[tuple[tuple[int, ...], errors.Problem, int]] = (
        ((400,), errors.Malformed("The request is no HTTP."), 0),
        ((413,), errors.TooLarge(f"The body is larger than the {body:,} bytes that are taken."), 0),
        ((414, 494), errors.HeadTooLarge("The head of the request has a part of more than 8,192 bytes."), 0),
        ((500, 502), errors.Unavailable("No replica answered. Try again in a moment.", 1), 1),
        ((504,), errors.Late("No replica answered in time. Try again, or ask for less."), 0),
    )
    for codes, problem, retry in told:
        said = json.loads(problem.body("-"))
        said["instance"] = f"urn:uuid:${request}"
        text = json.dumps(said, separators=(",", ":"))
        yield _Problem(codes, problem.status.value, problem.kind, text, retry)


def _field(text: str) -> str:
    if not FIELD.fullmatch(text):
        raise Permanent(
            f"{text!r} cannot stand in the configuration of nginx. Use letters, digits and . : / _ -"
        )
    return text


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise Permanent(f"{error}.") from None


def path(text: str) -> str:
    """A path, in quotes. Raises Permanent."""
    if set(text) & set("\\'$\n\r\0"):
        raise Permanent(
            f"The path {text!r} cannot stand in the configuration of nginx: it has a quote, a backslash, a $ "
            "or the end of a line in it. Move the project to a path without them."
        )
    return f"'{text}'"


def quoted(text: str) -> str:
    """A text of our own, in quotes."""
    assert not set(text) & set("\\'")
    return f"'{text}'"
