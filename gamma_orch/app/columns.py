"""Columns of the database that are kept sealed: texts and answers of the log, where the bundle wants them.

The log seals each text on its way to PostgreSQL; what reads it opens it. Sealed with Fernet (AES-128-CBC and
HMAC-SHA-256) under the secret `columns`: keys parted by commas or white space, the newest first. To change
the key, put another before it; `rotate` what is `stale`, in the background; then take the old one out.

A sealed text shows its length, roughly, and when it was sealed. It is not tied to its row: who may write to
the database may swap two. No error holds a text or a key.
"""

import re

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

SECRET = "columns"  # noqa: S105 - its name
# Fernet itself passes over what is no base64, and over a second key that nothing parts from the first.
_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")


class Unreadable(ValueError):
    """Changed since it was sealed, or sealed with a key that is gone."""

    def __init__(self) -> None:
        super().__init__(
            "A sealed column cannot be read: it was changed, or its key is not in the secret any more."
        )


class Columns:
    def __init__(self, secret: str) -> None:
        """Raises ValueError, naming the place of each key that is none."""
        keys = [key for key in re.split(r"[\s,]+", secret) if key]
        if not keys:
            raise ValueError(f"The secret `{SECRET}` has no key.")
        if wrong := [str(place) for place, key in enumerate(keys, 1) if not _KEY.fullmatch(key)]:
            raise ValueError(
                f"These keys of the secret `{SECRET}` are not 32 bytes in base64: {', '.join(wrong)}."
            )
        fernets = [Fernet(key) for key in keys]
        self._newest = fernets[0]
        self._all = MultiFernet(fernets)

    def seal(self, text: str) -> bytes:
        return self._all.encrypt(text.encode("utf-8", "surrogatepass"))

    def open(self, sealed: bytes) -> str:
        """Raises Unreadable."""
        try:
            return self._all.decrypt(sealed).decode("utf-8", "surrogatepass")
        except InvalidToken:
            raise Unreadable from None

    def stale(self, sealed: bytes) -> bool:
        """Whether it was sealed with a key that is not the newest. Raises Unreadable where none fits."""
        try:
            self._newest.extract_timestamp(sealed)  # checks the signature and decrypts nothing
        except InvalidToken:
            pass
        else:
            return False
        try:
            self._all.extract_timestamp(sealed)
        except InvalidToken:
            raise Unreadable from None
        return True

    def rotate(self, sealed: bytes) -> bytes:
        """The same text under the newest key, with the time of its first sealing. Raises Unreadable."""
        try:
            return self._all.rotate(sealed)
        except InvalidToken:
            raise Unreadable from None
