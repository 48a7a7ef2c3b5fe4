"""Models of a bundle, real and tiny: what they answer, who answers whom, and what is in memory."""

import asyncio
import gc
import hashlib
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.app import loaded, serving, tasks
from gamma_orch.app.batching import Batcher
from gamma_orch.app.bundle import Bundle, Model, Process, Task, Version
from gamma_orch.app.errors import Internal, Late, Malformed, NotFound, Problem, Unavailable
from gamma_orch.app.serving import NotServed, Served, Shares, Shelf
from tests.kinds.models.built import Workshop
from tests.kinds.models.tiny import Kind, texts, tiny

RUNTIMES: dict[str, tuple[str, ...]] = {
    "torch": (),
    "onnxruntime": ("export",),
    "openvino": ("export", "to_openvino"),
}
FORMS: list[tuple[str, Kind, Task]] = [
    *((runtime, "bert", "text-classification") for runtime in RUNTIMES),
    *((runtime, "distilbert", "embeddings") for runtime in ("torch", "openvino")),
    *((runtime, "roberta", "token-classification") for runtime in ("torch", "onnxruntime")),
    *((runtime, "gpt2", "text-generation") for runtime in RUNTIMES),
    *((runtime, "bart", "summarization") for runtime in ("torch", "onnxruntime")),
]
ODD = [
    "",
    " \t\n ",
    "😀",
    "\x00\x1b\u202e\ufeff",
    "x" * 20_000,
    "the film " * 2_000,
    "e\u0301" * 50,
    "電影很好",
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(autouse=True)
def _soon_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "QUIET", 0.1)


@pytest.fixture(params=FORMS, ids=lambda form: f"{form[0]}-{form[2]}")
def form(request: pytest.FixtureRequest, workshop: Workshop) -> tuple[Task, Path]:
    runtime, kind, task = request.param
    return task, workshop.model(kind, *RUNTIMES[runtime], task=task)


def version(folder: Path, **more: Any) -> Version:
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    digest = hashlib.sha256(repr(files).encode()).hexdigest()
    return Version(**{"digest": digest, "folder": str(folder), "files": files, **more})


def model(task: Task, *versions: Version, **more: Any) -> Model:
    return Model(**{"task": task, "versions": versions, "batch": 8, "queue": 2000, "deadline": 60, **more})


def bundle(**models: Model) -> Bundle:
    return Bundle(service="test", models=models, process=Process(port=8000, drain=20))


def request(task: Task, inputs: str | list[str], **parameters: Any) -> tasks.Request:
    if tasks.REQUESTS[task] is tasks.ReadRequest:
        return tasks.ReadRequest(inputs, tasks.ReadParameters(**parameters))
    return tasks.WriteRequest(inputs, tasks.WriteParameters(**{"max_new_tokens": 8, **parameters}))


def near(one: Any, other: Any) -> bool:
    """The same up to what a batch changes in the last bits."""
    if isinstance(one, list) and one and isinstance(one[0], float):
        return bool(np.allclose(one, other, atol=1e-4))
    if isinstance(one, tasks.Classified):
        return (
            isinstance(other, tasks.Classified)
            and one.label == other.label
            and abs(one.score - other.score) < 1e-4
        )
    if isinstance(one, list):
        return [(e.start, e.end, e.label) for e in one] == [(e.start, e.end, e.label) for e in other]
    same: bool = one == other
    return same


# --- answers --------------------------------------------------------------------------------------


