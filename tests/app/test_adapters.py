"""Adapters of one base in one model of a bundle: each request is answered by the one that it names, as the
bundle of that moment has it."""

import asyncio
import gc
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from pydantic import ValidationError

from gamma_orch.app import serving, tasks
from gamma_orch.app.bundle import Adapter, ApiKey, Auth, Bundle, Cache, Model, Version
from gamma_orch.app.errors import NotFound
from gamma_orch.app.serving import NotServed, Served, Shelf
from gamma_orch.kinds.models.passes import torch_folder
from gamma_orch.runtimes.folder import Card
from tests.app import running
from tests.app.running import KEYS, Running
from tests.app.test_serving import bundle, near, request
from tests.app.tinies import TEMPLATE, changed, problem
from tests.kinds.models.passes.small import LABELS
from tests.kinds.models.tiny import texts
from tests.runtimes.tuned import Tuned

THREE = (*LABELS, "mixed")
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return Tuned(tmp_path_factory.mktemp("reads"), "bert")


@pytest.fixture(scope="module")
def writes(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    tuned = Tuned(tmp_path_factory.mktemp("writes"), "gpt2")
    (tuned.base / "chat_template.jinja").write_text(TEMPLATE)
    tuned.digest = torch_folder.digest(tuned.base)
    return tuned


@pytest.fixture(autouse=True)
def _soon_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "QUIET", 0.1)


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def alone(folder: Path) -> Version:
    return Version(digest=torch_folder.digest(folder), folder=str(folder), files=files(folder))


def adapter(folder: Path) -> Adapter:
    return Adapter(digest=torch_folder.digest(folder), folder=str(folder), files=files(folder))


def based(tuned: Tuned, adapters: dict[str, Path], **more: Any) -> Model:
    on = {name: adapter(folder) for name, folder in adapters.items()}
    settings = {"batch": 8, "queue": 2000, "deadline": 60, **more}
    return Model(task=tuned.task, versions=(alone(tuned.base),), adapters=on, **settings)


def three(tuned: Tuned) -> dict[str, Path]:
    """One of them with another number of labels, where there are labels."""
    return {name: tuned.adapter(name, n, THREE if n == 2 else LABELS) for n, name in enumerate(NAMES)}


# --- who answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["reads", "writes"])
def test_each_of_many_at_once_is_answered_by_the_one_that_it_names(which: str, request_: Any):
    """And as the model answers alone that it would be merged into."""
    tuned: Tuned = request_(which)
    adapters = three(tuned)
    merged = {
        f"m{name}": Model(task=tuned.task, versions=(alone(tuned.merged(folder)),), deadline=60)
        for name, folder in adapters.items()
    }
    merged["m"] = based(tuned, {})
    some = texts(12)

    async def run() -> None:
        shelf = Shelf()
        served = await shelf.prepare(bundle(all=based(tuned, adapters), **merged))
        digests = {name: adapter(folder).digest for name, folder in adapters.items()} | {"": tuned.digest}
        right = {
            (name, text): (await served[f"m{name}"].answer(request(tuned.task, text))).outputs[0]
            for name in digests
            for text in some
        }
        assert not near(right["one", some[0]], right["two", some[0]])

        async def one(number: int) -> None:
            name = ("", *NAMES)[number % 4]
            chosen = [some[(number + part) % len(some)] for part in range(1 + number % 3)]
            answer = await served["all"].answer(request(tuned.task, chosen, adapter=name))
            assert (answer.model, answer.digest) == ("all", digests[name])
            assert all(
                near(found, right[name, text]) for found, text in zip(answer.outputs, chosen, strict=True)
            )

        await asyncio.gather(*(one(number) for number in range(200 if which == "reads" else 60)))
        await shelf.aclose(5)

    asyncio.run(run())


@pytest.fixture
def request_(reads: Tuned, writes: Tuned) -> Any:
    return {"reads": reads, "writes": writes}.__getitem__


def test_streams_of_several_at_once(writes: Tuned):
    async def run() -> None:
        shelf = Shelf()
        served = (await shelf.prepare(bundle(m=based(writes, three(writes)))))["m"]

        async def streamed(name: str) -> str:
            asked = request("text-generation", "the film", adapter=name, max_new_tokens=20)
            assert isinstance(asked, tasks.WriteRequest)
            pieces = [piece async for piece in served.stream(asked)]
            assert pieces[-1].end is not None
            return pieces[-1].end.text

        names = ("", *NAMES) * 3
        found = await asyncio.gather(*(streamed(name) for name in names))
        apart = [await streamed(name) for name in names[:4]]
        assert found == apart * 3
        assert len(set(apart)) == 4
        await shelf.aclose(5)

    asyncio.run(run())


