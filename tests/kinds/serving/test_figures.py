"""Looks at workers: what two of them come to, and one at a worker that runs."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from gamma_orch.core.address import Address
from gamma_orch.core.observation import Seen, Unreadable
from gamma_orch.core.provider import Asked, Opcode, Task
from gamma_orch.kinds.serving import figures
from gamma_orch.kinds.serving.figures import Look, Unseen, between, percentile
from gamma_orch.kinds.serving.house import House
from gamma_orch.kinds.serving.scaling_policy import ScalingPolicyProvider, normalise
from gamma_orch.targets import Targets
from tests.app.running import Running, bundle
from tests.kinds.serving.specs import scaling

POLICY = Address("ScalingPolicy", "api")
# Running leaves the log of a worker open.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
BOUNDS = {"0.01": 0.0, "0.1": 0.0, "1.0": 0.0, "+Inf": 0.0}


def at(seconds: float, cpu: float = 0.0, queue: float | None = 0.0, **more: Any) -> Look:
    """A look at two workers that have used as much processor as each other."""
    workers = more.get("workers", ("1:100", "2:101"))
    return Look(seconds, dict.fromkeys(workers, cpu), queue, more.get("latencies", BOUNDS))


# -- two looks -----------------------------------------------------------------------------------


def test_processor_is_a_share_of_a_core_of_each_worker():
    found = between([at(100, cpu=7)], at(160, cpu=49), 60)
    assert (found.workers, found.seconds) == (2, 60)
    assert found.measured["cpu"] == pytest.approx(0.7)


def test_the_queue_is_the_mean_of_the_looks():
    looks = [at(90, queue=100), at(100, queue=2), at(130, queue=4)]
    found = between(looks, at(160, queue=12), 60)
    assert found.measured["queue"] == 3  # 18 texts at the last three looks, of two workers


def test_latencies_are_those_between_the_looks():
    before, after = {**BOUNDS, "1.0": 1000.0}, {**BOUNDS, "0.01": 90.0, "0.1": 10.0, "1.0": 1000.0}
    found = between([at(100, latencies=before)], at(160, latencies=after), 60)
    assert found.requests == 100
    assert found.measured["p95"] == pytest.approx(0.055)  # half of the way from 10 ms to 100 ms


def test_the_youngest_look_that_is_a_window_old_counts():
    looks = [at(0), at(90, cpu=10), at(100, cpu=20), at(101, cpu=60)]
    found = between(looks, at(160, cpu=80), 60)
    assert (found.seconds, found.measured["cpu"]) == (60, 1.0)


def test_before_a_window_is_over_it_is_the_oldest():
    assert between([at(140), at(150)], at(160), 60).seconds == 20


def test_the_first_look_tells_nothing():
    found = between([], at(160), 60)
    assert (found.seconds, found.measured) == (0, {})


@pytest.mark.parametrize("workers", [("1:100",), ("1:100", "2:102"), ("1:100", "2:101", "3:103")])
def test_other_workers_are_another_story(workers: tuple[str, ...]):
    found = between([at(90, workers=workers), at(130)], at(160), 60)
    assert found.seconds == 30


def test_what_a_look_does_not_know_is_left_out():
    blind = Look(100, at(0).cpu, None, None)
    assert between([blind], at(160), 60).measured.keys() == {"cpu", "queue"}
    assert between([at(100)], Look(160, at(0).cpu, None, None), 60).measured.keys() == {"cpu"}


def test_a_counter_that_began_anew_is_no_negative_number_of_requests():
    before, after = {**BOUNDS, "0.01": 500.0}, {**BOUNDS, "0.01": 30.0, "0.1": 20.0}
    found = between([at(100, latencies=before)], at(160, latencies=after), 60)
    assert (found.requests, found.measured["p95"] > 0) == (20, True)


def test_where_nobody_asked_nobody_waited():
    assert between([at(100)], at(160), 60).measured["p95"] == 0.0


def test_beyond_the_last_bound_nobody_knows():
    assert percentile({**BOUNDS, "+Inf": 3.0}, 0.95) == 1.0


kept = st.fixed_dictionaries({bound: st.integers(0, 1000).map(float) for bound in BOUNDS})


@given(kept, st.floats(0.01, 1.0), st.sampled_from(sorted(BOUNDS)))
def test_a_percentile_lies_between_the_bounds_and_grows(counts: Mapping[str, float], share: float, slow: str):
    found = percentile(counts, share)
    assert 0 <= found <= 1.0
    assert percentile(counts, min(1.0, share + 0.1)) >= found
    assert percentile({**counts, "+Inf": counts["+Inf"] + 1000.0}, share) >= found


# -- looks that are remembered -------------------------------------------------------------------


def test_looks_are_remembered_for_a_while(tmp_path: Path):
    path = tmp_path / "a.looks"
    looks = [at(10), at(20, queue=None), Look(30, {"1:2": 0.5}, 1.5, None)]
    figures.remember(path, looks, since=20)
    assert figures.remembered(path) == looks[1:]
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_more_than_a_hundred(tmp_path: Path):
    figures.remember(tmp_path / "a", [at(n) for n in range(figures.MANY + 5)], since=0)
    assert [one.at for one in figures.remembered(tmp_path / "a")] == list(range(5, figures.MANY + 5))


@pytest.mark.parametrize("text", ["", "{", "{}", '[{"at": 1}]', '[{"at": 1, "cpu": 2, "queue": 3}]'])
def test_what_cannot_be_read_is_forgotten(tmp_path: Path, text: str):
    (tmp_path / "a").write_text(text)
    assert figures.remembered(tmp_path / "a") == []
    assert figures.remembered(tmp_path / "b") == []


# -- a worker that runs --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state of a project in whose dev a service runs, with one worker and no models."""
    root = tmp_path_factory.mktemp("state")
    home = root / "dev" / "service-api"
    with Running(home, bundle({})) as running, running.client() as client:
        (home / "bundles" / f"{House(home).current()}.fields.json").write_text('{"workers": 1}')
        for _ in range(25):
            assert client.post("/v1/models/none/predict", json={"inputs": "a"}).status_code == 404
        yield root


