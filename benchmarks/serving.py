"""What a request costs: ours beside a naive app, LitServe and BentoML, all with the same model. One table.

    python -m benchmarks.serving [--peers VENV] [--seconds N] [--workers N]

The model is `sentiment` at level ultra, of the candidates that `benchmarks.models` has built (run that first:
else they are built here, for an hour) the fastest for such texts. Ours is a Service of a project that is
written here, with keys, an exact limit for each caller, metrics and an access log, brought up by `gamma
apply`. Each server is asked by `wrk` with 64 connections on the same machine: once so that 95 of 100 requests
are for 500 texts that are asked again and again and five for new ones, and once with new texts only. Ours is
asked a third time, for texts that are drawn from 10,000 by Zipf's law with the exponent 1.1; how many answers
came from a cache is its own count, after a warm-up. `--peers`: a virtual environment with litserve, bentoml,
onnxruntime, openvino, tokenizers.

Processor time is that of the server's own processes, children included, by the kernel's count; Valkey's
stands beside. Memory is the proportional set size of the same processes after the run.
"""

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from benchmarks.models import ROOT
from benchmarks.models import write_project as write_models
from gamma_orch.store.artifacts import Artifacts
from gamma_orch.targets.embedded_valkey import EmbeddedValkey
from gamma_orch.targets.supervised import Supervised, Supervisor

CONNECTIONS = 64
TURNS = 5
HOT, NEW_IN = 500, 20  # texts asked again and again; every so many requests one is new
ZIPF, TEXTS = 1.1, 10_000
# What the model has to be fast at: some texts of some 20 tokens, each batch another number of them.
TRAFFIC: dict[str, Any] = {"batches": [1, 2, 4], "lengths": [24], "traffic": "mixed"}
AGAIN, NEW, DRAWN = "95 % again", "new texts", "Zipf"
LUA = """
local n, seed = 0, {seed}
local words = {{ "warm", "clever", "dull", "bright", "slow", "moving", "cold", "lovely" }}
local shares, total = {{}}, 0
if {drawn} then
  for i = 1, {texts} do
    total = total + 1 / i ^ {zipf}
    shares[i] = total
  end
  math.randomseed(seed)
end
local function drawn()
  local wanted, low, high = math.random() * total, 1, {texts}
  while low < high do
    local middle = math.floor((low + high) / 2)
    if shares[middle] < wanted then low = middle + 1 else high = middle end
  end
  return low
end
local kept = {{}}
request = function()
  n = n + 1
  local text, hot
  if {drawn} then
    local i = drawn()
    text = "a film of many that came as number " .. i .. " and is " .. words[i % 8 + 1]
  elseif {new} or n % {every} == 0 then
    text = "a film with number " .. seed .. " " .. n .. " and " .. words[n % 8 + 1] .. " to its last minute"
  else
    hot = (n * 7919) % {hot}
    -- Made once: the generator shares the machine with the server that it asks.
    if kept[hot] then return kept[hot] end
    local i = hot
    text = "a film that is hot number " .. i .. " and " .. words[i % 8 + 1] .. " to its very last minute"
  end
  local body = '{{"inputs": {quoted}}}'
  local headers = {{ ["Content-Type"] = "application/json", ["Authorization"] = "Bearer {key}" }}
  local made = wrk.format("POST", "{path}", headers, body)
  if hot then kept[hot] = made end
  return made
end
"""


@dataclass(frozen=True)
class Server:
    name: str
    url: str
    path: str
    key: str
    pids: tuple[int, ...]  # the roots of its processes
    beside: int = 0  # Valkey's
    batched: bool = False  # whether the input is a list


@dataclass(frozen=True)
class Found:
    rate: float
    p50: float  # ms
    p99: float
    bad: int
    cpu: float  # microseconds a request
    valkey: float
    memory: float  # MB


def cached(server: Server) -> tuple[int, int]:
    """Answers from a cache so far, and all answers, of all workers."""
    headers = {"Authorization": f"Bearer {server.key}"}
    text = httpx.get(f"{server.url}/metrics", headers=headers).text
    found = re.findall(r'^gamma_answers_total\{cache="(\w+)",.*\} ([\d.e+]+)$', text, re.MULTILINE)
    by = {name: float(number) for name, number in found}
    return int(sum(by.values()) - by.get("made", 0.0)), int(sum(by.values()))


def processes(roots: tuple[int, ...]) -> list[psutil.Process]:
    found = []
    for root in roots:
        process = psutil.Process(root)
        found += [process, *process.children(recursive=True)]
    return found


def cpu(roots: tuple[int, ...]) -> float:
    total = 0.0
    for process in processes(roots):
        times = process.cpu_times()
        total += times.user + times.system
    return total


