"""Passwords: hashed, compared with a hash, and judged before they are hashed.

`login` compares; the command line and the Service kind hash, and refuse what is `weak`. New hashes are
argon2id with the parameters that OWASP gives, 20 ms here; bcrypt is read, for users that are brought along.
Always:

- The event loop never waits for a hash: `verify` runs in two threads, and where too many wait already the
  request is refused (503) rather than lined up. The threads are the process's, whatever the bundle.
- No rules of composition, no renewal (NIST SP 800-63B): a password is long, not the user's name, not one that
  everybody has, and not a repetition or a row of the keyboard.
- Text is normalized (NFKC) first, so that the same letters typed on another machine are the same password.
- No error has a byte of a password or of a hash.
"""

import asyncio
import unicodedata
from concurrent.futures import ThreadPoolExecutor

from pwdlib.hashers.argon2 import Argon2Hasher
from pwdlib.hashers.bcrypt import BcryptHasher

from gamma_orch.app.errors import Unavailable
from gamma_orch.app.security import Sign

LEAST = 12  # characters
LONGEST = 256  # characters; a longer one is never right
THREADS = 2
WAITING = 32  # verifications under way, at most: 32 * 20 ms / 2 threads is a third of a second

_ARGON2 = Argon2Hasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_BCRYPT = BcryptHasher()
_BCRYPT_READS = 72  # bytes; bcrypt itself ignores or refuses the rest

_ROWS = (
    "01234567890123456789",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm",
    "1qaz2wsx3edc4rfv5tgb",
)
# Weak with digits and signs around it too: all passwords that are common and long enough are of this kind.
_WORDS = """
access admin administrator baseball changeme computer default dragon football gamma guest hello iloveyou
letmein login master michael monkey pass passw password passwort princess qwerty qwertz root secret shadow
starwars sunshine superman test trustno user welcome whatever
"""
_COMMON = frozenset(_WORDS.split())
_MEANT = str.maketrans("@4310$57", "aaeiosst")  # p@ssw0rd

_pool = ThreadPoolExecutor(THREADS, "passwords")
_waiting = 0


def hashed(password: str, name: str) -> str:
    """What the bundle keeps of a user's password. Raises ValueError with everything that makes it weak."""
    if faults := weak(password, name):
        raise ValueError(" ".join(faults))
    return _ARGON2.hash(_bytes(password))


def weak(password: str, name: str) -> list[str]:
    """Why this is no password for this user, in whole sentences. Empty: it is one."""
    folded = unicodedata.normalize("NFKC", password).casefold()
    if len(folded) > LONGEST:
        return [f"A password has {LONGEST} characters or fewer."]
    core = _core(folded)
    faults = []
    if len(folded) < LEAST:
        faults.append(f"A password has {LEAST} characters or more.")
    if name and name.casefold() in (folded, core):
        faults.append("The name of the user is no password.")
    if core.translate(_MEANT) in _COMMON:
        faults.append("The password is among the commonest.")
    if _is_repetition(folded) or any(folded in row or folded in row[::-1] for row in _ROWS):
        faults.append("The password is a repetition or a row of letters.")
    return faults


def readable(kept: str) -> bool:
    """Whether this is a hash that `verify` reads, beyond how it begins."""
    return _ARGON2.identify(kept) or _BCRYPT.identify(kept)


async def verify(password: str, kept: str) -> bool:
    """Whether the hash is this password's. Raises Unavailable where too many wait already."""
    global _waiting  # noqa: PLW0603 - one count for the one pool
    if _waiting >= WAITING:
        busy = Unavailable("Too many logins are under way: come again shortly.", again=1)
        raise busy.noted(Sign("login", "busy"))
    _waiting += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(_pool, verified, password, kept)
    finally:
        _waiting -= 1


def verified(password: str, kept: str) -> bool:
    """The same, where one may wait. An unreadable hash is no password's."""
    if len(password) > LONGEST:
        return False
    encoded = _bytes(password)
    if _ARGON2.identify(kept):
        return _ARGON2.verify(encoded, kept)
    if not _BCRYPT.identify(kept):
        return False
    try:
        # A longer one is not right whatever its beginning is, and takes as long as any other.
        return _BCRYPT.verify(encoded[:_BCRYPT_READS], kept) and len(encoded) <= _BCRYPT_READS
    except ValueError:  # a salt that only looks like one
        return False


def _bytes(password: str) -> bytes:
    # "surrogatepass": JSON may hold half a surrogate, and the error would hold the password.
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")


def _core(text: str) -> str:
    """Without the digits and signs around it, which is how people make a weak password pass."""
    first = next((place for place, letter in enumerate(text) if letter.isalpha()), len(text))
    last = next((place for place, letter in enumerate(reversed(text)) if letter.isalpha()), 0)
    return text[first : len(text) - last]


def _is_repetition(text: str) -> bool:
    """One piece, twice or more, the last time perhaps not whole."""
    return any(text[size:] == text[:-size] for size in range(1, len(text) // 2 + 1))
