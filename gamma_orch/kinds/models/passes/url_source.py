"""Brings a file from an http(s) address whose hash is known beforehand.

Called by `sources`. A download that was cut off goes on where it stopped, in this build or in the next
one. What was put together so is believed only for its hash: where that is wrong, the file is fetched
once more from its beginning before anybody is bothered.
"""

import errno
import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from gamma_orch.core.provider import Permanent, Tell, Temporary
from gamma_orch.kinds.models.passes.brought import CHUNK, megabytes
from gamma_orch.store.artifact_files import sha256_of

TIMEOUT = 30.0  # seconds without a byte
TRIES = 4  # connections in one call; each goes on where the last one ended
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}
_PASSING = {408, 425, 429, 500, 502, 503, 504}


def download(url: str, wanted: str, folder: Path, most: int, tell: Tell, pause: float = 1.0) -> Path:
    """The file, with this sha256, in `folder`. Raises Permanent or Temporary."""
    shown = checked(url)
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2] or "file"
    whole, part = folder / name, folder / f"{name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    if whole.is_file() and sha256_of(whole) == wanted:
        return whole
    joined = _whole(url, shown, part, most, tell, pause)
    found = sha256_of(part)
    if found != wanted and joined:
        part.unlink()
        _whole(url, shown, part, most, tell, pause)
        found = sha256_of(part)
    if found == wanted:
        part.rename(whole)
        return whole
    part.unlink()
    raise Permanent(
        f"{shown} is not the file that the spec means: its sha256 is {found}, the spec says {wanted}. "
        "If the new file is meant, write its hash into the spec."
    )


def checked(url: str) -> str:
    """The address as it may be shown: without user, password and query. Raises Permanent if it is none."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Permanent(f"{url!r} is no address that can be fetched: write an http:// or https:// URL.")
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


def _whole(url: str, shown: str, part: Path, most: int, tell: Tell, pause: float) -> bool:
    """Fetch until the part is whole; says whether it was put together from several answers."""
    joined, reason = False, ""
    for attempt in range(1, TRIES + 1):
        start = part.stat().st_size if part.is_file() else 0
        try:
            _once(url, shown, part, most, tell)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                return True  # nothing lies behind what we have: the hash decides
            _refuse(shown, error)
            reason = f"the server answered {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in _DISK:
                raise Temporary(f"{shown} cannot be kept in {part.parent}: {error.strerror}.") from error
            reason = str(getattr(error, "reason", "")) or str(error) or type(error).__name__
        else:
            return joined or start > 0
        joined = True
        if attempt < TRIES:
            time.sleep(pause * attempt)
    have = part.stat().st_size if part.is_file() else 0
    raise Temporary(
        f"{shown} could not be fetched in {TRIES} tries: {reason}. {megabytes(have)} are kept, "
        "and the next try goes on from there."
    )


def _refuse(shown: str, error: urllib.error.HTTPError) -> None:
    if error.code not in _PASSING:
        raise Permanent(
            f"{shown} cannot be had: the server answered {error.code} {error.reason}. "
            "Check the address, and whether this machine may read it."
        ) from error


def _once(url: str, shown: str, part: Path, most: int, tell: Tell) -> None:
    start = part.stat().st_size if part.is_file() else 0
    asked = {"User-Agent": "gamma-orch", "Accept-Encoding": "identity"}
    if start:
        asked["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=asked)  # noqa: S310 - the scheme was checked
    with _opener().open(request, timeout=TIMEOUT) as answer:
        if start and answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0  # the server does not do ranges: from the beginning
        length = answer.headers.get("Content-Length")
        size = start + int(length) if length and length.isdigit() else None
        _fits(shown, size or start, most)
        with part.open("ab" if start else "wb") as file:
            done = start
            while chunk := answer.read(CHUNK):
                done += len(chunk)
                _fits(shown, done, most)
                file.write(chunk)
                tell(
                    f"{megabytes(done)} of {megabytes(size) if size else 'unknown'}",
                    done / size if size else None,
                )
        if size is not None and done < size:
            raise http.client.IncompleteRead(b"", size - done)


def _fits(shown: str, size: int, most: int) -> None:
    if size > most:
        raise Permanent(
            f"{shown} is larger than {megabytes(most)}. Raise maxBytes in the source if that is meant."
        )


def _opener() -> urllib.request.OpenerDirector:
    """http, https, redirects and the environment's proxies; no file: or ftp:, also after a redirect."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