def test_labels_are_those_of_the_adapter(reads: Tuned):
    async def run() -> None:
        shelf = Shelf()
        served = (await shelf.prepare(bundle(m=based(reads, three(reads)))))["m"]
        for name, labels in (("", LABELS), ("one", LABELS), ("three", THREE)):
            (output,) = (await served.answer(request(reads.task, "a film", adapter=name))).outputs
            assert isinstance(output, tasks.Classified)
            assert tuple(output.scores) == labels
        await shelf.aclose()

    asyncio.run(run())


def test_one_that_is_not_there(reads: Tuned):
    async def run() -> None:
        shelf = Shelf()
        served = (await shelf.prepare(bundle(m=based(reads, three(reads)))))["m"]
        with pytest.raises(NotFound, match=r"m has no such adapter\. It has one, three, two\.") as refused:
            await served.answer(request(reads.task, "a", adapter="CANARY"))
        assert "CANARY" not in refused.value.body("1").decode()
        assert list(refused.value.faults) == [{"at": "/parameters/adapter", "says": "Take one of those."}]
        await shelf.aclose()

    asyncio.run(run())


# --- what a bundle may say ------------------------------------------------------------------------


def test_adapters_go_with_one_version(reads: Tuned):
    one = based(reads, three(reads))
    with pytest.raises(ValidationError, match="adapters go with one version"):
        Model(**{**dict(one), "versions": (*one.versions, alone(reads.merged(reads.adapter("one", 0))))})


def test_a_bundle_without_adapters_is_that_of_before(reads: Tuned):
    found = bundle(m=based(reads, {}))
    assert "adapters" not in json.loads(found.encoded())["models"]["m"]
    assert Bundle.decoded(found.encoded()).digest == found.digest
    other = bundle(m=based(reads, three(reads)))
    assert Bundle.decoded(other.encoded()) == other
    assert other.digest != found.digest


# --- what is loaded -------------------------------------------------------------------------------


def test_what_is_wrong_with_an_adapter_is_told_and_nothing_has_changed(reads: Tuned, tmp_path: Path):
    good = three(reads)
    strange = Tuned(tmp_path / "strange", "bert", seed=5)
    poisoned = reads.adapter("poisoned", 7)
    bad = based(reads, {**good, "strange": strange.adapter("s", 1), "poisoned": poisoned})
    (poisoned / "more.txt").touch()
    gone = alone(reads.base).model_copy(update={"folder": str(tmp_path / "nowhere"), "digest": "1" * 64})

    async def run() -> None:
        shelf, told = Shelf(), list[str]()
        (before,) = (await shelf.prepare(bundle(m=based(reads, good)), told.append)).values()
        assert len(told) == 4
        nowhere = Model(**{**dict(bad), "versions": (gone,)})
        with pytest.raises(NotServed) as refused:
            await shelf.prepare(bundle(m=bad, n=nowhere), told.append)
        first, second, third = sorted(refused.value.faults)
        digests = [Card.read(strange.adapter("s", 1)).base[:12], reads.digest[:12]]
        assert first.startswith("m, adapter ")
        assert second.startswith("m, adapter ")
        assert "more.txt does not belong" in first + second
        assert all(digest in first + second for digest in digests)
        assert third.startswith("n, version ")  # and nothing of its adapters, which nobody can tell of
        answer = await before.answer(request(reads.task, "a", adapter="one"))
        assert answer.digest == adapter(good["one"]).digest
        gc.collect()
        assert len(shelf._held) == 4
        await shelf.aclose()
        del refused  # and the frames that it came through
        gc.collect()
        assert not shelf._held

    asyncio.run(run())


