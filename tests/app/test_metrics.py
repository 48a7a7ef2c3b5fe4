"""What is counted, by one process and by several that come and go."""

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gamma_orch.app.metrics import Recorder

ROOT = Path(__file__).parents[2]


def read(page: bytes) -> dict[str, float]:
    """Each sample of a page by its name and labels, as it is written."""
    samples = {}
    for line in page.decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            assert name not in samples
            samples[name] = float(value)
    return samples


class Process:
    """A worker: does what it is told, line by line."""

    def __init__(self, directory: Path, slot: int) -> None:
        code = (
            "import sys; from pathlib import Path; from gamma_orch.app.metrics import Recorder\n"
            f"r = Recorder(Path({str(directory)!r}), {slot})\n"
            "r.bundle('d' * 64, ['m'])\n"
            "print('ready', flush=True)\n"
            "for line in sys.stdin:\n    exec(line); print('done', flush=True)\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin
        assert self._process.stdout
        self._in, self._out = self._process.stdin, self._process.stdout
        if self._out.readline() != "ready\n":
            raise RuntimeError(self._process.communicate()[1])

    def tell(self, line: str) -> "Process":
        self._in.write(line + "\n")
        self._in.flush()
        assert self._out.readline() == "done\n", self._process.communicate()[1]
        return self

    def page(self, directory: Path) -> dict[str, float]:
        file = directory.parent / "page"
        self.tell(f"Path({str(file)!r}).write_bytes(r.exposition())")
        return read(file.read_bytes())

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "metrics"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_request() -> None:
    recorder = Recorder()
    recorder.bundle("d" * 64, ["m"])
    for seconds in (0.0004, 0.003, 20.0):
        recorder.request("predict", "m", 200, seconds, "local")
    recorder.request("health", "", 503, 0.1)
    page = read(recorder.exposition())
    assert page['gamma_requests_total{model="m",route="predict",status="200"}'] == 3
    assert page['gamma_requests_total{model="",route="health",status="503"}'] == 1
    assert page['gamma_answers_total{cache="local",model="m"}'] == 3
    of = 'model="m",route="predict"}'
    assert page['gamma_request_seconds_bucket{le="0.0005",' + of] == 1
    assert page['gamma_request_seconds_bucket{le="0.005",' + of] == 2
    assert page['gamma_request_seconds_bucket{le="10.0",' + of] == 2
    assert page['gamma_request_seconds_bucket{le="+Inf",' + of] == 3
    assert page["gamma_request_seconds_count{" + of] == 3
    assert page["gamma_request_seconds_sum{" + of] == pytest.approx(20.0034)


def test_everything_else() -> None:
    recorder = Recorder()
    recorder.bundle("d" * 64, ["m"])
    recorder.tokens("m", 5, 7)
    recorder.batch("m", 3, [0.001, 0.2])
    recorder.refused("unauthenticated")
    recorder.refused("limited", "per-key")
    recorder.shadow("m", True)
    recorder.shadow("m", False)
    recorder.security("login", "wrong")
    recorder.dropped("access", 4)
    recorder.lag(0.002)
    page = read(recorder.exposition())
    assert page['gamma_tokens_total{direction="in",model="m"}'] == 5
    assert page['gamma_tokens_total{direction="out",model="m"}'] == 7
    assert page['gamma_batch_texts_bucket{le="4.0",model="m"}'] == 1
    assert page['gamma_queue_wait_seconds_count{model="m"}'] == 2
    assert page['gamma_refused_total{limit="",reason="unauthenticated"}'] == 1
    assert page['gamma_refused_total{limit="per-key",reason="limited"}'] == 1
    assert page['gamma_shadow_answers_total{agrees="yes",model="m"}'] == 1
    assert page['gamma_shadow_answers_total{agrees="no",model="m"}'] == 1
    assert page['gamma_security_events_total{kind="login",reason="wrong"}'] == 1
    assert page['gamma_security_events_total{kind="token",reason="expired"}'] == 0  # from the beginning
    assert page['gamma_log_rows_dropped_total{log="access"}'] == 4
    assert page['gamma_log_rows_dropped_total{log="requests"}'] == 0
    assert page["gamma_loop_lag_seconds_count"] == 1


def test_names_that_no_bundle_declares_make_no_series() -> None:
    recorder = Recorder()
    recorder.bundle("d" * 64, ["m"])
    before = len(read(recorder.exposition()))
    for number in range(50):
        recorder.request("predict", f"invented-{number}", 404, 0.001, "local")
    page = read(recorder.exposition())
    assert page['gamma_requests_total{model="unknown",route="predict",status="404"}'] == 50
    assert "invented" not in "".join(page)
    assert len(page) == before + 1 + 1 + 17  # requests, answers, and a histogram
    assert len(recorder._requests) == 1


def test_only_the_bundle_that_runs_is_told() -> None:
    recorder = Recorder()
    for digest in ("a" * 64, "b" * 64, "c" * 64, "b" * 64):
        recorder.bundle(digest)
    infos = [name for name in read(recorder.exposition()) if name.startswith("gamma_bundle_info")]
    assert infos == ['gamma_bundle_info{digest="' + "b" * 64 + '"}']


def test_valkey_is_told_of_only_where_there_is_one() -> None:
    recorder = Recorder()
    assert "gamma_valkey_up" not in read(recorder.exposition())
    recorder.valkey(False)
    assert read(recorder.exposition())["gamma_valkey_up"] == 0
    recorder.valkey(True)
    assert read(recorder.exposition())["gamma_valkey_up"] == 1


def test_gauges_are_sampled_by_the_beat() -> None:
    recorder = Recorder()
    queue = [1, 2, 3]
    recorder.watch("queue", lambda: len(queue), "m")  # before the bundle is told of: its models are loaded
    recorder.bundle("d" * 64, ["m"])
    recorder.watch("in_flight", lambda: 2)
    recorder.watch("clients", lambda: 9)

    async def run() -> None:
        beat = asyncio.create_task(recorder.beat(0.01))
        await asyncio.sleep(0.05)
        beat.cancel()

    asyncio.run(run())
    page = read(recorder.exposition())
    assert page['gamma_queue_texts{model="m"}'] == 3
    assert page["gamma_requests_in_flight"] == 2
    assert page["gamma_live_clients"] == 9
    assert page["gamma_loop_lag_seconds_count"] >= 1
    recorder.watch("queue", None, "m")
    recorder.sample()
    assert read(recorder.exposition())['gamma_queue_texts{model="m"}'] == 0


def test_names_and_units_are_as_prometheus_wants_them() -> None:
    recorder = Recorder()
    families = {one.name: one for one in text_string_to_metric_families(recorder.exposition().decode())}
    assert len(families) == 15
    for name, family in families.items():
        assert re.fullmatch(r"gamma_[a-z_]+", name)
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")
        assert not name.endswith("_created")


def test_the_sums_are_told_as_values() -> None:
    recorder = Recorder()
    recorder.bundle("d" * 64, ["m", "n"])
    recorder.request("predict", "m", 200, 0.5)
    recorder.request("predict", "n", 500, 0.25)
    told = recorder.snapshot()
    assert told["gamma_requests_total"] == 2
    assert told["gamma_request_seconds_sum"] == 0.75
    assert told["gamma_request_seconds_count"] == 2
    assert not any(name.endswith("_bucket") for name in told)


def test_cached_answers_and_failures_are_told_apart() -> None:
    recorder = Recorder()
    recorder.bundle("d" * 64, ["m"])
    nothing = recorder.snapshot()
    assert nothing["gamma_answers_cached_total"] == nothing["gamma_requests_failed_total"] == 0
    for level in ("made", "made", "l1", "l2", "stale", "shared"):
        recorder.request("predict", "m", 200, 0.001, level)
    for status in (400, 429, 499, 500, 503):
        recorder.request("chat", "m", status, 0.001)
    told = recorder.snapshot()
    assert told["gamma_answers_total"] == 6
    assert told["gamma_answers_cached_total"] == 4
    assert told["gamma_requests_failed_total"] == 2
    assert told["gamma_requests_total"] == 11


def test_two_workers_are_added_up_and_one_that_is_killed_goes_on_counting(
    directory: Path, stack: ExitStack
) -> None:
    request = "r.request('predict', 'm', 200, 0.01)"
    counted = 'gamma_requests_total{model="m",route="predict",status="200"}'
    first = stack.enter_context(Process(directory, 0))
    second = stack.enter_context(Process(directory, 1))
    for _ in range(3):
        first.tell(request)
    second.tell(request)
    for worker in (first, second):
        page = worker.page(directory)
        assert page[counted] == 4
        assert page['gamma_request_seconds_bucket{le="0.01",model="m",route="predict"}'] == 4
        assert page['gamma_request_seconds_bucket{le="0.005",model="m",route="predict"}'] == 0
        assert page['gamma_request_seconds_count{model="m",route="predict"}'] == 4
        assert page['gamma_bundle_info{digest="' + "d" * 64 + '"}'] == 2
    files = sorted(file.name for file in directory.iterdir())

    second.kill()
    again = stack.enter_context(Process(directory, 1))
    assert again.page(directory)[counted] == 4
    again.tell(request)
    assert first.page(directory)[counted] == 5
    assert sorted(file.name for file in directory.iterdir()) == files
    assert {file.split("_")[-1].split(".")[0] for file in files} == {"0", "1"}


def test_gauges_of_a_dead_worker_are_told_no_more(directory: Path, stack: ExitStack) -> None:
    first = stack.enter_context(Process(directory, 0))
    second = stack.enter_context(Process(directory, 1))
    for number, worker in enumerate((first, second)):
        worker.tell("r.watch('in_flight', lambda: 5); r.sample()")
        worker.tell(f"r.valkey({number} == 0)")
    page = first.page(directory)
    assert page["gamma_requests_in_flight"] == 10
    assert page["gamma_valkey_up"] == 0
    second.kill()
    page = first.page(directory)
    assert page["gamma_requests_in_flight"] == 5
    assert page["gamma_valkey_up"] == 1
    second = stack.enter_context(Process(directory, 1))
    page = first.page(directory)
    assert page["gamma_requests_in_flight"] == 5  # the new one begins at 0


def test_a_slot_has_one_process(directory: Path, stack: ExitStack) -> None:
    stack.enter_context(Process(directory, 0))
    with pytest.raises(RuntimeError, match="belongs to another process that still runs"):
        Process(directory, 0)


def test_a_worker_waits_for_the_one_before_to_go(directory: Path, stack: ExitStack) -> None:
    leaving = stack.enter_context(Process(directory, 0))
    leaving.tell("import threading, os; threading.Timer(0.5, os._exit, (0,)).start()")
    stack.enter_context(Process(directory, 0))


def test_what_a_power_cut_left_does_not_keep_a_worker_from_starting(
    directory: Path, stack: ExitStack
) -> None:
    with Process(directory, 0) as worker, Process(directory, 7) as other:
        worker.tell("r.request('predict', 'm', 200, 0.01)")
        other.tell("r.request('predict', 'm', 200, 0.01)")
    for slot in (0, 7):
        (directory / f"counter_{slot}.db").write_bytes(b"\xff\x7f\0\0" + b"\xfe" * 100)
    again = stack.enter_context(Process(directory, 0))
    again.tell("r.request('predict', 'm', 200, 0.01)")
    page = again.page(directory)
    assert page['gamma_requests_total{model="m",route="predict",status="200"}'] == 1
    assert page['gamma_request_seconds_count{model="m",route="predict"}'] == 3


def test_a_process_has_one_slot(directory: Path, stack: ExitStack) -> None:
    worker = stack.enter_context(Process(directory, 0))
    worker.tell("import pytest")
    worker.tell(
        f"with pytest.raises(RuntimeError, match='a slot already'): Recorder(Path({str(directory)!r}), 1)"
    )
