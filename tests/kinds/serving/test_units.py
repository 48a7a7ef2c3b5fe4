"""Units for systemd: golden files, which systemd itself takes."""

import getpass
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.serving.units import Units, rendered
from tests.kinds.serving.specs import service
from tests.spec.shown import compare

GOLDEN = Path(__file__).parents[2] / "golden" / "serving"
UNITS = Units("api", "/srv/shop/.gamma/prod/service-api", "/srv/shop/.venv/bin/python", "shop", "2G")


def spec(**changed: Any) -> Any:
    return service(workers=2, **changed)


def test_the_units_of_a_service() -> None:
    text = "".join(f"# --- {name}\n{text}\n" for name, text in rendered(UNITS, spec()).items())
    golden = GOLDEN / "units.txt"
    compare(golden, text, golden.read_text() if golden.exists() else "", text)


def test_without_a_bound_there_is_none() -> None:
    assert "MemoryMax" not in rendered(replace(UNITS, memory=""), spec())["gamma-api@.service"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not on this machine")
def test_systemd_takes_them(tmp_path: Path) -> None:
    here = replace(UNITS, python=sys.executable, user=getpass.getuser(), home=str(tmp_path))
    for name, text in rendered(here, spec()).items():
        (tmp_path / name).write_text(text)
    units = [tmp_path / "gamma-api.socket", tmp_path / "gamma-api.target", tmp_path / "gamma-api@1.service"]
    shutil.copy(tmp_path / "gamma-api@.service", units[-1])
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    ours = [line for line in done.stderr.splitlines() if "gamma-api" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize(
    ("changed", "given", "said"),
    [
        ({"home": "/srv/my shop"}, {}, "the folder '/srv/my shop' has signs"),
        ({"home": "/srv/%h"}, {}, "has signs that a unit does not take"),
        ({"home": "/srv\nExecStart=/bin/sh"}, {}, "has signs that a unit does not take"),
        ({"python": "python"}, {}, "the path of Python"),
        ({"user": "shop\nUser=root"}, {}, "the user"),
        ({"memory": "2 GB"}, {}, "'2 GB' is no size; write 2G"),
        ({}, {"listen": {"host": "localhost"}}, "it listens on addresses, and 'localhost' is a name"),
        ({}, {"engine": "ray"}, "Ray Serve runs it"),
        ({}, {"proxy": {}}, "name its host and port in `others` of the one with the proxy"),
    ],
)
def test_what_systemd_cannot_run_is_said(changed: dict[str, str], given: dict[str, Any], said: str) -> None:
    with pytest.raises(Permanent) as error:
        rendered(replace(UNITS, **changed), spec(**given))
    assert said in str(error.value)
    assert str(error.value).startswith("Service/api cannot be run by systemd: ")