@pytest.mark.parametrize("which", ["reads", "writes"])
def test_another_adapter_under_load_is_a_swap_without_its_base(which: str, request_: Any):
    """`two` changes from one artifact to another, and back; `new` comes and goes. No answer is lost, none is
    of another adapter than its bundle says, and what did not change is not loaded again."""
    tuned: Tuned = request_(which)
    good = three(tuned)
    other = tuned.adapter("two-b", 9)
    sets = [good, {**good, "two": other}, {**good, "new": tuned.adapter("new", 11)}, {"two": good["two"]}, {}]
    bundles = [bundle(m=based(tuned, adapters)) for adapters in sets]
    answered: Counter[str] = Counter()

    async def run() -> None:
        shelf, told = Shelf(), list[str]()
        served: Served = (await shelf.prepare(bundles[0], told.append))["m"]
        right = {}
        for folder in {*good.values(), other, tuned.adapter("new", 11)}:
            one = Model(task=tuned.task, versions=(alone(tuned.merged(folder)),), deadline=60)
            merged = (await shelf.prepare(bundle(x=one)))["x"]
            right[adapter(folder).digest] = (await merged.answer(request(tuned.task, "the film"))).outputs[0]
        right[tuned.digest] = (await served.answer(request(tuned.task, "the film"))).outputs[0]
        over, seen = False, set[str]()

        async def ask(number: int) -> None:
            while not over:
                mine = served
                names = ["", *sorted(mine.model.adapters)]
                name = names[number % len(names)]
                wanted = mine.model.adapters[name].digest if name else tuned.digest
                await asyncio.sleep(number % 4 * 0.01)  # its body comes slowly
                answer = await mine.answer(request(tuned.task, "the film", adapter=name))
                assert answer.digest == wanted
                assert near(answer.outputs[0], right[wanted])
                answered[wanted] += 1
                seen.add(name)

        callers = [asyncio.ensure_future(ask(number)) for number in range(12)]
        gone = []
        for number in (1, 0, 2, 3, 4, 0):
            seen.clear()
            async with asyncio.timeout(60):
                while not seen >= {"", *served.model.adapters}:  # noqa: ASYNC110 - what callers do is no event
                    await asyncio.sleep(0.02)
            served = (await shelf.prepare(bundles[number], told.append))["m"]
            gone.append(asyncio.ensure_future(shelf.release(bundles[number])))
        await asyncio.gather(*gone)
        over = True
        await asyncio.gather(*callers)
        assert sum(tuned.digest[:12] in one for one in told) == 1
        gc.collect()
        assert {key.digest for key in shelf._held} == {
            tuned.digest,
            *(adapter(folder).digest for folder in good.values()),
        }
        await shelf.aclose()

    asyncio.run(run())
    assert len(answered) == 6


# --- over HTTP ------------------------------------------------------------------------------------


class Api:
    def __init__(self, worker: Running, found: Bundle, client: httpx.Client) -> None:
        self.worker, self.bundle, self.client = worker, found, client

    def ask(self, name: str, adapter: str, text: str = "the film") -> httpx.Response:
        said = {"adapter": adapter} if adapter else {}
        return self.client.post(f"/v1/models/{name}/predict", json={"inputs": text, "parameters": said})

    def digest(self, name: str, adapter: str = "") -> str:
        found = self.bundle.models[name]
        return found.adapters[adapter].digest if adapter else found.versions[0].digest


