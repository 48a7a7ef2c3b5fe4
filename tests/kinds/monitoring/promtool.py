"""What Prometheus' own tool says of rules, as the judge of ours. Debian's package is unpacked into .gamma of
this checkout where the tool is not on PATH; tests skip where neither can be had."""

import ast
import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from gamma_orch.core.provider import ProviderError
from gamma_orch.kinds.monitoring.evaluate import Vector
from gamma_orch.targets.distribution import Distribution, Program

ROOT = Path(__file__).parents[3]
_SAMPLE = re.compile(r"\s*(?P<name>[a-zA-Z_:][\w:]*)?\s*(?P<labels>\{.*\})?\s+(?P<value>\S+)\s*")


@cache
def promtool() -> Path:
    try:
        return Distribution(ROOT / ".gamma" / "tools").bring(Program("promtool", "prometheus"))
    except ProviderError as error:
        pytest.skip(str(error))


def run(folder: Path, rules: Any, tests: Sequence[Any], every: str = "1m") -> tuple[bool, str]:
    """Whether all of them pass, and what it says."""
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": rules}))
    whole = {"rule_files": ["rules.yml"], "evaluation_interval": every, "tests": list(tests)}
    (folder / "tests.yml").write_text(yaml.safe_dump(whole))
    done = subprocess.run(
        [promtool(), "test", "rules", "tests.yml"], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode == 0, done.stdout + done.stderr


def evaluated(
    folder: Path, series: Mapping[str, str], asked: Sequence[tuple[str, int]], every: int
) -> list[Vector | str]:
    """What each expression is at its moment (s); a text where it is an error. The tool shows what it got
    where that is not what was expected, so each is expected to be what it cannot be."""
    never = [{"labels": '{never="so"}', "value": 12345.678}]
    test = {
        "interval": f"{every}s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": expr, "eval_time": f"{at}s", "exp_samples": never} for expr, at in asked
        ],
    }
    _, said = run(folder, [], [test], every=f"{every}s")
    found = [_read(one) for one in re.split(r"^ *expr: ", said, flags=re.MULTILINE)[1:]]
    assert len(found) == len(asked), said
    return found


def _read(said: str) -> Vector | str:
    got = re.search(r"got:\s?(.*)", said)
    if got is None:
        return said
    found: Vector = {}
    for one in filter(None, re.split(r"(?<=\d|f|N),\s(?=[a-zA-Z_:{])", got[1])):
        if one.strip() == "nil":
            continue
        matched = _SAMPLE.fullmatch(one)
        assert matched is not None, said
        tags = re.findall(r'([a-zA-Z_]\w*)=("(?:[^"\\]|\\.)*")', matched["labels"] or "")
        pairs = {(name, str(ast.literal_eval(value))) for name, value in tags}
        if matched["name"]:
            pairs.add(("__name__", matched["name"]))
        found[frozenset(pairs)] = float(matched["value"].replace("Inf", "inf"))
    return found
