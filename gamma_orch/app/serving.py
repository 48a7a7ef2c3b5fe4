"""The models that a worker answers by: which version answers whom, and what is in memory.

`Served` is one model of one bundle; `edge` and `api` ask it. `Shelf` holds what is loaded, and is asked by
the worker when it takes a bundle and when one has gone. What always holds:

- A caller with a key stays on one version as long as the weights stay; without keys the shares are exact.
- A shadow version never delays an answer and never fails one: it is asked after the answer is there, and
  where it has too much to do, it is not asked.
- A bundle that cannot be served whole changes nothing. What two bundles have in common is loaded once.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from gamma_orch.app import loaded, tasks
from gamma_orch.app.batching import Batcher
from gamma_orch.app.bundle import Bundle, Model, Version
from gamma_orch.app.errors import Malformed, NotFound, Problem, Unavailable
from gamma_orch.app.writing import Piece, Writer

if TYPE_CHECKING:
    from gamma_orch.app.metrics import Recorder

QUIET = 2.0  # seconds without a request after which nobody is taken to be still on the way to a model
SHADOWS = 64  # copies that wait for or run in the shadows of one model, at most
Result = TypeVar("Result")
Line = Batcher[str, loaded.Row, loaded.Said] | Writer[loaded.Prompt]


@dataclass(slots=True)
class Agreement:
    """Of a shadow with the version that answered: requests."""

    agreed: int = 0
    differed: int = 0
    failed: int = 0
    skipped: int = 0  # the shadow had too much to do


class NotServed(Exception):
    """A bundle's models cannot be served. The text has every fault, and so has `faults`."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class Key(NamedTuple):
    """What a version is loaded as."""

    digest: str
    threads: int

    @classmethod
    def of(cls, version: Version) -> "Key":
        return cls(version.digest, version.threads)