def test_each_gets_what_it_would_get_alone(form: tuple[Task, Path]):
    """Hundreds at once, some of them gone before they are answered, each in some batch."""
    task, folder = form
    some = [*texts(12), *ODD]

    async def run() -> None:
        shelf = Shelf()
        served = (await shelf.prepare(bundle(m=model(task, version(folder)))))["m"]
        alone = [(await served.answer(request(task, text))).outputs[0] for text in some]
        count = 300 if tasks.REQUESTS[task] is tasks.ReadRequest else 60

        async def one(number: int) -> None:
            chosen = [(number + part) % len(some) for part in range(1 + number % 3)]
            asked = asyncio.ensure_future(served.answer(request(task, [some[n] for n in chosen])))
            if number % 7 == 0:
                await asyncio.sleep(number / 5_000)
                asked.cancel()
            try:
                answer = await asked
            except asyncio.CancelledError:
                assert number % 7 == 0
                return
            assert answer.model == "m"
            assert answer.digest == served.model.versions[0].digest
            assert all(near(found, alone[n]) for found, n in zip(answer.outputs, chosen, strict=True))
            assert answer.usage.input_tokens > 0 or {some[n] for n in chosen} <= {""}
            tasks.encoded(answer)

        await asyncio.gather(*(one(number) for number in range(count)))
        await shelf.aclose(5)

    asyncio.run(run())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_the_runtime_says_is_what_is_answered(workshop: Workshop, runtime: str):
    from gamma_orch.runtimes import load_encoder, load_generator

    reads = workshop.model("bert", *RUNTIMES[runtime])
    writes = workshop.model("gpt2", *RUNTIMES[runtime])

    async def run() -> None:
        shelf = Shelf()
        served = await shelf.prepare(
            bundle(
                reads=model("text-classification", version(reads)),
                writes=model("text-generation", version(writes), new_tokens=50),
            )
        )
        said = await served["reads"].answer(request("text-classification", texts(5)))
        logits = load_encoder(reads).logits(texts(5))
        for output, row in zip(said.outputs, logits, strict=True):
            assert isinstance(output, tasks.Classified)
            assert output.label == ("negative", "positive")[int(row.argmax())]
            assert abs(sum(output.scores.values()) - 1) < 1e-5
            assert abs(output.scores["positive"] - 1 / (1 + np.exp(row[0] - row[1]))) < 1e-4
        written = await served["writes"].answer(request("text-generation", texts(3), max_new_tokens=9))
        right = load_generator(writes).generate(texts(3), 9)
        assert [one.text for one in written.outputs if isinstance(one, tasks.Written)] == right
        assert written.usage.output_tokens == sum(
            one.tokens for one in written.outputs if isinstance(one, tasks.Written)
        )
        long = await served["writes"].answer(request("text-generation", "the", max_new_tokens=None))
        (only,) = long.outputs
        assert isinstance(only, tasks.Written)
        assert only.tokens <= 50 or only.finish_reason == "length"
        await shelf.aclose()

    asyncio.run(run())


def test_a_stream_is_the_whole_text_in_pieces(workshop: Workshop):
    folder = workshop.torch("gpt2")

    async def run() -> None:
        shelf = Shelf()
        served = (await shelf.prepare(bundle(m=model("text-generation", version(folder), new_tokens=4_000))))[
            "m"
        ]
        asked = request("text-generation", "the film was", max_new_tokens=4_000, temperature=1.2, seed=3)
        assert isinstance(asked, tasks.WriteRequest)
        whole = (await served.answer(asked)).outputs[0]
        assert isinstance(whole, tasks.Written)
        pieces = [piece async for piece in served.stream(asked)]
        assert "".join(piece.text for piece in pieces).strip("\ufffd ") == whole.text.strip("\ufffd ")
        (end,) = [piece.end for piece in pieces if piece.end]
        assert pieces[-1].end is end
        assert (end.text, end.finish, len(end.ids)) == (whole.text, whole.finish_reason, whole.tokens)
        assert whole.tokens < 128  # the positions that it has, with one token to go on from
        with pytest.raises(Malformed):
            served.stream(tasks.WriteRequest(["a", "b"]))
        await shelf.aclose()

    asyncio.run(run())


def test_an_adapter_that_is_not_there(workshop: Workshop):
    folder = workshop.torch("bert")

    async def run() -> None:
        shelf = Shelf()
        served = (await shelf.prepare(bundle(m=model("text-classification", version(folder)))))["m"]
        with pytest.raises(NotFound, match="adapter") as refused:
            await served.answer(request("text-classification", "a", adapter="CANARY"))
        assert "CANARY" not in refused.value.body("1").decode()
        with pytest.raises(NotFound, match="version"):
            await served.answer(request("text-classification", "a"), "0" * 64)
        with pytest.raises(Malformed):
            served.stream(tasks.WriteRequest("a"))
        await shelf.aclose()

    asyncio.run(run())


def test_late_and_full_come_through(workshop: Workshop):
    folder = workshop.torch("gpt2")

    async def run() -> None:
        shelf = Shelf()
        served = (
            await shelf.prepare(
                bundle(m=model("text-generation", version(folder), deadline=0.05, queue=3, batch=1))
            )
        )["m"]
        with pytest.raises(Late):
            await served.answer(request("text-generation", ["the film"] * 3, max_new_tokens=100))
        with pytest.raises(Unavailable):
            await served.answer(request("text-generation", ["the film"] * 5, max_new_tokens=100))
        await shelf.aclose()

    asyncio.run(run())


