"""Every error that the API answers with, as problem details (RFC 9457).

A problem says what is wrong in words of its own and never repeats what it was sent: neither a rejected input
nor a token is ever in an answer. What a client may branch on is `type`, which is stable.

    Problem
    ├── Malformed              400  not JSON, or not the JSON that the route takes
    ├── Unauthenticated        401  no key or token, or one that is not taken
    ├── Forbidden              403  the principal lacks the scope
    ├── NotFound               404  no such route, model, version or adapter
    ├── WrongMethod            405
    ├── TooLarge               413  body, texts or characters beyond the limit
    ├── WrongMedia             415  a body that says it is no JSON
    ├── Unprocessable          422  the JSON is whole, and the model cannot answer it
    ├── TooMany                429  a limit is used up; says when to come again
    ├── HeadTooLarge           431  the head of the request is larger than any that is taken
    ├── Internal               500  a fault of ours; the log has it under the request's id
    ├── Unavailable            503  the queue is full, or the worker is not ready; says when to come again
    └── Late                   504  not answered before its deadline
"""

import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import ClassVar, Self

from gamma_orch.app.security import Sign

MEDIA = b"application/problem+json"


class Problem(Exception):
    """Raised anywhere on the way of a request; `edge` and `api` turn it into the answer."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    kind: ClassVar[str] = "internal"
    sign: Sign | None = None  # the security event that it is, too

    def __init__(
        self,
        detail: str,
        headers: Mapping[str, str] | None = None,
        faults: Sequence[Mapping[str, object]] = (),
    ) -> None:
        """`detail`: what is wrong and what to do, in whole sentences. `faults`: each place in the input that
        is wrong, as {"at": JSON pointer, "says": ...}."""
        super().__init__(detail)
        self.detail = detail
        self.headers = dict(headers or {})
        self.faults = tuple(faults)

    def noted(self, sign: Sign) -> Self:
        """The same, which the log of security has from then on."""
        self.sign = sign
        return self

    def body(self, request: str) -> bytes:
        """The JSON of the answer; `request` is its id, by which the log is searched."""
        said: dict[str, object] = {
            "type": f"urn:gamma:problem:{self.kind}",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            "instance": f"urn:uuid:{request}",
        }
        if self.faults:
            said["errors"] = list(self.faults)
        return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()


class Malformed(Problem):
    status = HTTPStatus.BAD_REQUEST
    kind = "malformed"


class Unauthenticated(Problem):
    status = HTTPStatus.UNAUTHORIZED
    kind = "unauthenticated"

    def __init__(self, detail: str, error: str = "") -> None:
        """`error`: what RFC 6750 calls it (`invalid_token`), where a token was given."""
        challenge = 'Bearer realm="gamma"' + (f', error="{error}"' if error else "")
        super().__init__(detail, {"WWW-Authenticate": challenge})


class Forbidden(Problem):
    status = HTTPStatus.FORBIDDEN
    kind = "forbidden"


class NotFound(Problem):
    status = HTTPStatus.NOT_FOUND
    kind = "not-found"


class WrongMethod(Problem):
    status = HTTPStatus.METHOD_NOT_ALLOWED
    kind = "wrong-method"


class TooLarge(Problem):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    kind = "too-large"


class WrongMedia(Problem):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    kind = "wrong-media"


class Unprocessable(Problem):
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    kind = "unprocessable"


class _Again(Problem):
    """Comes with Retry-After."""

    def __init__(self, detail: str, again: float, headers: Mapping[str, str] | None = None) -> None:
        """`again`: seconds until it is worth another try."""
        super().__init__(detail, {**(headers or {}), "Retry-After": str(max(1, math.ceil(again)))})


class TooMany(_Again):
    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "too-many"

    def __init__(self, detail: str, again: float | None = None) -> None:
        """`again` None: the limit's own headers say it."""
        if again is None:
            Problem.__init__(self, detail)
        else:
            super().__init__(detail, again)


class HeadTooLarge(Problem):
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    kind = "head-too-large"


class Unavailable(_Again):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "unavailable"


class Late(Problem):
    status = HTTPStatus.GATEWAY_TIMEOUT
    kind = "late"


class Internal(Problem):
    pass