class Served:
    def __init__(
        self,
        name: str,
        model: Model,
        held: Mapping[Key, loaded.Loaded],
        recorder: "Recorder | None" = None,
    ) -> None:
        self.name = name
        self.model = model
        self._recorder = recorder
        self._lines = {version.digest: self._line(held[Key.of(version)]) for version in model.versions}
        self._shares = Shares(
            name, [(v.digest, v.weight) for v in model.versions if v.weight and not v.shadow]
        )
        self.agreement = {v.digest: Agreement() for v in model.versions if v.shadow}
        self._shadows: set[asyncio.Task[None]] = set()
        self._last = time.monotonic()  # when somebody asked
        self._closed = False

    @property
    def waiting(self) -> dict[str, int]:
        """Texts, by the digest of the version."""
        return {digest: line.waiting for digest, line in self._lines.items()}

    def choose(self, key: str = "") -> str:
        """The digest of the version that answers: for one key always the same."""
        return self._shares.of(key) if key else self._shares.next()

    async def answer(self, request: tasks.Request, digest: str = "") -> tasks.Answer:
        """`digest`: what `choose` gave, where it was asked before. Raises Problem."""
        self._check_adapter(request)
        digest = digest or self.choose()
        outputs, usage = await self._ask(self._at(digest), request)
        for shadow, counted in self.agreement.items():
            self._shadow(shadow, counted, request, outputs)
        answer: tasks.Answer = tasks.ANSWERS[self.model.task](self.name, digest, outputs, usage)
        return answer

    def stream(self, request: tasks.WriteRequest, digest: str = "") -> AsyncIterator[Piece]:
        """One text as it is written. Raises Problem, with the first piece or with a later one."""
        self._check_adapter(request)
        line = self._at(digest or self.choose())
        if not isinstance(line, Writer):
            raise Malformed(f"{self.name} writes no text, so there is nothing to stream.")
        if len(request.texts) != 1:
            raise Malformed(
                "One text is streamed at a time.", faults=[{"at": "/inputs", "says": "Give one."}]
            )
        return line.pieces(self._prompt(request, request.texts[0]), self._until())

    async def aclose(self, drain: float) -> None:
        """Finish what waits, then let go of the models, at the latest after `drain` seconds. Who was told to
        come here before, and still reads a body, is answered too: it is not over before it has been quiet."""
        end = time.monotonic() + drain
        while (left := end - time.monotonic()) > 0 and not self._quiet:  # noqa: ASYNC110 - quiet is no event
            await asyncio.sleep(min(left, 0.05))
        self._closed = True
        for task in self._shadows:
            task.cancel()
        await asyncio.gather(*(line.aclose(max(0.0, left)) for line in self._lines.values()))
        self._lines = {}

    @property
    def _quiet(self) -> bool:
        asked = any(line.busy for line in self._lines.values())
        return not asked and time.monotonic() - self._last > QUIET

    def _line(self, held: loaded.Loaded) -> Line:
        model = self.model
        if isinstance(held, loaded.Author):
            return Writer(held.start, model.batch, model.queue, self.name)
        assert isinstance(held, loaded.Reader)
        return Batcher(held.read, held.run, model.batch, model.queue, self.name, self._heard)

    def _heard(self, waited: Sequence[float]) -> None:
        if self._recorder is not None:
            self._recorder.batch(self.name, len(waited), waited)

    def _at(self, digest: str) -> Line:
        if self._closed:
            raise Unavailable(f"This copy of {self.name} is gone. Ask again.", 1)
        if digest not in self._lines:
            raise NotFound(f"{self.name} has no such version.")
        self._last = time.monotonic()
        return self._lines[digest]

    def _until(self) -> float:
        return time.monotonic() + self.model.deadline

    def _check_adapter(self, request: tasks.Request) -> None:
        if request.parameters.adapter:
            raise NotFound(
                f"{self.name} has no such adapter.",
                faults=[{"at": "/parameters/adapter", "says": "Leave it."}],
            )

    def _prompt(self, request: tasks.WriteRequest, text: str) -> loaded.Prompt:
        asked = request.parameters.max_new_tokens or tasks.NEW_TOKENS
        return loaded.Prompt(text, min(asked, self.model.new_tokens), request.parameters)

    async def _ask(self, line: Line, request: tasks.Request) -> tuple[list[Any], tasks.Usage]:
        until = self._until()
        if isinstance(line, Batcher):
            said = await line.answer(request.texts, until)
            return [one.output for one in said], tasks.Usage(sum(one.tokens for one in said))
        assert isinstance(request, tasks.WriteRequest)
        written = await _all(line.whole(self._prompt(request, text), until) for text in request.texts)
        outputs = [tasks.Written(one.text, one.finish, len(one.ids)) for one in written]
        return outputs, tasks.Usage(sum(one.read for one in written), sum(len(one.ids) for one in written))

    def _shadow(self, digest: str, counted: Agreement, request: tasks.Request, right: Sequence[Any]) -> None:
        if len(self._shadows) >= SHADOWS:
            counted.skipped += 1
            return
        task = asyncio.create_task(self._compare(self._lines[digest], counted, request, right))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _compare(
        self, line: Line, counted: Agreement, request: tasks.Request, right: Sequence[Any]
    ) -> None:
        try:
            outputs, _ = await self._ask(line, request)
        except Problem:
            counted.failed += 1
            return
        agrees = all(map(tasks.agree, right, outputs))
        if agrees:
            counted.agreed += 1
        else:
            counted.differed += 1
        if self._recorder is not None:
            self._recorder.shadow(self.name, agrees)