def asked(server: Server, kind: str, seconds: float, seed: int) -> Found:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        quoted = "[\"' .. text .. '\"]" if server.batched else "\"' .. text .. '\""
        script.write(
            LUA.format(
                seed=seed, new=str(kind == NEW).lower(), every=NEW_IN, hot=HOT, path=server.path,
                key=server.key, quoted=quoted, drawn=str(kind == DRAWN).lower(), texts=TEXTS, zipf=ZIPF,
            )
        )  # fmt: skip
        script.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", "--latency", "--timeout", "20s", "-s", script.name]
        before, beside = cpu(server.pids), cpu((server.beside,)) if server.beside else 0.0
        out = subprocess.run(
            [*command, f"-d{seconds:g}", server.url], text=True, capture_output=True, check=True
        ).stdout
        used = cpu(server.pids) - before
        valkey = cpu((server.beside,)) - beside if server.beside else 0.0
    count = int(re.search(r"(\d+) requests in", out)[1])  # type: ignore[index]
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    lost = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    bad = (int(refused[1]) if refused else 0) + (sum(map(int, lost.groups())) if lost else 0)
    memory = sum(process.memory_full_info().pss for process in processes(server.pids)) / 1e6
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])  # type: ignore[index]
    return Found(
        rate, _ms(out, "50%"), _ms(out, "99%"), bad, 1e6 * used / count, 1e6 * valkey / count, memory
    )