def look(home: Path, workers: int = 1) -> Look:
    return asyncio.run(figures.look(home, range(1, workers + 1), time.time()))


def test_a_look_at_a_worker_that_runs(state: Path):
    found = look(state / "dev" / "service-api")
    [(worker, cpu)] = found.cpu.items()
    assert worker.startswith("1:")
    assert 0 < cpu < 600
    assert found.queue == 0
    assert found.latencies is not None
    assert sum(found.latencies.values()) == 25
    assert "+Inf" in found.latencies


def test_faults_are_a_part_of_what_is_answered(state: Path, tmp_path: Path):
    answers, faults = figures.answered(state / "dev" / "service-api" / "metrics", [1])
    assert answers >= 25
    assert faults == 0
    assert figures.answered(tmp_path, [1]) == (0, 0)
    labels = ["model", "route", "status"]
    file = MmapedDict(str(tmp_path / "counter_7.db"))
    for status, count in (("200", 5.0), ("500", 3.0), ("503", 2.0)):
        key = mmap_key("gamma_requests", "gamma_requests_total", labels, ["m", "predict", status], "")
        file.write_value(key, count, 0.0)
    file.close()
    assert figures.answered(tmp_path, [7, 8]) == (10, 3)


def test_what_is_not_a_prediction_is_not_timed(state: Path):
    house = House(state / "dev" / "service-api")
    before = look(house.folder)
    url = f"http://127.0.0.1:{house.bundle(house.current()).process.port}"
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert look(house.folder).latencies == before.latencies


def test_routes_are_timed_whose_answer_is_whole():
    assert sorted(figures.ROUTES_TIMED) == ["chat", "completions", "embeddings", "predict"]


def test_a_worker_that_is_not_there(state: Path, tmp_path: Path):
    with pytest.raises(Unseen, match="worker 2 cannot be asked"):
        look(state / "dev" / "service-api", workers=2)
    with pytest.raises(Unseen, match="worker 1 cannot be asked"):
        look(tmp_path)


def targets(state: Path) -> Targets:
    return Targets("dev", state, {}, lambda tree: tree)


def task(**spec: Any) -> Task:
    fields = normalise(POLICY, scaling(**spec), lambda _: {})
    return Task("k", Opcode.CREATE, POLICY, fields, None, None, lambda tree: tree)


def recommended(provider: ScalingPolicyProvider) -> Any:
    [(_, found)] = asyncio.run(provider.observe([Asked(POLICY, None, None)])).items()
    assert isinstance(found, Seen), found
    return found.outputs


def test_a_recommendation_comes_when_the_window_is_over(state: Path):
    """And by another process than the one that looked first."""
    asyncio.run(ScalingPolicyProvider(targets(state)).apply(task(window="1m", max=2)))
    first = recommended(ScalingPolicyProvider(targets(state), lambda: 1000.0))
    assert first == {
        "recommended": None,
        "reasons": ["These workers were watched for 0 s, and the window is 60 s."],
    }
    provider = ScalingPolicyProvider(targets(state), lambda: 1060.0)
    second = recommended(provider)
    assert second["recommended"] == 1
    assert second["reasons"][0].startswith("cpu: ")
    assert second["reasons"][-1].startswith("1 run at ")
    page = provider.pages(POLICY)["recommendation"].markdown
    assert page.splitlines()[:3] == ["Workers recommended: 1.", "", f"- {second['reasons'][0]}"]


def test_deleted_it_forgets_its_looks(state: Path):
    provider = ScalingPolicyProvider(targets(state))
    asyncio.run(provider.apply(task()))
    recommended(provider)
    asyncio.run(provider.delete(task()))
    assert list((state / "dev" / "policies").iterdir()) == []


def test_a_service_that_runs_nothing_is_no_fault_of_the_policy(tmp_path: Path):
    provider = ScalingPolicyProvider(targets(tmp_path))
    asyncio.run(provider.apply(task(service="api")))
    told = recommended(provider)
    assert told == {"recommended": None, "reasons": ["Nothing is known: service-api runs no bundle."]}
    assert provider.pages(POLICY)["recommendation"].markdown.startswith("Workers recommended: none, too")
    assert provider.pages(Address("ScalingPolicy", "other")) == {}


def test_what_is_no_policy_is_not_absent(tmp_path: Path):
    provider = ScalingPolicyProvider(targets(tmp_path))
    asyncio.run(provider.apply(task()))
    (tmp_path / "dev" / "policies" / "ScalingPolicy__api.json").write_text('{"service": "api"}')
    [found] = asyncio.run(provider.observe([Asked(POLICY, None, None)])).values()
    assert isinstance(found, Unreadable)
