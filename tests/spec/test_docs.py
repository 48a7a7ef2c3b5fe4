"""The page of diagnostics and the code agree; the examples of the language page are valid."""

import re
from pathlib import Path

import yaml

from gamma_orch.spec.codes import Code
from gamma_orch.spec.load import load
from tests.spec.shown import run

DOCS = Path(__file__).parents[2] / "docs"


def test_every_code_is_on_the_page_with_its_meaning() -> None:
    page = (DOCS / "diagnostics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (GAM\d{3}) \| (.+?) \| (.+) \|$", page, flags=re.MULTILINE)
    own = [(code, meaning) for code, meaning, _ in rows if code < "GAM600"]
    assert own == [(code.value, code.meaning) for code in Code]
    assert all(advice.strip().endswith(".") for _, _, advice in rows)


def test_codes_are_stable_and_in_order() -> None:
    values = [code.value for code in Code]
    assert values == sorted(set(values))
    assert str(Code.SYNTAX) == f"{Code.SYNTAX}" == "GAM107"


def examples() -> list[str]:
    page = (DOCS / "language.md").read_text(encoding="utf-8")
    return re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)


def test_the_examples_load() -> None:
    assert len(examples()) == 3
    for example in examples():
        assert not load({"f": example.encode()}).diagnostics
        assert all(document["apiVersion"] == "gamma/v1" for document in yaml.safe_load_all(example))


def test_the_example_of_an_environment_is_valid() -> None:
    environment = next(example for example in examples() if "kind: Environment" in example)
    environment = environment.replace("staging}", "dev}")
    found, resolution = run({"environments/dev/environment.yaml": environment.encode()})
    assert not found
    assert resolution.desired is not None
    assert resolution.desired.environment.targets["main"].max_parallel == 4