# --- which version --------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.integers(1, 3))
def test_the_shares_are_the_weights(weights: list[int], rounds: int):
    shares = Shares("m", [(str(number), weight) for number, weight in enumerate(weights)])
    counted = Counter(shares.next() for _ in range(sum(weights) * rounds))
    assert counted == {str(number): weight * rounds for number, weight in enumerate(weights)}


def test_the_shares_are_mixed():
    shares = Shares("m", [("old", 9), ("new", 1)])
    picked = [shares.next() for _ in range(100)]
    assert all(picked[start : start + 10].count("new") == 1 for start in range(0, 100, 10))


def test_one_caller_stays_on_one_version():
    keys = [f"user-{number}" for number in range(20_000)]
    before, after = Shares("m", [("old", 90), ("new", 10)]), Shares("m", [("old", 80), ("new", 20)])
    first = {key: before.of(key) for key in keys}
    assert first == {key: before.of(key) for key in keys}
    counted = Counter(first.values())
    assert abs(counted["new"] / len(keys) - 0.1) < 0.01
    moved = {key for key in keys if after.of(key) != first[key]}
    assert all(first[key] == "old" for key in moved)  # who had the new one keeps it
    assert abs(len(moved) / len(keys) - 0.1) < 0.01
    others = Shares("n", [("old", 90), ("new", 10)])
    both = sum(first[key] == others.of(key) == "new" for key in keys)
    assert both / len(keys) < 0.02  # the trials of two models are not on the same callers


def test_versions_answer_by_their_weight(tmp_path: Path):
    shares: list[dict[str, Any]] = [{"weight": 3}, {"weight": 1}, {"weight": 0}, {"shadow": True}]
    one, two, three, four = (
        version(tiny("bert", tmp_path / str(seed), seed=seed), **more) for seed, more in enumerate(shares)
    )

    async def run() -> None:
        shelf = Shelf()
        served = (await shelf.prepare(bundle(m=model("text-classification", one, two, three, four))))["m"]
        answers = [await served.answer(request("text-classification", text)) for text in texts(40)]
        assert Counter(answer.digest for answer in answers) == {one.digest: 30, two.digest: 10}
        chosen = served.choose("somebody")
        assert {served.choose("somebody") for _ in range(9)} == {chosen}
        assert (await served.answer(request("text-classification", "a"), chosen)).digest == chosen
        assert (await served.answer(request("text-classification", "a"), three.digest)).digest == three.digest
        await shelf.aclose()

    asyncio.run(run())


# --- shadows --------------------------------------------------------------------------------------


def test_a_shadow_is_compared(workshop: Workshop, tmp_path: Path):
    answers = version(workshop.torch("bert"))
    same = version(workshop.model("bert", "export"), shadow=True)
    other = version(tiny("bert", tmp_path / "other", seed=5), shadow=True)

    async def run() -> None:
        shelf = Shelf()
        served = (await shelf.prepare(bundle(m=model("text-classification", answers, same, other))))["m"]
        for text in texts(40):
            assert (await served.answer(request("text-classification", text))).digest == answers.digest
        async with asyncio.timeout(20):
            while served._shadows:  # noqa: ASYNC110 - nobody waits for a shadow
                await asyncio.sleep(0.01)
        assert served.agreement[same.digest] == serving.Agreement(agreed=40)
        seen = served.agreement[other.digest]
        assert seen.agreed + seen.differed == 40
        assert seen.differed > 0
        await shelf.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_a_shadow_never_delays_and_never_fails(workshop: Workshop, how: str):
    answers = version(workshop.torch("bert"))
    shadow = version(workshop.model("bert", "export"), shadow=True)
    gate = threading.Event()

    def run_shadow(rows: Sequence[Any]) -> list[Any]:
        if how == "fails":
            raise RuntimeError
        gate.wait(30)
        return [None] * len(rows)

    async def run() -> None:
        shelf = Shelf()
        served = (await shelf.prepare(bundle(m=model("text-classification", answers, shadow))))["m"]
        await served._lines[shadow.digest].aclose(0)
        served._lines[shadow.digest] = Batcher(
            lambda asked: loaded.Row(asked.reader, asked.text, [1], ()), run_shadow, 8, 512, "s"
        )
        began = time.monotonic()
        for text in texts(serving.SHADOWS + 20):
            await served.answer(request("text-classification", text))
        assert time.monotonic() - began < 25
        seen = served.agreement[shadow.digest]
        if how == "hangs":
            assert seen == serving.Agreement(skipped=20)
        else:
            await asyncio.sleep(0.2)
            assert seen == serving.Agreement(failed=serving.SHADOWS + 20)
        gate.set()
        await shelf.aclose()

    asyncio.run(run())


