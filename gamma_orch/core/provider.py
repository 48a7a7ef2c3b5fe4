"""The effectful half of a kind: the door between Gamma and the world. One a kind.

The engine calls it; `gamma_orch.testing` has the laws that each must keep:

1. A read after `apply` equals the task's fields on everything that can be read.
2. Applying one task twice is once; deleting twice is once.
3. What could not be read is `Unreadable`, never `Absent`, and one bad object spoils no other.
4. A process killed between an effect and its record resumes to the same world.
5. No secret leaves the call that revealed it: not in an error, not in fields, not in outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.change import Impact
from gamma_orch.core.kind import Fields
from gamma_orch.core.observation import Observation

# GammaError                     anything this package raises on purpose
# └── ProviderError              an effect or a read failed
#     ├── Temporary              the same call may succeed later: retried with backoff
#     └── Permanent              it will not, until somebody changes something: stops its branch


class GammaError(Exception):
    """An error that is for people: its text is whole sentences and needs no traceback."""


class ProviderError(GammaError):
    """An effect or a read on the world failed."""


class Temporary(ProviderError):
    """The same call may succeed later (a lock, a lost connection): it is retried with backoff."""


class Permanent(ProviderError):
    """The same call will fail again until a person changes something: its branch stops."""


class GatesFailed(Permanent):
    """What was made is there, and does not pass its gates: nothing points at it."""

    def __init__(self, message: str, gates: Mapping[str, Json]) -> None:
        """`gates`: each by name, those that passed too: `passed`, and what it `says`."""
        super().__init__(message)
        self.gates = gates


class Opcode(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"  # build beside and swap, in one step: Replace.CREATE_FIRST
    DELETE = "delete"
    RECORD = "record"  # the ledger only; never reaches a provider
    FORGET = "forget"  # the ledger only; never reaches a provider


@dataclass(frozen=True, slots=True)
class Asked:
    """An address to look at: by what the ledger last knew of it, then by what is wanted now."""

    address: Address
    wanted: Fields | None  # None: no longer in the specs
    recorded: Fields | None  # None: not in the ledger


# What is being done, and how far it is: from 0 to 1, or None where that is not known. From any thread.
Tell = Callable[[str, float | None], None]


def silent(text: str, fraction: float | None) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Task:
    """One effect on one address."""

    key: str  # idempotency key: the same for every attempt at the same effect
    opcode: Opcode
    address: Address
    fields: Fields  # normalised, references resolved; secrets are still leaves; {} for delete
    recorded: Fields | None  # what the ledger last knew
    live: Fields | None  # what was read just before; None: absent
    reveal: Callable[[Json], Json]  # turns the leaves of a tree into bytes; call it late, keep nothing
    tell: Tell = silent  # what an effect that takes long says meanwhile


@runtime_checkable
class Forecasts(Protocol):
    """A provider that can say beforehand what a change will cost and come to."""

    def estimate(self, planned: Mapping[Address, Fields]) -> Mapping[Address, Impact]:
        """By the fields that a plan wants, encoded: some may be unknown yet. Reads only what is near, such
        as an index of what was built; leaves out what nothing is known of. Raises GammaError."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """Something for people to look at: Markdown, or a picture."""

    markdown: str = ""
    png: bytes = b""


@runtime_checkable
class Shows(Protocol):
    """A provider whose objects have something to look at."""

    def pages(self, address: Address) -> Mapping[str, Page]:
        """By title, of the object as it is now; empty where there is none. Raises GammaError."""
        ...


@runtime_checkable
class Gated(Protocol):
    """A provider whose objects have to pass gates."""

    def refused(self, address: Address) -> Mapping[str, Json]:
        """What the gates said when they refused the last one that was made in this process, as
        `GatesFailed.gates`; empty where they did not."""
        ...


class Provider(Protocol):
    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        """Read all of them, in one round trip where the target allows it.

        Answers every address asked. May name further addresses that carry Gamma's mark and were
        not asked for: they are reported as extra, never deleted.
        Raises nothing: an address that cannot be read is `Unreadable`.
        """
        ...

    async def apply(self, task: Task) -> None:
        """Create, update or replace. Raises Temporary or Permanent."""
        ...

    async def delete(self, task: Task) -> None:
        """Delete; the absence of the object is success. Raises Temporary or Permanent."""
        ...