class Shares:
    """Who is answered by which, so that each has its weight of the whole."""

    def __init__(self, name: str, weights: Sequence[tuple[str, int]]) -> None:
        self._name = name
        self._weights = weights
        self._total = sum(weight for _, weight in weights)
        self._credit = dict.fromkeys((digest for digest, _ in weights), 0)

    def of(self, key: str) -> str:
        """By the hash of the key on a line that the weights divide: where they move, only those keys move
        that must. With the name of the model, or the same callers would get every trial."""
        digest = hashlib.blake2b(f"{self._name}\0{key}".encode(), digest_size=8).digest()
        place = int.from_bytes(digest) * self._total >> 64
        for found, weight in self._weights:
            place -= weight
            if place < 0:
                return found
        raise AssertionError

    def next(self) -> str:
        """Smooth weighted round robin, as nginx has it: of as many as the weights sum up to, each gets its
        weight, evenly mixed."""
        for digest, weight in self._weights:
            self._credit[digest] += weight
        best = max(self._credit, key=self._credit.__getitem__)
        self._credit[best] -= self._total
        return best


class Shelf:
    def __init__(self, recorder: "Recorder | None" = None) -> None:
        self._recorder = recorder
        # What no Served holds any more leaves memory by itself.
        self._held: WeakValueDictionary[Key, loaded.Loaded] = WeakValueDictionary()
        self._served: list[Served] = []
        self._preparing = asyncio.Lock()

    async def prepare(
        self, bundle: Bundle, tell: Callable[[str], object] = lambda text: None
    ) -> dict[str, Served]:
        """Every model of the bundle, ready for traffic; what is in memory already is not loaded anew.

        `tell` hears what is being loaded. Raises NotServed with every fault; then nothing has changed.
        """
        async with self._preparing:
            held = await self._hold(bundle, tell)
            found = {name: self._there(name, model) for name, model in bundle.models.items()}
            served = {
                name: there or self._new(name, bundle.models[name], held) for name, there in found.items()
            }
            self._served += [served[name] for name, there in found.items() if there is None]
            return served

    def _new(self, name: str, model: Model, held: Mapping[Key, loaded.Loaded]) -> Served:
        return Served(name, model, held, self._recorder)

    def release(self, bundle: Bundle | None, drain: float | None = None) -> Coroutine[Any, Any, None]:
        """Let go of all that `bundle` does not use. What goes is decided now, in the call; to be awaited is
        that its queues have drained. `drain`: seconds; default: what the bundle says."""
        if drain is None:
            drain = bundle.process.drain if bundle else 0.0
        kept = {name: self._there(name, model) for name, model in bundle.models.items()} if bundle else {}
        gone = [served for served in self._served if kept.get(served.name) is not served]
        self._served = [served for served in self._served if kept.get(served.name) is served]
        return _closed(gone, drain)

    async def aclose(self, drain: float = 0.0) -> None:
        await self.release(None, drain)

    def _there(self, name: str, model: Model) -> Served | None:
        return next((one for one in self._served if one.name == name and one.model == model), None)

    async def _hold(self, bundle: Bundle, tell: Callable[[str], object]) -> dict[Key, loaded.Loaded]:
        held: dict[Key, loaded.Loaded] = {}
        faults: list[str] = []
        versions = [(name, model, v) for name, model in bundle.models.items() for v in model.versions]
        for number, (name, model, version) in enumerate(versions, 1):
            key = Key.of(version)
            there = held.get(key) or self._held.get(key)
            try:
                if there is None:
                    tell(f"{name}: loading {version.digest[:12]}, {number} of {len(versions)}")
                    there = await asyncio.to_thread(loaded.opened, version, model)
                held[key] = there
                wrong = f"It is for {there.task}, not {model.task}." if there.task != model.task else ""
            except loaded.Broken as error:
                wrong = str(error)
            if wrong:
                faults.append(f"{name}, version {version.digest[:12]}: {wrong}")
        if faults:
            raise NotServed(faults)
        self._held.update(held)
        return held


async def _closed(gone: Iterable[Served], drain: float) -> None:
    await asyncio.gather(*(served.aclose(drain) for served in gone))


async def _all(asked: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Where one fails, the others are not waited for."""
    running = [asyncio.ensure_future(one) for one in asked]
    try:
        return await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
