"""A function of somebody else's: what it gives, and each way in which it misbehaves."""

import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from gamma_orch.exporter.contract import SECONDS, UP
from tests.exporter.running import Exporter, Series, series

SECRET = "hunter2hunter2"
MODULE = """
import ctypes, os, subprocess, sys, time
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import HistogramMetricFamily, InfoMetricFamily

calls = 0

def counts():
    global calls
    calls += 1
    yield "calls", calls
    yield "pid", os.getpid()

def tuples(key, more=2):
    yield "plain", 1
    yield "labelled", more, {"key": key}
    yield "labelled", True, {"key": "b"}

def families():
    gauge = GaugeMetricFamily("g", "A gauge.", labels=["a"])
    gauge.add_metric(["x"], 1.5)
    gauge.add_metric(["y"], 2.5)
    yield gauge
    yield CounterMetricFamily("c", "A counter.", value=7)
    yield HistogramMetricFamily("h", "A histogram.", buckets=[("0.1", 1), ("+Inf", 3)], sum_value=2.0)
    yield InfoMetricFamily("i", "An info.", value={"version": "1"})

def forever(mark):
    subprocess.Popen(["sleep", "1000"])
    open(mark, "w").write(f"{os.getpid()}")
    time.sleep(1000)

def deaf():
    import signal
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass

def sometimes(mark):
    if not os.path.exists(mark):
        open(mark, "w").close()
        time.sleep(1000)
    yield "well", 1

def dies():
    os._exit(3)

def exits():
    sys.exit(4)

def crashes():
    ctypes.string_at(0)

def raises(key):
    yield "before", 1
    raise ValueError(key)

def deep(key):
    yield "n", int(key)

def prints():
    print('{"families": [{"name": "fake", "type": "gauge", "help": "", "samples": [["fake", {}, 1]]}]}')
    sys.stderr.write("\\\\x00\\\\xff garbage\\\\n")
    os.write(1, b"\\xff\\xfe\\n")
    yield "true", 1

def reads():
    yield "read", len(sys.stdin.read())

def floods():
    for _ in range(3000):
        print("x" * 1000)
    yield "flooded", 1

def endless():
    while True:
        yield "n", 1, {"x": str(time.time())}

def huge():
    yield "n", 1, {"x": "x" * 5_000_000}

def garbage():
    for number in range(3, 20):  # whatever is open: one is the line to the exporter
        try:
            os.write(number, b"garbage\\n")
        except OSError:
            pass
    yield "n", 1

def nothing():
    return None

def thing():
    yield {"n": 1}

def text():
    yield "n", "a lot"

def clash():
    yield "n", 1, {"a": "b"}
    yield "n", 2, {"a": "b"}
    yield "other", 1

def kinds():
    yield "n", 1
    yield CounterMetricFamily("n_total", "n", value=2)
    yield GaugeMetricFamily("n_total", "n", value=3)

def reserved():
    yield "gamma_collector_up", 1

def misnamed():
    yield "a-b", 1

def mislabelled():
    yield "n", 1, {"a-b": "c"}

not_callable = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("somebody")
    (path / "somebody.py").write_text(MODULE)
    (path / "broken.py").write_text(f"raise ValueError({SECRET!r})\n")
    return path


class Asked:
    def __init__(self, exporter: Exporter, name: str, folder: Path) -> None:
        self.exporter, self.name, self._folder = exporter, name, folder

    def put(self, function: str, timeout: float = 5, **arguments: Any) -> None:
        function = function if ":" in function else f"somebody:{function}"
        what = {"function": function, "arguments": arguments, "path": [str(self._folder)]}
        self.exporter.put(self.name, python=what, timeout=timeout)

    def scrape(self) -> Series:
        own = {series(UP, collector=self.name), series(SECONDS, collector=self.name)}
        return {key: value for key, value in self.exporter.scrape(self.name).items() if key not in own}

    def error(self) -> str:
        return self.exporter.error(self.name)


@pytest.fixture
def asked(exporter: Exporter, name: str, folder: Path) -> Asked:
    return Asked(exporter, name, folder)


def test_tuples_are_gauges(asked: Asked):
    asked.put("tuples", key="a")
    assert asked.scrape() == {
        series("plain"): 1,
        series("labelled", key="a"): 2,
        series("labelled", key="b"): 1,
    }


def test_families_are_what_they_are(asked: Asked):
    asked.put("families")
    assert asked.scrape() == {
        series("g", a="x"): 1.5,
        series("g", a="y"): 2.5,
        series("c_total"): 7,
        series("h_bucket", le="0.1"): 1,
        series("h_bucket", le="+Inf"): 3,
        series("h_count"): 3,
        series("h_sum"): 2,
        series("i_info", version="1"): 1,
    }
    page = asked.exporter.client.get(f"/collectors/{asked.name}").text
    assert {"# TYPE h histogram", "# TYPE c_total counter", "# HELP g A gauge."} <= set(page.splitlines())


def test_its_process_is_kept_until_its_file_changes(asked: Asked):
    asked.put("counts")
    first, second = asked.scrape(), asked.scrape()
    assert (first[series("calls")], second[series("calls")]) == (1, 2)
    assert first[series("pid")] == second[series("pid")]
    asked.put("counts", timeout=4)
    assert asked.scrape()[series("calls")] == 1
    deadline = time.monotonic() + 5
    while psutil.pid_exists(int(first[series("pid")])):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_that_is_late_is_killed_with_all_it_started(asked: Asked, tmp_path: Path):
    asked.put("forever", timeout=1, mark=str(tmp_path / "mark"))
    assert asked.scrape() == {}
    assert (
        asked.exporter.told(asked.name)["error"]
        == "somebody:forever gave nothing in 0.95 seconds, and was killed."
    )
    pid = int((tmp_path / "mark").read_text())
    deadline = time.monotonic() + 5
    while left := [one for one in psutil.process_iter() if _group(one) == pid]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def test_one_that_hears_no_signal_is_killed(asked: Asked):
    asked.put("deaf", timeout=0.5)
    assert "was killed" in asked.error()


def test_after_a_kill_the_next_scrape_starts_another(asked: Asked, tmp_path: Path):
    asked.put("sometimes", timeout=1, mark=str(tmp_path / "mark"))
    assert "was killed" in asked.error()
    assert asked.scrape() == {series("well"): 1}


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("dies", "The process of somebody:dies ended with 3."),
        ("exits", "The process of somebody:exits ended with 4."),
        ("crashes", "The process of somebody:crashes was ended by SIGSEGV."),
    ],
)
def test_one_that_dies_is_started_again(asked: Asked, function: str, says: str):
    asked.put(function)
    assert asked.error() == says
    assert asked.error() == says
    asked.put("tuples", key="a")
    assert asked.exporter.up(asked.name)


def test_what_it_prints_is_in_the_log_and_no_answer(asked: Asked):
    asked.put("prints")
    assert asked.scrape() == {series("true"): 1}
    assert '"name": "fake"' in asked.exporter.log.read_text(errors="replace")


def test_it_has_nothing_to_read(asked: Asked):
    asked.put("reads")
    assert asked.scrape() == {series("read"): 0}


def test_one_that_floods_answers_all_the_same(asked: Asked):
    asked.put("floods")
    assert asked.scrape() == {series("flooded"): 1}


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("endless", "somebody:endless failed: it gives more than 10,000 series."),
        ("huge", "somebody:huge gives more than 4,000,000 bytes."),
        ("garbage", "somebody:garbage gives what is no metric. the whole: Invalid JSON"),
        ("nothing", "somebody:nothing failed: TypeError at"),
        ("thing", "a dict is neither a family nor (name, value) nor (name, value, labels)."),
        ("text", "the value of n is no number, but a str."),
        ("reserved", "gives what is no metric. families.0.name"),
        ("misnamed", "gives what is no metric. families.0.name"),
        ("mislabelled", "gives what is no metric. families.0.samples.0.1.a-b"),
        ("absent", "failed: the module somebody has no absent."),
        ("not_callable", "TypeError at"),
        ("nowhere:absent", "nowhere:absent failed: there is no module nowhere."),
        ("broken:absent", "broken:absent failed: ValueError at broken:1."),
    ],
)
def test_what_is_wrong_is_told(asked: Asked, function: str, says: str):
    asked.put(function)
    assert asked.scrape() == {}
    assert says in asked.error()


def test_an_exception_is_told_by_type_and_place_and_not_by_its_words(asked: Asked):
    line = MODULE.splitlines().index("    raise ValueError(key)") + 1
    asked.put("raises", key=SECRET)
    assert asked.error() == f"somebody:raises failed: ValueError at somebody:{line}."
    asked.put("deep", key=SECRET)
    assert "failed: ValueError at somebody:" in asked.error()
    asked.put("tuples", nokey=SECRET)
    assert "failed: TypeError at" in asked.error()
    page = asked.exporter.client.get(f"/collectors/{asked.name}").text
    assert SECRET not in page + asked.exporter.said()
    for process in psutil.process_iter(["cmdline", "environ"]):
        if "gamma_orch.exporter.child" in (process.info["cmdline"] or []):
            assert SECRET not in str(process.info)


def test_a_series_that_is_there_twice_is_left_out_and_told(asked: Asked):
    asked.put("clash")
    assert asked.scrape() == {series("other"): 1}
    assert asked.error() == "Two series of n have the same labels."
    asked.put("kinds")
    assert asked.scrape() == {series("n"): 1, series("n_total"): 2}
    assert asked.error() == "n_total is a counter and a gauge."


def test_labels_of_the_file_are_on_all(asked: Asked, folder: Path):
    what = {"function": "somebody:tuples", "arguments": {"key": "a"}, "path": [str(folder)]}
    asked.exporter.put(asked.name, python=what, labels={"site": "one"})
    found = asked.exporter.scrape(asked.name)
    assert all(("site", "one") in labels for _, labels in found)
    # They win, also where that makes two series one.
    asked.exporter.put(asked.name, python=what, labels={"key": "same"})
    assert series("plain", key="same") in asked.exporter.scrape(asked.name)
    assert asked.exporter.told(asked.name)["error"] == "Two series of labelled have the same labels."


def _group(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid) if process.status() != psutil.STATUS_ZOMBIE else 0
    except (psutil.Error, ProcessLookupError):
        return 0