# --- what is loaded -------------------------------------------------------------------------------


@pytest.fixture
def copied(workshop: Workshop, tmp_path: Path) -> Path:
    return Path(shutil.copytree(workshop.model("bert", "export"), tmp_path / "copied"))


def change_a_byte(folder: Path) -> None:
    path = folder / "model.onnx"
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def link_a_file(folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere.onnx")


POISONS = {
    "a changed byte": (change_a_byte, "model.onnx is not what was built: its sha256 is"),
    "a file more": (lambda f: (f / "custom.so").write_bytes(b"x"), "custom.so does not belong to the model"),
    "a pickle": (lambda f: (f / "model.pkl").write_bytes(b"x"), "model.pkl does not belong to the model"),
    "a file deep down": (
        lambda f: ((f / "a/b").mkdir(parents=True), (f / "a/b/c").touch()),
        "a/b/c does not",
    ),
    "a link to a folder": (lambda f: (f / "l").symlink_to("/etc"), "l does not belong to the model"),
    "a link": (link_a_file, "model.onnx is a link"),
    "a file less": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "a folder for a file": (
        lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()),
        "is missing",
    ),
    "nothing": (shutil.rmtree, "is not there"),
}


@pytest.mark.parametrize("poison", POISONS)
def test_a_poisoned_folder_is_not_opened(copied: Path, poison: str, monkeypatch: pytest.MonkeyPatch):
    put_in, says = POISONS[poison]
    given = version(copied)
    put_in(copied)  # type: ignore[operator]
    monkeypatch.setattr(loaded, "load", lambda *arguments: pytest.fail("it was opened"))
    with pytest.raises(loaded.Broken) as refused:
        loaded.opened(given, model("text-classification", given))
    assert says in str(refused.value)


@pytest.mark.parametrize("name", ["../copied/config.json", "/etc/hostname", "a/../../x"])
def test_a_name_that_leads_out(copied: Path, name: str):
    given = version(copied)
    given = given.model_copy(update={"files": {**given.files, name: "0" * 64}})
    with pytest.raises(loaded.Broken, match="leads out of the folder"):
        loaded.opened(given, model("text-classification", given))


def test_a_pickle_that_the_bundle_names_is_refused_too(copied: Path):
    (copied / "model.pkl").write_bytes(b"\x80\x04")
    given = version(copied)
    with pytest.raises(loaded.Broken, match="is a pickle by its name"):
        loaded.opened(given, model("text-classification", given))


def test_every_fault_is_told_and_nothing_has_changed(workshop: Workshop, copied: Path, tmp_path: Path):
    good = version(workshop.torch("bert"))
    bad = version(copied)
    change_a_byte(copied)
    (copied / "more.txt").touch()
    wrong = version(workshop.torch("gpt2"))
    new = version(tiny("bert", tmp_path / "new", seed=9))

    async def run() -> None:
        shelf = Shelf()
        (before,) = (await shelf.prepare(bundle(m=model("text-classification", good)))).values()
        told: list[str] = []
        with pytest.raises(NotServed) as refused:
            await shelf.prepare(
                bundle(
                    m=model("text-classification", good, new),
                    n=model("text-classification", bad),
                    o=model("embeddings", good),
                    p=model("summarization", wrong),
                ),
                told.append,
            )
        assert len(refused.value.faults) == 3
        for says in (
            "n, version",
            "not what was built",
            "more.txt does not",
            "not embeddings",
            "not summarization",
        ):
            assert says in str(refused.value)
        assert len(told) == 3
        assert all("loading" in line for line in told)
        assert (await before.answer(request("text-classification", "a"))).digest == good.digest
        gc.collect()
        assert [key.digest for key in shelf._held] == [good.digest]
        await shelf.aclose()

    asyncio.run(run())


