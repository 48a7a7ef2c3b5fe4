"""Policies that are nowhere by themselves, because the Services that name them take them in.

What was applied is kept as a file in the environment's state, so that a policy is seen, drifts and is deleted
as everything else does. A file that cannot be read is Unreadable, never absent.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from gamma_orch.core.address import Address
from gamma_orch.core.leaves import encode
from gamma_orch.core.observation import ABSENT, Observation, Seen, Unreadable
from gamma_orch.core.provider import Asked, Task, Temporary
from gamma_orch.kinds.serving.whole import write
from gamma_orch.targets import Targets


class Kept:
    def __init__(self, targets: Targets, kind: str) -> None:
        self._kind = kind
        self._folder = targets.state / targets.environment / "policies"

    def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        """Each asked one, and whatever else of the kind is there."""
        found = {one.address: self._read(self._path(one.address)) for one in asked}
        for path in sorted(self._folder.glob(f"{self._kind}__*.json")):
            address = Address(self._kind, path.stem.partition("__")[2])
            if address not in found:
                found[address] = self._read(path)
        return found

    def write(self, task: Task) -> None:
        """Raises Temporary."""
        path = self._path(task.address)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write(path, json.dumps(encode(dict(task.fields)), sort_keys=True))
        except OSError as error:
            raise Temporary(f"{path} cannot be written: {error.strerror}.") from None

    def remove(self, task: Task) -> None:
        """Absence is success. Raises Temporary."""
        path = self._path(task.address)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise Temporary(f"{path} cannot be removed: {error.strerror}.") from None

    def _path(self, address: Address) -> Path:
        return self._folder / f"{self._kind}__{address.name}.json"

    def _read(self, path: Path) -> Observation:
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return ABSENT
        except (OSError, ValueError) as error:
            return Unreadable(f"{path} cannot be read: {error}. Delete it to have it written anew.")
        if not isinstance(fields, dict):
            return Unreadable(f"{path} holds no fields. Delete it to have it written anew.")
        return Seen(fields)
