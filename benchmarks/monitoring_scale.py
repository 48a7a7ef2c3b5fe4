"""A thousand rules and two hundred scrape targets on a real Prometheus: what an apply, a plan without
changes, a changed rule and a rule that somebody else has changed come to. One table.

    python -m benchmarks.monitoring_scale [--rules N] [--targets N]

Prometheus is brought by Gamma itself (Debian, Ubuntu). Times are those of whole commands; the start of the
interpreter is in them and stands beside (`gamma --version`). Reloads are counted in the log of Prometheus.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from gamma_orch.targets.embedded_prometheus import EmbeddedPrometheus

RUNS = 5


def documents(rules: int, targets: int) -> Iterator[dict[str, Any]]:
    for number in range(rules):
        job = f"collector-{number % max(targets, 1)}"
        series = f'up{{job="{job}"}}'
        spec: dict[str, Any] = {
            "expr": f"{series} == 0",
            "for": f"{1 + number % 30}m",
            "summary": f"Rule {number} of many.",
            "tests": [{"series": {series: "0x60"}, "at": "40m", "fires": [{"job": job}]}],
        }
        yield {"kind": "AlertRule", "metadata": {"name": f"rule-{number}"}, "spec": spec}
    for number in range(targets):
        scrape = {"urls": [f"http://127.0.0.1:9/{number}"], "metrics": ["nothing"]}
        collected = {"scrape": scrape, "every": "60s"}
        yield {"kind": "MetricCollector", "metadata": {"name": f"collector-{number}"}, "spec": collected}


def write(folder: Path, rules: int, targets: int) -> Path:
    environment = {
        "apiVersion": "gamma/v1",
        "kind": "Environment",
        "metadata": {"name": "dev"},
        "spec": {"targets": {"prometheus": {"type": "prometheus", "embedded": True}}},
    }
    (folder / "environments" / "dev").mkdir(parents=True)
    (folder / "environments" / "dev" / "environment.yaml").write_text(yaml.safe_dump(environment))
    (folder / "specs").mkdir()
    path = folder / "specs" / "all.yaml"
    found = ({"apiVersion": "gamma/v1", **one} for one in documents(rules, targets))
    path.write_text(yaml.safe_dump_all(found, sort_keys=False))
    return path


def timed(folder: Path, *arguments: str) -> tuple[float, int, str]:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "gamma_orch.cli", *arguments],
        cwd=folder, text=True, capture_output=True, check=False,
    )  # fmt: skip
    return time.perf_counter() - start, done.returncode, done.stdout + done.stderr


def row(what: str, seconds: float, said: str) -> None:
    print(f"| {what} | {seconds:.2f} | {said} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rules", type=int, default=1000)
    parser.add_argument("--targets", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write(folder, asked.rules, asked.targets)
        server = EmbeddedPrometheus(
            folder / ".gamma" / "dev" / "prometheus-prometheus", folder / ".gamma" / "tools"
        )

        def reloads() -> int:
            return server.log.read_text().count("Loading configuration file") if server.log.exists() else 0

        try:
            print("| | seconds | |\n|---|---|---|")
            start = statistics.median(timed(folder, "--version")[0] for _ in range(RUNS))
            row("start of the interpreter", start, "")
            seconds, code, text = timed(folder, "apply", "-e", "dev", "--yes")
            if code:
                raise SystemExit(text[-2000:])
            row(f"first apply of {asked.rules + asked.targets:,}", seconds, f"{reloads()} reloads")
            plans = [timed(folder, "plan", "-e", "dev") for _ in range(RUNS)]
            row("plan without changes", statistics.median(one[0] for one in plans), plans[0][2].strip())
            text = path.read_text()
            path.write_text(text.replace("summary: Rule 7 of many.", "summary: Another.", 1))
            before = reloads()
            seconds, code, _ = timed(folder, "apply", "-e", "dev", "--yes")
            row("apply of a changed rule", seconds, f"{reloads() - before} reload")
            [file] = server.rules.glob("*-rule-500.yml")
            file.write_text(re.sub("== 0", "== 5", file.read_text()))
            subprocess.run(
                ["curl", "-sf", "-X", "POST", "-H", f"Authorization: {server.authorization()}",
                 f"{server.url}/-/reload"], check=True,
            )  # fmt: skip
            seconds, code, text = timed(folder, "plan", "-e", "dev")
            named = re.findall(r"(AlertRule/rule-\d+)", text)
            row(
                "plan, one rule changed by hand",
                seconds,
                f"exit {code}, names {', '.join(sorted(set(named)))}",
            )
        finally:
            server.destroy()


if __name__ == "__main__":
    main()
