import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exporter.running import Exporter, Site
from tests.exporter.tls import Certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def exporter(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Exporter]:
    """One for all tests: whatever a collector of one of them does, the others must not notice."""
    # A probe that went through a proxy would find none.
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:1")
    environment = {"SSL_CERT_FILE": str(certificate.path), **proxies}
    with Exporter(tmp_path_factory.mktemp("exporter"), environment) as running:
        yield running
        assert running.process.poll() is None, running.log.read_text()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Of a collector that is this test's alone."""
    return re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:100].strip("-")


@pytest.fixture
def module(tmp_path: Path) -> Path:
    return tmp_path / "somebody.py"
