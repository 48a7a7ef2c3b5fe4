"""The name of a resource: its kind and its name, written `Kind/name`.

An address is the key of every mapping in Gamma: desired state, observations, the ledger.
"""

import re
from typing import NamedTuple

# A name is also a file name, a label value and (with underscores) an SQL identifier,
# so it keeps to what all three accept.
NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
KIND = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")


class Address(NamedTuple):
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `Kind/name`; raises ValueError where the text is not of that form."""
        kind, slash, name = text.partition("/")
        if not slash or not KIND.fullmatch(kind) or not NAME.fullmatch(name):
            raise ValueError(f"{text!r} is not of the form Kind/name")
        return cls(kind, name)
