"""LitServe, with its batching, an API key and its defaults otherwise."""

import os
from typing import Any

import litserve as ls

from benchmarks.peers.model import answer, load


class Sentiment(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.model = load()

    def decode_request(self, request: dict[str, str]) -> str:
        return request["inputs"]

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        return answer(self.model, texts)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    os.environ["LIT_SERVER_API_KEY"] = os.environ["KEY"]
    api = Sentiment(max_batch_size=16, batch_timeout=0.002)
    workers = int(os.environ["WORKERS"])
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=workers)
    server.run(
        port=int(os.environ["PORT"]), num_api_servers=1, generate_client_file=False, log_level="warning"
    )