def test_what_two_bundles_share_is_loaded_once(workshop: Workshop, tmp_path: Path):
    one, two = version(workshop.torch("bert")), version(tiny("bert", tmp_path / "two", seed=2))

    async def run() -> None:
        shelf, told = Shelf(), list[str]()
        first = bundle(m=model("text-classification", one), n=model("text-classification", one, two))
        before = await shelf.prepare(first, told.append)
        assert len(told) == 2
        again = await shelf.prepare(first.model_copy(update={"service": "other"}), told.append)
        assert again == before  # the very same: its queue and its counts go on
        other = bundle(m=model("text-classification", one, batch=2), n=first.models["n"])
        after = await shelf.prepare(other, told.append)
        assert len(told) == 2
        assert after["n"] is before["n"]
        assert after["m"] is not before["m"]
        await shelf.release(other)
        with pytest.raises(Unavailable):
            await before["m"].answer(request("text-classification", "a"))
        for served in after.values():
            await served.answer(request("text-classification", "a"))
        alone = bundle(m=other.models["m"])
        await shelf.prepare(alone, told.append)
        await shelf.release(alone)
        gc.collect()
        assert [key.digest for key in shelf._held] == [one.digest]  # two has left memory
        await shelf.aclose()
        gc.collect()
        assert not shelf._held
        assert len(told) == 2

    asyncio.run(run())
    assert not [thread for thread in threading.enumerate() if thread.name in "mn"]


def test_bundles_change_under_traffic_and_nothing_is_lost(workshop: Workshop, tmp_path: Path):
    versions = [version(workshop.model("bert", "export")), version(tiny("bert", tmp_path / "b", seed=2))]
    bundles = [
        bundle(m=model("text-classification", versions[number % 2], batch=2 + number)) for number in range(6)
    ]
    told: list[str] = []
    answered: Counter[str] = Counter()

    async def run() -> None:
        shelf = Shelf()
        current = await shelf.prepare(bundles[0], told.append)
        over = False

        async def ask(number: int) -> None:
            while not over:
                mine = current["m"]
                await asyncio.sleep(number % 4 * 0.02)  # its body comes slowly
                answered[(await mine.answer(request("text-classification", texts(1)))).digest] += 1

        callers = [asyncio.ensure_future(ask(number)) for number in range(16)]
        gone = []
        for following in bundles[1:]:
            await asyncio.sleep(0.1)
            current = await shelf.prepare(following, told.append)
            gone.append(asyncio.ensure_future(shelf.release(following)))
        await asyncio.gather(*gone)
        over = True
        await asyncio.gather(*callers)
        gc.collect()
        assert len(shelf._held) == 1
        await shelf.aclose()

    asyncio.run(run())
    assert len(answered) == 2
    assert len(told) <= 6


def test_a_model_that_says_nothing_fails_alone(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    given = version(workshop.torch("bert"))

    async def run() -> None:
        shelf = Shelf()
        served: Served = (await shelf.prepare(bundle(m=model("text-classification", given))))["m"]
        held = shelf._held[serving.Key.of(given)]
        assert isinstance(held, loaded.Reader)
        real, bad = held._model.run_ids, len(held.read("bad bad bad"))

        def sometimes_nan(ids: Any, mask: Any) -> Any:
            answers = real(ids, mask)
            answers[mask.sum(axis=1) == bad] = np.nan
            return answers

        monkeypatch.setattr(held._model, "run_ids", sometimes_nan)
        asked = ["a film", "bad bad bad", "warm"]
        found = await asyncio.gather(
            *(served.answer(request("text-classification", text)) for text in asked), return_exceptions=True
        )
        assert [isinstance(one, Problem) for one in found] == [False, True, False]
        assert isinstance(found[1], Internal)
        await shelf.aclose()

    asyncio.run(run())


def test_a_model_that_cannot_run_is_refused(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    given = version(workshop.torch("bert"))
    monkeypatch.setattr(loaded.Reader, "warm", lambda self, batch: os.stat("/nowhere/at/all"))  # noqa: PTH116
    with pytest.raises(loaded.Broken, match="cannot be run here"):
        loaded.opened(given, model("text-classification", given))


def test_it_is_warm_alone_and_full(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    given, seen = version(workshop.torch("bert")), list[int]()
    real = loaded.Reader.run

    def run(self: loaded.Reader, rows: Sequence[loaded.Row]) -> Any:
        seen.append(len(rows))
        return real(self, rows)

    monkeypatch.setattr(loaded.Reader, "run", run)
    loaded.opened(given, model("text-classification", given))
    assert seen == [1, 8]
