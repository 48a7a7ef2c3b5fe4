"""BentoML, with its adaptive batching and its defaults otherwise. It has no authentication of its own."""

import os
from typing import Any

import bentoml

from benchmarks.peers.model import answer, load


@bentoml.service(workers=int(os.environ["WORKERS"]), traffic={"timeout": 30, "max_concurrency": 256})
class Sentiment:
    def __init__(self) -> None:
        self.model = load()

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=1000)
    def predict(self, inputs: list[str]) -> list[dict[str, Any]]:
        return answer(self.model, inputs)
