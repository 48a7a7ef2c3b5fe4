"""What the tests of the command line share: warm processes, and a small project of things."""

from pathlib import Path

import pytest

from tests.cli.gamma import gamma, server, write

__all__ = ["gamma", "server"]

ENVIRONMENT = """\
apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec:
  secrets:
    password: {env: THING_PASSWORD}
"""
THINGS = """\
apiVersion: gamma/v1
kind: Thing
metadata: {name: a}
spec: {value: one}
---
apiVersion: gamma/v1
kind: Thing
metadata: {name: b}
spec: {value: two, after: a}
---
apiVersion: gamma/v1
kind: Thing
metadata: {name: c}
spec: {upstream: "${Thing/b.id}", secret: "${secret.password}"}
"""
PASSWORD = "canary-5f1d-secret-bytes"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three things, one after the other; nothing applied yet."""
    monkeypatch.setenv("THING_PASSWORD", PASSWORD)
    files = {"environments/dev/environment.yaml": ENVIRONMENT, "specs/things.yaml": THINGS}
    return write(tmp_path / "project", files)
