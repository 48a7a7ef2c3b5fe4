"""A small world in one file: what the kind `Thing` acts upon instead of a server.

The file is a log, one JSON line an effect, opened for appending; the state is its fold. So a test
can count effects, a second process sees at once what the first did, and a killed process leaves
nothing half done. Callers: `thing.ThingProvider`, crash tests, benchmarks.

What always holds: an effect is one line or none; a last line without its newline does not count and
is cut off by the next writer; an effect whose key is already in the log is not written again.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gamma_orch.core.canonical import Json, canonical

KIND = "Thing"


class WorldBroken(Exception):
    """The file is there and cannot be understood, or cannot be read."""


class Conflict(Exception):
    """The effect does not fit the state: creating what exists, updating what does not."""


@dataclass(slots=True)
class _State:
    """The fold of the lines read so far."""

    # name -> {"id", "fields", "secrets", "marked"}; plain mappings, so that a snapshot line of
    # 100,000 things is loaded as it is.
    things: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: dict[str, int] = field(default_factory=dict)  # how often; left out while it is 1
    keys: set[str] = field(default_factory=set)
    effects: int = 0

    def take(self, line: Mapping[str, Any]) -> None:
        if line["op"] == "snapshot":
            self.things, self.created = line["things"], line["created"]
            return
        name = line["address"].partition("/")[2]
        key = line["key"]
        self.effects += 1
        if key:
            self.keys.add(key)
        match line["op"]:
            case "create" | "replace":
                self._make(name, line)
            case "update":
                thing = self.things[name]
                self.things[name] = thing | {
                    "fields": line["fields"],
                    "secrets": line["secrets"],
                    "marked": thing["marked"] or bool(key),
                }
            case "delete":
                del self.things[name]
                self.created.setdefault(name, 1)

    def _make(self, name: str, line: Mapping[str, Any]) -> None:
        before = self.created.get(name, 1 if name in self.things else 0)
        if before:
            self.created[name] = before + 1
        self.things[name] = {
            # Made by the world alone: a second creation shows, whoever asked for it.
            "id": f"{name}#{before + 1}",
            "fields": line["fields"],
            "secrets": line["secrets"],
            "marked": bool(line["key"]),
        }


class World:
    """One environment's world file. Cheap to open: reading starts with the first question, and
    goes on from there with the next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = _State()
        self._offset = 0
        self._inode = -1

    @property
    def things(self) -> Mapping[str, Mapping[str, Any]]:
        """Everything that exists now, by name. Raises WorldBroken."""
        self.refresh()
        return self._state.things

    @property
    def effects(self) -> int:
        """How many effects the log holds. Raises WorldBroken."""
        self.refresh()
        return self._state.effects

    def refresh(self) -> None:
        """Read what was appended since the last time."""
        try:
            with self.path.open("rb") as file:
                self._read(file.fileno())
        except FileNotFoundError:
            self._restart(-1)
        except OSError as error:
            raise WorldBroken(f"{self.path} cannot be read: {error.strerror}") from error

    def _restart(self, inode: int) -> None:
        self._state, self._offset, self._inode = _State(), 0, inode

    def _read(self, handle: int) -> None:
        status = os.fstat(handle)
        if status.st_ino != self._inode or status.st_size < self._offset:
            self._restart(status.st_ino)
        data = os.pread(handle, status.st_size - self._offset, self._offset)
        whole = data[: data.rfind(b"\n") + 1]
        if not whole:
            return
        try:
            # A newline cannot stand inside a JSON text, so that all lines are one array.
            for line in json.loads(b"[" + whole[:-1].replace(b"\n", b",") + b"]"):
                self._state.take(line)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._restart(-1)
            raise WorldBroken(f"{self.path} holds a line that is no effect: {error!r}") from error
        self._offset += len(whole)

    def effect(
        self, op: str, name: str, fields: Json, secrets: Mapping[str, str] | None = None, key: str = ""
    ) -> bool:
        """Append one effect; False where its key says that it was done before.

        Without a key it is somebody else's doing: an out-of-band change, never taken for a
        repetition and never marked as Gamma's. Raises Conflict, WorldBroken.
        """
        with self._locked() as handle:
            self._read(handle)
            if key and key in self._state.keys:
                return False
            exists = name in self._state.things
            if op == "delete" and not exists:
                return False
            if (op == "create") is exists:
                raise Conflict(f"{name} exists already" if exists else f"{name} does not exist")
            line = {
                "key": key,
                "op": op,
                "address": f"{KIND}/{name}",
                "fields": fields,
                "secrets": dict(secrets or {}),
            }
            os.write(handle, (canonical(line) + "\n").encode())
            self._read(handle)
            return True

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise WorldBroken(f"{self.path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self._cut_torn_line(handle)
            yield handle
        finally:
            os.close(handle)

    def _cut_torn_line(self, handle: int) -> None:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            with self.path.open("rb") as file:
                os.ftruncate(handle, file.read().rfind(b"\n") + 1)


def seed(path: Path, things: Mapping[str, Mapping[str, Json]]) -> None:
    """Write a world in which these things (fields by name) exist and carry Gamma's mark.

    One snapshot line instead of a history: for benchmarks, where applying 100,000 would be waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made = {
        name: {"id": f"{name}#1", "fields": fields, "secrets": {}, "marked": True}
        for name, fields in things.items()
    }
    line = {"op": "snapshot", "things": made, "created": {}}
    path.write_text(canonical(line) + "\n", encoding="utf-8")
