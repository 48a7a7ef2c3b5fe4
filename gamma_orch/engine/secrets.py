"""Where secrets come from, and the one place that reads them.

A secret is declared in the environment (`secrets:`) as an environment variable, a file, or, for
development, generated once and kept in a 0600 file. Its bytes exist inside `reveal`, called by a
provider at the moment of the effect, and inside `digest`, which makes the keyed digest that tells
whether the bytes changed. Neither keeps them.
"""

import hashlib
import hmac
import os
import secrets as random
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gamma_orch.core.canonical import Json
from gamma_orch.core.leaves import Ref, Secret, Template, Unknown, replace_leaves
from gamma_orch.core.provider import GammaError, Permanent

ALPHABET = string.ascii_letters + string.digits


class SecretMissing(GammaError):
    """A secret that the specs name has no value where it is declared to come from."""


class Secrets:
    """`sources` maps a name to `{"env": VAR}`, `{"file": path}` or `{"generate": {"length": n}}`; a
    name that is not there comes from the environment variable GAMMA_SECRET_<NAME>."""

    def __init__(self, state: Path, environment: str, root: Path, sources: Mapping[str, Mapping[str, Any]]) -> None:
        self._state = state
        self._folder = state / environment / "secrets"
        self._root = root
        self._sources = sources
        self._digests: dict[str, str] = {}

    def digest(self, name: str) -> str:
        """`<key id>:<hmac-sha256>`. Digests under different keys count as different secrets.

        Raises SecretMissing.
        """
        if name not in self._digests:
            key = _key(self._state)
            keyed = hmac.new(key, f"{name}\0{self._read(name)}".encode(), hashlib.sha256).hexdigest()
            self._digests[name] = f"{hashlib.sha256(key).hexdigest()[:8]}:{keyed}"
        return self._digests[name]

    def reveal(self, tree: Json) -> Json:
        """The tree with every leaf as its value. Raises SecretMissing, and Permanent on a reference
        that is still open."""
        return replace_leaves(tree, self._value)

    def _value(self, leaf: Secret | Ref | Unknown | Template) -> str:
        if isinstance(leaf, Secret):
            return self._read(leaf.name)
        raise Permanent(f"{leaf.encoded()} has no value yet; this is a defect of the plan's order.")

    def _read(self, name: str) -> str:
        source = self._sources.get(name) or {"env": variable_of(name)}
        if source.get("env"):
            value = os.environ.get(source["env"])
            if value is None:
                raise SecretMissing(
                    f"The secret {name!r} comes from the environment variable {source['env']}, which is not set."
                )
            return value
        if source.get("file"):
            return _file(name, self._root / source["file"])
        return self._generated(name, int(source["generate"].get("length", 32)))

    def _generated(self, name: str, length: int) -> str:
        path = self._folder / name
        if not path.exists():
            make_private(path, "".join(random.choice(ALPHABET) for _ in range(length)))
        return _file(name, path)


def variable_of(name: str) -> str:
    """The environment variable of a secret that is declared nowhere."""
    return "GAMMA_SECRET_" + name.upper().replace("-", "_").replace(".", "_")


def _file(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except FileNotFoundError:
        raise SecretMissing(f"The secret {name!r} comes from the file {path}, which does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SecretMissing(f"The secret {name!r} comes from the file {path}, which cannot be read: {reason}.") from None


def make_private(path: Path, text: str) -> None:
    """Create a 0600 file whole or not at all; whoever comes second keeps the first one's."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{random.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _key(state: Path) -> bytes:
    """The digest key: GAMMA_KEY where machines share a ledger, else made once under `.gamma`."""
    if given := os.environ.get("GAMMA_KEY"):
        return given.encode()
    path = state / "key"
    if not path.exists():
        make_private(path, random.token_hex(32))
    return path.read_bytes()
