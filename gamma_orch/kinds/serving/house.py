"""The folder of one service, as its workers know it: bundles by digest, which of them is current, sockets.

    <state>/<environment>/service-<name>/current           the digest that a worker starts with
                                        /bundles/<digest>.json, .secrets.json, .fields.json
                                        /slots/<n>.sock    of each worker (app.control)
                                        /metrics/          counters of all workers (app.metrics)
                                        /compiled/<digest>/  what a runtime made of a model, for all workers
                                        /scaled            how many workers a policy wants, not the spec
                                        /clusters          where Ray Serve has it, or may have it
                                        /ray/<replica>.json  what each replica there says (app.on_ray)

`current` is written when a bundle has proved itself, so a worker that starts in the middle of a rollout
starts with the one before.
"""

import base64
import contextlib
import fcntl
import json
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gamma_orch.app import bundle as contract
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.core.leaves import encode
from gamma_orch.kinds.serving.whole import write

KEPT = 5  # bundles that are not current, for a return


@dataclass(frozen=True, slots=True)
class House:
    folder: Path

    @property
    def exists(self) -> bool:
        return (self.folder / "current").exists()

    def current(self) -> str:
        """ "" where there is none yet."""
        try:
            return (self.folder / "current").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""

    def fields(self, digest: str) -> Json:
        """Those that a bundle was made of, encoded. Raises OSError or ValueError."""
        return json.loads((self.folder / "bundles" / f"{digest}.fields.json").read_text(encoding="utf-8"))

    def bundle(self, digest: str) -> contract.Bundle:
        """Raises OSError or pydantic.ValidationError."""
        return contract.Bundle.decoded((self.folder / "bundles" / f"{digest}.json").read_bytes())

    def store(self, bundle: contract.Bundle, values: contract.Secrets, fields: Fields) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "bundles").mkdir(mode=0o700, exist_ok=True)
        (self.folder / "slots").mkdir(mode=0o700, exist_ok=True)
        for suffix, text in (
            ("json", bundle.encoded()),
            ("secrets.json", values.model_dump_json()),
            ("fields.json", json.dumps(encode(dict(fields)), sort_keys=True)),
        ):
            write(self.folder / "bundles" / f"{bundle.digest}.{suffix}", text)

    def settle(self, digest: str) -> None:
        """This one is current now. All others go but the one before, whatever its age, and the latest few."""
        spared = {digest, self.current()}
        write(self.folder / "current", digest)
        files = sorted((self.folder / "bundles").iterdir(), key=lambda path: path.stat().st_mtime)
        bundles = dict.fromkeys(path.name.partition(".")[0] for path in reversed(files))  # the newest first
        for old in [name for name in bundles if name not in spared][KEPT:]:
            for path in (self.folder / "bundles").glob(f"{old}.*"):
                path.unlink(missing_ok=True)
        left = [path for path in (self.folder / "bundles").iterdir() if path.suffixes == [".json"]]
        kept = "".join(path.read_text(encoding="utf-8") for path in left)
        for compiled in (self.folder / "compiled").glob("*"):
            if compiled.name not in kept:
                shutil.rmtree(compiled, ignore_errors=True)

    def sized(self, fields: Fields) -> Fields:
        """The fields with as many workers as a ScalingPolicy wants, where one has been followed."""
        try:
            return {**fields, "workers": int((self.folder / "scaled").read_text(encoding="ascii"))}
        except (FileNotFoundError, ValueError):
            return fields

    def scale(self, workers: int | None) -> None:
        """Of each replica. None: as many as the spec says."""
        if workers is None:
            (self.folder / "scaled").unlink(missing_ok=True)
        else:
            write(self.folder / "scaled", str(workers))

    def clusters(self) -> list[Json]:
        """Where Ray Serve has the service, or may have it: `url`, with its credentials, and `name`."""
        try:
            found: list[Json] = json.loads((self.folder / "clusters").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        return found

    def remember(self, clusters: Sequence[Json]) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(self.folder / "clusters", json.dumps(list(clusters)))

    def told(self) -> dict[str, Json]:
        """What replicas on Ray Serve say, by their ids; those that were killed too."""
        found = {}
        for path in (self.folder / "ray").glob("*.json"):
            with contextlib.suppress(OSError, ValueError):  # it ends at this moment
                found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def seats(self) -> list[int]:
        """The numbers of living replicas on Ray Serve, as they are asked by (`app.control`)."""
        return sorted(one["slot"] for one in self.told().values() if self.lives(one["slot"]))

    def lives(self, slot: int) -> bool:
        """Whether a replica with this number lives: only its process holds the lock."""
        try:
            with (self.folder / "slots" / f"{slot}.lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def secret(self, name: str) -> str:
        """One of the service's own, made once: what it signs its tokens with, what it seals columns with."""
        path = self.folder / f"{name}.secret"
        if not path.exists():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # 32 random bytes in base64: what a Fernet key is, and long enough for an HMAC.
            write(path, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
        return path.read_text(encoding="ascii").strip()

    def hashed(self, user: str, password: str) -> str:
        """The argon2 hash of a user's password. Salt makes each one another, so the one in the current bundle
        is kept while it fits: the same spec gives the same bundle. Raises ValueError for a weak password."""
        from gamma_orch.app import passwords

        current = self.current()
        try:
            known = {one.name: one.hash for one in self.bundle(current).auth.users} if current else {}
        except (OSError, ValueError):
            known = {}  # it cannot be read, and another one is being made
        if user in known and passwords.verified(password, known[user]):
            return known[user]
        return passwords.hashed(password, user)

    def destroy(self) -> None:
        """All goes but what texts in the database are sealed with: without it nobody could read them."""
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name == "columns.secret":
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