@pytest.fixture(scope="module")
def api(reads: Tuned, writes: Tuned, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    models = {"mood": based(reads, three(reads)), "writer": based(writes, three(writes))}
    narrow = ApiKey(
        name="writers",
        sha256=hashlib.sha256(b"gk_writers_0123456789").hexdigest(),
        scopes=("models", "predict:writer"),
    )
    auth = running.auth()
    found = running.bundle(models, auth=Auth(keys=(*auth.keys, narrow)), cache=Cache(ttl=600))
    with Running(tmp_path_factory.mktemp("api") / "home", found) as worker, worker.client() as client:
        yield Api(worker, found, client)


def test_no_answer_is_from_the_cache_of_another_adapter(api: Api, reads: Tuned):
    names = ("", *NAMES)
    for model in ("mood", "writer"):
        for level in ("made", "l1"):
            for name in names:
                said = api.ask(model, name)
                assert said.json()["digest"] == api.digest(model, name)
                assert said.headers["x-cache"] == level
    # The same name and the same words, and another adapter: what was kept is not its answer.
    kept = api.ask("mood", "one").json()
    mood = api.bundle.models["mood"]
    on = {**mood.adapters, "one": adapter(reads.adapter("one-b", 21))}
    after = changed(
        api.bundle, models={**api.bundle.models, "mood": mood.model_copy(update={"adapters": on})}
    )
    assert "error" not in api.worker.swap(after)
    found = api.ask("mood", "one")
    assert (found.headers["x-cache"], found.json()["digest"]) == ("made", on["one"].digest)
    assert found.json()["outputs"] != kept["outputs"]
    assert api.ask("mood", "two").headers["x-cache"] == "l1"  # it is as it was
    # And back again, what was kept is right again.
    assert "error" not in api.worker.swap(api.bundle)
    again = api.ask("mood", "one")
    assert (again.headers["x-cache"], again.json()) == ("l1", kept)


def test_a_name_that_is_spelled_in_another_way_is_the_same_name(api: Api):
    """In JSON a letter may be written as its number: the cache must not go by how a body looks."""
    body = b'{"inputs": "the film", "parameters": {"\\u0061dapter": "\\u006fne"}}'
    said = api.client.post("/v1/models/mood/predict", content=body).json()
    assert said["digest"] == api.digest("mood", "one")


def test_those_that_are_not_there(api: Api):
    said = problem(api.ask("mood", "four"), 404)
    assert said["detail"] == "mood has no such adapter. It has one, three, two."
    assert said["errors"] == [{"at": "/parameters/adapter", "says": "Take one of those."}]
    stream = {"inputs": "a", "parameters": {"adapter": "four"}}
    problem(api.client.post("/v1/models/writer/stream", json=stream), 404)
    body = {"model": "writer:four", "prompt": "a"}
    said = problem(api.client.post("/v1/completions", json=body), 404)
    assert said["errors"] == [{"at": "/model", "says": "Take one of those."}]
    for name in ("writer:", ":one", "writer:one:two", "nothing:one"):
        problem(api.client.post("/v1/completions", json={**body, "model": name}), 404)
    problem(api.client.get("/v1/models/writer:four"), 404)


def test_they_are_listed_and_asked_by_clients_of_openai(api: Api):
    with openai.OpenAI(base_url=f"{api.worker.url}/v1", api_key=KEYS["all"], max_retries=0) as client:
        names = [one.id for one in client.models.list()]
        assert names == [
            *("mood", "mood:one", "mood:three", "mood:two"),
            *("writer", "writer:one", "writer:three", "writer:two"),
        ]
        found: Any = client.models.retrieve("writer:two")
        assert (found.id, found.parent) == ("writer:two", "writer")
        assert found.versions == [{"digest": api.digest("writer", "two"), "share": 1.0, "shadow": False}]
        whole = {}
        for name in ("writer", *(f"writer:{one}" for one in NAMES)):
            said = client.completions.create(model=name, prompt="the film", max_tokens=9)
            assert said.model == name
            chunks = client.completions.create(model=name, prompt="the film", max_tokens=9, stream=True)
            assert "".join(one.choices[0].text for one in chunks) == said.choices[0].text
            whole[name] = said.choices[0].text
            chat = client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": "the film"}], max_tokens=3
            )
            assert chat.model == name
        assert len(set(whole.values())) == 4
        body = {"inputs": "the film", "parameters": {"adapter": "two", "max_new_tokens": 9}}
        native = api.client.post("/v1/models/writer/predict", json=body).json()
        assert native["outputs"][0]["text"] == whole["writer:two"]
        streamed = api.client.post("/v1/models/writer/stream", json=body).text
        assert api.digest("writer", "two") in streamed


def test_the_scope_of_a_model_holds_for_its_adapters(api: Api):
    headers = {"Authorization": "Bearer gk_writers_0123456789"}
    with httpx.Client(base_url=api.worker.url, headers=headers, timeout=30) as writers:
        listed = [one["id"] for one in writers.get("/v1/models").json()["data"]]
        assert listed == ["writer", "writer:one", "writer:three", "writer:two"]
        body = {"model": "writer:one", "prompt": "the film", "max_tokens": 2}
        assert writers.post("/v1/completions", json=body).status_code == 200
        problem(writers.post("/v1/completions", json={**body, "model": "mood:one"}), 403)
        problem(writers.get("/v1/models/mood:one"), 403)
        said = {"inputs": "a", "parameters": {"adapter": "one"}}
        assert writers.post("/v1/models/writer/predict", json=said).status_code == 200
        problem(writers.post("/v1/models/mood/predict", json=said), 403)
    metrics = api.client.get("/metrics").text
    assert 'model="writer"' in metrics
    assert "writer:one" not in metrics


def test_the_document_tells_of_them(api: Api):
    schemas = api.client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("ReadParameters", "WriteParameters"):
        assert "adapter of the model" in schemas[name]["properties"]["adapter"]["description"]
    assert "model:adapter" in schemas["CompletionBody"]["properties"]["model"]["description"]
