"""What the crash tests share: one nursery of processes."""

from collections.abc import Iterator

import pytest

from tests.cli.gamma import Warm


@pytest.fixture(scope="session")
def gamma() -> Iterator[Warm]:
    with Warm() as warm:
        yield warm
