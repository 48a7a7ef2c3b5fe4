"""One version of a model in memory, or one adapter of it: its files checked, loaded, and warm.

Called by `serving` in a thread of its own while the worker answers by what it has. What always holds:

- Nothing of a folder is opened by a runtime before every file in it is known, and has the sha256 that the
  bundle says. So what was measured is what answers, and what somebody has put there is not read.
- What is given back has run once alone and once as a full batch: its first answer is not its slowest.
"""

import contextlib
import ctypes
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from gamma_orch.app import tasks
from gamma_orch.app.bundle import Adapter, Model, Version
from gamma_orch.runtimes import Encoder, Generator, ModelError, load
from gamma_orch.runtimes.batching import padded
from gamma_orch.runtimes.encoder import pooled
from gamma_orch.runtimes.generator import Writing
from gamma_orch.runtimes.text import Ids, Span

if TYPE_CHECKING:
    import numpy as np

WARM = "What a text may look like that is neither long nor short: some words, and a stop."


class Broken(Exception):
    """A version or an adapter cannot be loaded. The text says why, in whole sentences."""


class Loaded(ABC):
    def __init__(self, digest: str, task: str) -> None:
        self.digest = digest
        self.task = task

    @abstractmethod
    def warm(self, batch: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Question:
    """A text, and who is to read it: the base or one of its adapters."""

    reader: "Reader"
    text: str

    def read(self) -> "Row":
        return self.reader.read(self.text)


@dataclass(frozen=True, slots=True)
class Row:
    """A text that is read: its length is what it costs."""

    reader: "Reader"
    text: str
    ids: Ids
    spans: Sequence[Span]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Said:
    output: tasks.Output
    tokens: int  # read


class Reader(Loaded):
    """Reads a text as a whole: classifiers and embedders. Both methods may run in any thread."""

    def __init__(self, digest: str, model: Encoder) -> None:
        super().__init__(digest, model.card.task)
        self._model = model

    def read(self, text: str) -> Row:
        if self.task == "token-classification":
            ((ids, spans),) = self._model.text.ids_and_spans([text])
            return Row(self, text, ids, spans)
        (ids,) = self._model.text.ids([text])
        return Row(self, text, ids, ())

    def run(self, rows: Sequence[Row]) -> list[Said]:
        """One batch, all of which it has read."""
        ids, mask = padded([row.ids for row in rows], self._model.marks.pad)
        answers = self._model.run_ids(ids, mask)
        if self.task == "embeddings":
            answers = pooled(self._model.card, answers, mask)
        outputs = self._outputs(rows, answers)
        return [Said(output, len(row)) for row, output in zip(rows, outputs, strict=True)]

    def warm(self, batch: int) -> None:
        row = self.read(WARM)
        self.run([row])
        self.run([row] * batch)

    def _outputs(self, rows: Sequence[Row], answers: "np.ndarray") -> Iterator[tasks.Output]:
        """Raises ModelError where the model says nothing: NaN would be a null in the answer."""
        import numpy as np

        labels = self._model.card.labels
        for row, answer in zip(rows, answers, strict=True):
            part = answer[: len(row)] if self.task == "token-classification" else answer
            if not np.isfinite(part).all():
                raise ModelError("The model answered with NaN or infinity.")
            match self.task:
                case "embeddings":
                    yield tasks.vector(part)
                case "text-classification":
                    yield tasks.classified(tasks.probabilities(part).tolist(), labels)
                case _:
                    yield tasks.entities(row.text, row.spans, tasks.probabilities(part), labels)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to go on from, and who does: the base or one of its adapters."""

    author: "Author"
    text: str
    new_tokens: int
    parameters: tasks.WriteParameters

    def start(self) -> Writing:
        return self.author.start(self)


class Author(Loaded):
    """Writes a text."""

    def __init__(self, digest: str, model: Generator) -> None:
        super().__init__(digest, model.card.task)
        self._model = model

    def start(self, prompt: Prompt) -> Writing:
        # Beyond its greatest length a model has no positions, and at least one token is what it goes on from.
        room = self._model.card.max_length - 1
        new = min(prompt.new_tokens, room) if room > 0 else prompt.new_tokens
        return self._model.writing(prompt.text, new, prompt.parameters.sampling)

    def warm(self, batch: int) -> None:
        for _ in self.start(Prompt(self, WARM, 4, tasks.WriteParameters())):
            pass


def opened(version: Version, model: Model, cache: Path | None = None) -> Reader | Author:
    """`cache`: a folder for what a runtime compiles, which all workers share. Raises Broken, with everything
    that is wrong with the files."""
    compiled = cache / version.digest if cache else None
    return _warmed(version, model, lambda folder: load(folder, version.threads, compiled))


def adapted(base: Loaded, adapter: Adapter, model: Model) -> Reader | Author:
    """An adapter on the weights of `base`, which goes on as it is. Raises Broken, as `opened`."""
    from gamma_orch.runtimes import adapters

    assert isinstance(base, Reader | Author)
    return _warmed(adapter, model, lambda folder: adapters.adapted(base._model, base.digest, folder))


def _warmed(
    said: Version | Adapter, model: Model, open_: Callable[[Path], Encoder | Generator]
) -> Reader | Author:
    folder = Path(said.folder)
    if faults := list(_faults(folder, said.files)):
        raise Broken(" ".join(faults))
    try:
        found = open_(folder)
        loaded = Reader(said.digest, found) if isinstance(found, Encoder) else Author(said.digest, found)
        loaded.warm(model.batch)
    except ModelError as error:
        raise Broken(str(error)) from error
    except Exception as error:
        raise Broken(f"It cannot be run here: {error}.") from error
    trim()
    return loaded


def trim() -> None:
    """Give the machine what is free: glibc keeps what loading took for a moment. Of a MiniLM in INT8 on ONNX
    Runtime that is 13 of 141 MB."""
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _faults(folder: Path, files: Mapping[str, str]) -> Iterator[str]:
    if not folder.is_dir():
        yield f"Its folder {folder} is not there."
        return
    for name, sha256 in sorted(files.items()):
        path = folder / name
        if _leads_out(name):
            yield f"Its file name {name!r} leads out of the folder."
        elif path.is_symlink():
            yield f"{path} is a link, and a link may lead anywhere."
        elif not path.is_file():
            yield f"{path} is missing."
        elif (now := _sha256(path)) != sha256:
            yield f"{path} is not what was built: its sha256 is {now[:12]} instead of {sha256[:12]}."
    for path in sorted(folder.rglob("*")):
        if (path.is_symlink() or not path.is_dir()) and path.relative_to(folder).as_posix() not in files:
            yield f"{path} does not belong to the model."


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
