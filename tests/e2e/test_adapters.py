"""Adapters of one base from YAML to answers: converged by `gamma apply`, changed one by one, and refused."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.targets.supervised import Supervised, Supervisor
from tests.app.running import free_port
from tests.e2e.serving import ENVIRONMENT, key
from tests.kinds.models.project import gamma, project

pytestmark = pytest.mark.timeout(300)
BASE = """apiVersion: gamma/v1
kind: Model
metadata: {name: sentiment}
spec:
  task: text-classification
  source: {path: base}
  labels: [negative, positive]
  optimize: {level: none}
  benchmark: {batches: [1], lengths: [16], seconds: 0.05}
"""
ADAPTER = """apiVersion: gamma/v1
kind: Model
metadata: {{name: {name}}}
spec:
  task: text-classification
  source: {{path: base}}
  labels: [negative, positive]
  finetune:
    {{dataset: reviews, keep: adapter, maxSteps: 4, batch: 8, length: 32, learningRate: 0.03, seed: {seed}}}
  optimize: {{level: none}}
  benchmark: {{batches: [1], lengths: [16], seconds: 0.05}}
"""
SERVICE = """apiVersion: gamma/v1
kind: CachePolicy
metadata: {{name: answers}}
spec: {{ttl: 10m, shared: false}}
---
apiVersion: gamma/v1
kind: Service
metadata: {{name: api}}
spec:
  listen: {{port: {port}}}
  models:
    - model: sentiment
      adapters: {{films: film-critic}}
  cache: answers
  rollout: {{watch: 0s}}
  drain: 2s
  auth:
    roles: {{caller: [models, "predict:sentiment"]}}
    keys: {{operator: {{secret: "gk_${{secret.operator-key}}", roles: [caller]}}}}
"""


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        film, book = (ADAPTER.format(name=f"{of}-critic", seed=n) for n, of in enumerate(("film", "book")))
        project(folder, model=BASE, service=SERVICE.format(port=self.port), film=film, book=book)
        (folder / "environments" / "dev" / "environment.yaml").write_text(ENVIRONMENT)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / "specs" / f"{name}.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Authorization": f"Bearer {key(self.folder)}", "Content-Type": "application/json"}
        connection.request(method, path, body and json.dumps(body), headers)
        answer = connection.getresponse()
        said = json.loads(answer.read())
        connection.close()
        return answer.status, said

    def answer(self, adapter: str = "") -> Any:
        parameters = {"adapter": adapter} if adapter else {}
        body = {"inputs": "a warm film", "parameters": parameters}
        status, said = self.ask("POST", "/v1/models/sentiment/predict", body)
        assert status == 200, said
        return said

    def pids(self) -> dict[int, int]:
        slots = Supervised(Supervisor(self.folder / ".gamma" / "dev" / "supervisor")).slots("service-api")
        return {slot.number: slot.pid for slot in slots if slot.runs}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("a") / "p")
    done = gamma(place.folder, "apply", "-e", "dev", "--yes")
    try:
        assert done.code == 0, done.err
        yield place
    finally:
        gamma(place.folder, "down", "-e", "dev", "--data", "--yes")


def test_each_answers_by_its_name(place: Place):
    base, films = place.answer(), place.answer("films")
    assert base["digest"] != films["digest"]
    assert base["outputs"] != films["outputs"]
    _, listed = place.ask("GET", "/v1/models")
    assert [one["id"] for one in listed["data"]] == ["sentiment", "sentiment:films"]
    assert listed["data"][1]["versions"][0]["digest"] == films["digest"]
    body = {"inputs": "a", "parameters": {"adapter": "plays"}}
    status, said = place.ask("POST", "/v1/models/sentiment/predict", body)
    assert (status, said["detail"]) == (404, "sentiment has no such adapter. It has films.")
    plan = gamma(place.folder, "plan", "-e", "dev")
    assert plan.out == "No changes. 6 resources of dev as declared.\n"


def test_one_more_and_then_another_one_are_swaps_that_lose_nothing(place: Place):
    """The worker stays, and its base is not loaded again. Of the old adapter nothing is in the cache."""
    base, before, pids = place.answer(), place.answer("films"), place.pids()
    over, answered = threading.Event(), list[Any]()

    def ask() -> None:
        while not over.is_set():
            answered.append(place.answer("films"))
            time.sleep(0.02)

    callers = [threading.Thread(target=ask) for _ in range(3)]
    for caller in callers:
        caller.start()
    place.edit("service", "{films: film-critic}", "{films: film-critic, books: book-critic}")
    more = gamma(place.folder, "apply", "-e", "dev", "--yes")
    books = place.answer("books")
    place.edit("service", "{films: film-critic, books: book-critic}", "{films: book-critic}")
    other = gamma(place.folder, "apply", "-e", "dev", "--yes")
    after = place.answer("films")
    over.set()
    for caller in callers:
        caller.join()
    assert (more.code, other.code) == (0, 0), more.err + other.err
    assert place.pids() == pids
    assert place.answer() == base
    assert after == books
    assert after["outputs"] != before["outputs"]
    assert Counter(map(json.dumps, answered)).keys() == {json.dumps(before), json.dumps(after)}
    logs = (place.folder / ".gamma" / "dev" / "supervisor" / "logs").glob("service-api*.log*")
    loaded = [line for log in logs for line in log.read_text().splitlines() if '"loading"' in line]
    digests = [one["digest"] for one in (base, before, after)]
    assert [sum(digest[:12] in line for line in loaded) for digest in digests] == [1, 1, 1]


def test_what_does_not_fit_is_said_at_its_line(place: Place):
    place.edit("model", "level: none", "level: basic")
    done = gamma(place.folder, "validate", "-o", "json")
    place.edit("model", "level: basic", "level: none")
    [said] = done.json["diagnostics"]
    assert (said["code"], Path(said["file"]).name, said["line"]) == ("GAM807", "service.yaml", 12)
    assert "write `optimize: {level: none}` in Model/sentiment" in said["hint"]