def _ms(out: str, share: str) -> float:
    found = re.search(rf"^\s+{share}\s+([\d.]+)(us|ms|s)\s*$", out, re.MULTILINE)
    assert found is not None, out
    return float(found[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[found[2]]


# --- servers --------------------------------------------------------------------------------------


def write_project(folder: Path, models: Path, port: int, workers: int) -> None:
    write_models(folder, None)
    path = folder / "specs" / "models.yaml"
    documents = list(yaml.safe_load_all(path.read_text()))
    path.unlink()
    [data] = [d for d in documents if d["kind"] == "Dataset"]
    [served] = [d for d in documents if d["metadata"]["name"] == "sentiment-ultra"]
    served["metadata"]["name"] = "sentiment"
    served["spec"]["benchmark"] = {"seconds": 3.0, **TRAFFIC}
    kept = [data, served]
    service: dict[str, Any] = {
        "listen": {"port": port},
        "workers": workers,
        "models": [{"name": "sentiment", "versions": [{"model": "sentiment"}]}],
        "cache": "answers",
        "limits": {"each": {"by": "principal", "rate": "1000000/s"}},
        "auth": {
            "roles": {"caller": ["predict", "metrics"]},
            "keys": {"bench": {"secret": "${secret.bench-key}", "roles": ["caller"]}},
        },
    }
    cache = {"apiVersion": "gamma/v1", "kind": "CachePolicy", "metadata": {"name": "answers"}, "spec": {}}
    api = {"apiVersion": "gamma/v1", "kind": "Service", "metadata": {"name": "api"}, "spec": service}
    environment = {
        "apiVersion": "gamma/v1",
        "kind": "Environment",
        "metadata": {"name": "dev"},
        "spec": {
            "secrets": {"bench-key": {"generate": {"length": 40}}},
            "builds": {"store": str(models / ".gamma" / "artifacts")},
        },
    }
    for name, bodies in {
        "specs/all.yaml": [*kept, cache, api],
        "environments/dev/environment.yaml": [environment],
    }.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(yaml.safe_dump_all(bodies, sort_keys=False))


def model(models: Path) -> Path:
    """The folder of the artifact that ours serves."""
    store = Artifacts(str(models / ".gamma" / "artifacts"), models / ".gamma" / "builds")
    body = store.pointer("dev", "Model/sentiment")
    artifact = store.find(body["key"]) if body else None
    assert artifact is not None
    return store.folder(artifact)


def gamma(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "gamma_orch.cli", *arguments, "-C", str(folder)]
    subprocess.run(command, check=True, stdout=sys.stderr)


@contextmanager
def ours(folder: Path, port: int) -> Iterator[Server]:
    gamma(folder, "apply", "-e", "dev", "--yes")
    state = folder / ".gamma" / "dev"
    try:
        slots = Supervised(Supervisor(state / "supervisor")).slots("service-api")
        key = (state / "secrets" / "bench-key").read_text().strip()
        valkey = int((EmbeddedValkey(state / "valkey-main").home / "pid").read_text())
        pids = tuple(slot.pid for slot in slots if slot.runs)
        url = f"http://127.0.0.1:{port}"
        yield Server("gamma", url, "/v1/models/sentiment/predict", key, pids, valkey)
    finally:
        gamma(folder, "down", "-e", "dev")


@contextmanager
def peer(
    name: str, command: list[str], path: str, environment: Mapping[str, str], valkey: int = 0
) -> Iterator[Server]:
    batched = "bentoml" in name
    url = f"http://127.0.0.1:{environment['PORT']}"
    with (
        Path(os.devnull).open("w") as nothing,
        Path(f"/tmp/{name.split(maxsplit=1)[0]}.log").open("w") as log,
    ):
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=nothing, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            body: Any = {"inputs": ["hello"] if batched else "hello"}
            headers = {"Authorization": f"Bearer {environment['KEY']}", "X-Api-Key": environment["KEY"]}
            end = time.monotonic() + 120
            while True:
                try:
                    answer = httpx.post(url + path, json=body, headers=headers, timeout=20)
                    if answer.status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{name} did not come up; see {log.name}")
                time.sleep(0.2)
            yield Server(name, url, path, environment["KEY"], (process.pid,), valkey, batched)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def row(name: str, kind: str, found: Found) -> str:
    cells = (
        name, kind, f"{found.rate:,.0f}", f"{found.p50:.1f}", f"{found.p99:.1f}", str(found.bad),
        f"{found.cpu:,.0f}", f"{found.valkey:,.0f}" if found.valkey else "", f"{found.memory:,.0f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def in_turns(ours: Server, theirs: Server, seconds: float, seed: int) -> str:
    """How many times as many requests, by pairs: a machine whose speed moves is no slower for one of them."""
    pairs = []
    for turn in range(TURNS):
        found = [asked(one, AGAIN, seconds, seed + turn) for one in (ours, theirs)]
        pairs.append((found[0].rate, found[1].rate, found[0].cpu, found[1].cpu))
    rates, others, cpus, their_cpus = (statistics.median(one) for one in zip(*pairs, strict=True))
    times = sorted(mine / other for mine, other, _, _ in pairs)
    return (
        f"{ours.name} and {theirs.name} in {TURNS} turns, {AGAIN}, medians: {rates:,.0f} and {others:,.0f} "
        f"requests/s, {cpus:,.0f} and {their_cpus:,.0f} us: {statistics.median(times):.1f} times "
        f"({times[0]:.1f} to {times[-1]:.1f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--models", type=Path, default=ROOT / ".gamma" / "benchmarks" / "models")
    parser.add_argument("--keep", type=Path, default=ROOT / ".gamma" / "benchmarks" / "serving")
    asked_for = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not there. On Debian: apt-get install wrk.")
    keep, models, port = asked_for.keep.resolve(), asked_for.models.resolve(), 8731
    write_project(keep, models, port, asked_for.workers)
    environment = {
        "KEY": "k" * 40,
        "PORT": str(port + 1),
        "WORKERS": str(asked_for.workers),
        "PYTHONPATH": str(ROOT),
    }
    print("| server | asked | requests/s | p50 ms | p99 ms | not answered | CPU us | Valkey us | MB |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    seed = int(time.time())

    def measure(server: Server, *kinds: str) -> None:
        nonlocal seed
        for kind in kinds:
            asked(server, kind, 3.0, seed + 1)  # warms caches and pools up
            seed += 2
            found = asked(server, kind, asked_for.seconds, seed)
            print(row(server.name, kind, found), flush=True)

    with ours(keep, port) as server:
        environment["MODEL"] = str(model(models))
        measure(server, AGAIN, NEW)
        asked(server, DRAWN, 2 * asked_for.seconds, seed + 1)
        before = cached(server)
        found = asked(server, DRAWN, 2 * asked_for.seconds, seed + 2)
        hits, answers = (now - then for now, then in zip(cached(server), before, strict=True))
        said = f"{DRAWN}: {hits / answers:.2%} of {answers:,} from a cache"
        print(row(server.name, said, found), flush=True)
        valkey = EmbeddedValkey(keep / ".gamma" / "dev" / "valkey-naive")
        environment["VALKEY"] = valkey.ensure()
        try:
            pid = int((valkey.home / "pid").read_text())
            command = [sys.executable, "-m", "uvicorn", "benchmarks.peers.naive:app"]
            command += ["--port", environment["PORT"], "--workers", str(asked_for.workers), "--no-access-log"]
            with peer("FastAPI with five middlewares", command, "/predict", environment, pid) as naive:
                measure(naive, AGAIN, NEW)
                turns = in_turns(server, naive, asked_for.seconds / 2, seed + 3)
        finally:
            valkey.destroy()
    if asked_for.peers:
        python, bento = asked_for.peers / "bin" / "python", asked_for.peers / "bin" / "bentoml"
        litserve = [str(python), "-m", "benchmarks.peers.with_litserve"]
        with peer("LitServe", litserve, "/predict", environment) as server:
            measure(server, NEW)
        serve = [
            str(bento),
            "serve",
            "benchmarks.peers.with_bentoml:Sentiment",
            "--port",
            environment["PORT"],
        ]
        with peer("bentoml", serve, "/predict", environment) as server:
            measure(server, NEW)
    print(f"\n{turns}")


if __name__ == "__main__":
    main()
