"""One version of a model in memory: its files checked, loaded, and warm.

Called by `serving` in a thread of its own while the worker answers by what it has. What always holds:

- Nothing of a folder is opened by a runtime before every file in it is known, and has the sha256 that the
  bundle says. So what was measured is what answers, and what somebody has put there is not read.
- What is given back has run once alone and once as a full batch: its first answer is not its slowest.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from gamma_orch.app import tasks
from gamma_orch.app.bundle import Model, Version
from gamma_orch.runtimes import Encoder, Generator, ModelError, load
from gamma_orch.runtimes.batching import padded
from gamma_orch.runtimes.encoder import pooled
from gamma_orch.runtimes.generator import Writing
from gamma_orch.runtimes.text import Ids, Span

if TYPE_CHECKING:
    import numpy as np

WARM = "What a text may look like that is neither long nor short: some words, and a stop."


class Broken(Exception):
    """A version cannot be loaded. The text says why, in whole sentences."""


class Loaded(ABC):
    def __init__(self, version: Version, task: str) -> None:
        self.digest = version.digest
        self.task = task

    @abstractmethod
    def warm(self, batch: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Row:
    """A text that is read: its length is what it costs."""

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

    def __init__(self, version: Version, model: Encoder) -> None:
        super().__init__(version, model.card.task)
        self._model = model

    def read(self, text: str) -> Row:
        if self.task == "token-classification":
            ((ids, spans),) = self._model.text.ids_and_spans([text])
            return Row(text, ids, spans)
        (ids,) = self._model.text.ids([text])
        return Row(text, ids, ())

    def run(self, rows: Sequence[Row]) -> list[Said]:
        """One batch."""
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
    text: str
    new_tokens: int
    parameters: tasks.WriteParameters


class Author(Loaded):
    """Writes a text."""

    def __init__(self, version: Version, model: Generator) -> None:
        super().__init__(version, model.card.task)
        self._model = model

    def start(self, prompt: Prompt) -> Writing:
        # Beyond its greatest length a model has no positions, and at least one token is what it goes on from.
        room = self._model.card.max_length - 1
        new = min(prompt.new_tokens, room) if room > 0 else prompt.new_tokens
        return self._model.writing(prompt.text, new, prompt.parameters.sampling)

    def warm(self, batch: int) -> None:
        for _ in self.start(Prompt(WARM, 4, tasks.WriteParameters())):
            pass


def opened(version: Version, model: Model) -> Reader | Author:
    """Raises Broken, with everything that is wrong with the files."""
    folder = Path(version.folder)
    if faults := list(_faults(folder, version.files)):
        raise Broken(" ".join(faults))
    try:
        found = load(folder, version.threads)
        loaded = Reader(version, found) if isinstance(found, Encoder) else Author(version, found)
        loaded.warm(model.batch)
    except ModelError as error:
        raise Broken(str(error)) from error
    except Exception as error:
        raise Broken(f"It cannot be run here: {error}.") from error
    return loaded


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
