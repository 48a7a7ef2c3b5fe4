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
from pathlib import Path

from gamma_orch.core.canonical import Json
from gamma_orch.core.leaves import Ref, Secret, Template, Unknown, replace_leaves
from gamma_orch.core.provider import GammaError, Permanent
from gamma_orch.spec.environment import SecretSource

ALPHABET = string.ascii_letters + string.digits


_UNMADE = "unmade:"


class SecretMissing(GammaError):
    """A secret that the specs name has no value where it is declared to come from."""


class Secrets:
    """The secrets of one environment. It learns where each comes from when its digest is asked for,
    which the language does for every secret that the specs use."""

    def __init__(self, state: Path, environment: str, root: Path) -> None:
        self._state = state
        self._folder = state / environment / "secrets"
        self._root = root
        self._sources: dict[str, SecretSource] = {}
        self._digests: dict[str, str] = {}

    def digest(self, name: str, source: SecretSource) -> str:
        """`<key id>:<hmac-sha256>`. Digests under different keys count as different secrets.

        Raises SecretMissing.
        """
        if name not in self._digests:
            self._sources[name] = source
            try:
                self._digests[name] = self._keyed(name)
            except OSError:
                # A checkout that cannot be written to (a CI that validates): what was never made
                # was never applied either, so any digest will do.
                self._digests[name] = f"{_UNMADE}{name}"
        return self._digests[name]

    def require_digests(self) -> None:
        """Raises SecretMissing where a digest could not be made: then nothing may be recorded."""
        if any(digest.startswith(_UNMADE) for digest in self._digests.values()):
            raise SecretMissing(
                f"The key for the digests of secrets cannot be made or read: {self._state / 'key'}. "
                "Make its folder writable, or give the key in GAMMA_KEY."
            )

    def _keyed(self, name: str) -> str:
        key = _key(self._state)
        keyed = hmac.new(key, f"{name}\0{self._read(name)}".encode(), hashlib.sha256).hexdigest()
        return f"{hashlib.sha256(key).hexdigest()[:8]}:{keyed}"

    def reveal(self, tree: Json) -> Json:
        """The tree with every leaf as its value. Raises SecretMissing, and Permanent on a reference
        that is still open."""
        return replace_leaves(tree, self._value)

    def _value(self, leaf: Secret | Ref | Unknown | Template) -> str:
        if isinstance(leaf, Secret):
            return self._read(leaf.name)
        raise Permanent(f"{leaf.encoded()} has no value yet; this is a defect of the plan's order.")

    def _read(self, name: str) -> str:
        source = self._sources[name]
        if source.env is not None:
            value = os.environ.get(source.env)
            if value is None:
                raise SecretMissing(f"the environment variable {source.env} is not set.")
            return value
        if source.file is not None:
            return _file(self._root / source.file)
        return self._generated(name, source.generate.length if source.generate else 32)

    def _generated(self, name: str, length: int) -> str:
        path = self._folder / name
        if not path.exists():
            make_private(path, "".join(random.choice(ALPHABET) for _ in range(length)))
        return _file(path)


def _file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except FileNotFoundError:
        raise SecretMissing(f"the file {path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SecretMissing(f"the file {path} cannot be read: {reason}.") from None


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
