"""The models that a worker answers by: which version answers whom, and what is in memory.

`Served` is one model of one bundle; `edge` and `api` ask it. `Shelf` holds what is loaded, and is asked by
the worker when it takes a bundle and when one has gone. What always holds:

- A caller with a key stays on one version as long as the weights stay; without keys the shares are exact.
- A shadow version never delays an answer and never fails one: it is asked after the answer is there, and
  where it has too much to do, it is not asked.
- A bundle that cannot be served whole changes nothing. What two bundles have in common is loaded once, so
  another adapter does not load its base again.
- A model and its adapters wait in one line, and one thread runs them: each batch and each token is of one.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from gamma_orch.app import loaded, tasks
from gamma_orch.app.batching import Batcher
from gamma_orch.app.bundle import Adapter, Bundle, Model, Version
from gamma_orch.app.errors import Malformed, NotFound, Problem, Unavailable
from gamma_orch.app.writing import Piece, Writer

if TYPE_CHECKING:
    from gamma_orch.app.metrics import Recorder

QUIET = 2.0  # seconds without a request after which nobody is taken to be still on the way to a model
SHADOWS = 64  # copies that wait for or run in the shadows of one model, at most
Result = TypeVar("Result")
Line = Batcher[loaded.Question, loaded.Row, loaded.Said] | Writer[loaded.Prompt]


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
    """What a version or an adapter is loaded as."""

    digest: str
    threads: int

    @classmethod
    def of(cls, version: Version, adapter: Adapter | None = None) -> "Key":
        return cls((adapter or version).digest, version.threads)


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
        # Who answers by a digest, and the digest of the version in whose line that waits.
        self._held = {v.digest: (held[Key.of(v)], v.digest) for v in model.versions}
        for adapter in model.adapters.values():
            (base,) = model.versions
            self._held[adapter.digest] = held[Key.of(base, adapter)], base.digest
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

    def choose(self, key: str = "", adapter: str = "", at: str = "/parameters/adapter") -> str:
        """The digest of what answers: the adapter, or a version, for one key always the same. Raises
        NotFound, with the place `at` which the body names the adapter."""
        if adapter:
            there = self.model.adapters
            if adapter not in there:
                names = f" It has {', '.join(sorted(there))}." if there else ""
                faults = [{"at": at, "says": "Take one of those." if there else "Leave it."}] if at else []
                raise NotFound(f"{self.name} has no such adapter.{names}", faults=faults)
            return there[adapter].digest
        return self._shares.of(key) if key else self._shares.next()

    async def answer(self, request: tasks.Request, digest: str = "") -> tasks.Answer:
        """`digest`: what `choose` gave, where it was asked before. Raises Problem."""
        digest = self._digest(request, digest)
        outputs, usage = await self._ask(*self._at(digest), request)
        for shadow, counted in self.agreement.items():
            self._shadow(shadow, counted, request, outputs)
        answer: tasks.Answer = tasks.ANSWERS[self.model.task](self.name, digest, outputs, usage)
        return answer

    def stream(self, request: tasks.WriteRequest, digest: str = "") -> AsyncIterator[Piece]:
        """One text as it is written. Raises Problem, with the first piece or with a later one."""
        held, line = self._at(self._digest(request, digest))
        if not isinstance(line, Writer):
            raise Malformed(f"{self.name} writes no text, so there is nothing to stream.")
        if len(request.texts) != 1:
            raise Malformed(
                "One text is streamed at a time.", faults=[{"at": "/inputs", "says": "Give one."}]
            )
        return line.pieces(self._prompt(held, request, request.texts[0]), self._until())

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
        self._lines, self._held = {}, {}

    @property
    def _quiet(self) -> bool:
        asked = any(line.busy for line in self._lines.values())
        return not asked and time.monotonic() - self._last > QUIET

    def _line(self, held: loaded.Loaded) -> Line:
        model = self.model
        if isinstance(held, loaded.Author):
            return Writer(loaded.Prompt.start, model.batch, model.queue, self.name)
        return Batcher(
            loaded.Question.read,
            lambda rows: rows[0].reader.run(rows),
            model.batch,
            model.queue,
            self.name,
            self._heard,
            lambda row: row.reader,
        )

    def _heard(self, waited: Sequence[float]) -> None:
        if self._recorder is not None:
            self._recorder.batch(self.name, len(waited), waited)

    def _digest(self, request: tasks.Request, digest: str) -> str:
        adapter = request.parameters.adapter
        return self.choose(adapter=adapter) if adapter or not digest else digest

    def _at(self, digest: str) -> tuple[loaded.Loaded, Line]:
        if self._closed:
            raise Unavailable(f"This copy of {self.name} is gone. Ask again.", 1)
        if digest not in self._held:
            raise NotFound(f"{self.name} has no such version.")
        self._last = time.monotonic()
        held, base = self._held[digest]
        return held, self._lines[base]

    def _until(self) -> float:
        return time.monotonic() + self.model.deadline

    def _prompt(self, held: loaded.Loaded, request: tasks.WriteRequest, text: str) -> loaded.Prompt:
        assert isinstance(held, loaded.Author)
        asked = request.parameters.max_new_tokens or tasks.NEW_TOKENS
        return loaded.Prompt(held, text, min(asked, self.model.new_tokens), request.parameters)

    async def _ask(
        self, held: loaded.Loaded, line: Line, request: tasks.Request
    ) -> tuple[list[Any], tasks.Usage]:
        until = self._until()
        if isinstance(line, Batcher):
            assert isinstance(held, loaded.Reader)
            said = await line.answer([loaded.Question(held, text) for text in request.texts], until)
            return [one.output for one in said], tasks.Usage(sum(one.tokens for one in said))
        assert isinstance(request, tasks.WriteRequest)
        written = await _all(line.whole(self._prompt(held, request, text), until) for text in request.texts)
        outputs = [tasks.Written(one.text, one.finish, len(one.ids)) for one in written]
        return outputs, tasks.Usage(sum(one.read for one in written), sum(len(one.ids) for one in written))

    def _shadow(self, digest: str, counted: Agreement, request: tasks.Request, right: Sequence[Any]) -> None:
        if len(self._shadows) >= SHADOWS:
            counted.skipped += 1
            return
        held, line = self._held[digest][0], self._lines[digest]
        task = asyncio.create_task(self._compare(held, line, counted, request, right))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _compare(
        self,
        held: loaded.Loaded,
        line: Line,
        counted: Agreement,
        request: tasks.Request,
        right: Sequence[Any],
    ) -> None:
        try:
            outputs, _ = await self._ask(held, line, request)
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
    def __init__(self, recorder: "Recorder | None" = None, cache: Path | None = None) -> None:
        """`cache`: a folder that workers share what they compile in."""
        self._recorder = recorder
        self._cache = cache
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
        parts = list(_parts(bundle))
        for number, (name, model, version, adapter) in enumerate(parts, 1):
            key, base = Key.of(version, adapter), held.get(Key.of(version))
            there = held.get(key) or self._held.get(key)
            try:
                if there is None:
                    tell(f"{name}: loading {key.digest[:12]}, {number} of {len(parts)}")
                    if adapter is None:
                        there = await asyncio.to_thread(loaded.opened, version, model, self._cache)
                    elif base is None:
                        continue  # what is wrong with the base has been said
                    else:
                        there = await asyncio.to_thread(loaded.adapted, base, adapter, model)
                held[key] = there
                wrong = f"It is for {there.task}, not {model.task}." if there.task != model.task else ""
            except loaded.Broken as error:
                wrong = str(error)
            if wrong:
                what = "version" if adapter is None else "adapter"
                faults.append(f"{name}, {what} {key.digest[:12]}: {wrong}")
        if faults:
            raise NotServed(faults)
        self._held.update(held)
        return held


def _parts(bundle: Bundle) -> Iterator[tuple[str, Model, Version, Adapter | None]]:
    """What has to be in memory: each version, and then the adapters that lie on it."""
    for name, model in bundle.models.items():
        for version in model.versions:
            yield name, model, version, None
            for _, adapter in sorted(model.adapters.items()):
                yield name, model, version, adapter


async def _closed(gone: Iterable[Served], drain: float) -> None:
    await asyncio.gather(*(served.aclose(drain) for served in gone))
    await asyncio.to_thread(loaded.trim)


async def _all(asked: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Where one fails, the others are not waited for."""
    running = [asyncio.ensure_future(one) for one in asked]
    try:
        return await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
