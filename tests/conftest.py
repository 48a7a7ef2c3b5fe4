"""What every test gets: the Hypothesis profile, and nightly tests only at night.

GAMMA_PROFILE chooses: dev, ci (the default where CI is set) or nightly.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

PROFILE = os.environ.get("GAMMA_PROFILE") or ("ci" if os.environ.get("CI") else "dev")

# Machines are shared: a deadline would test the neighbours.
_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("dev", max_examples=50, stateful_step_count=30, deadline=None)
settings.register_profile(
    "ci",
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=_QUIET,
)
settings.register_profile(
    "nightly",
    max_examples=2000,
    stateful_step_count=50,
    deadline=None,
    print_blob=True,
    suppress_health_check=_QUIET,
)
settings.load_profile(PROFILE)


# A file's tests run in one process, one after the other: those that take minutes begin first, or else one
# process would be at them alone in the end. The longest first.
LONG = (
    "tests/orchestration/test_dev.py",
    "tests/e2e/test_service.py",
    "tests/e2e/test_ray.py",
    "tests/targets/test_supervised.py",
    "tests/e2e/test_proxy.py",
    "tests/e2e/test_models.py",
    "tests/kinds/monitoring/test_delivery.py",
    "tests/orchestration/test_multiprocess.py",
    "tests/crash/test_models.py",
    "tests/world/test_world.py",
    "tests/kinds/monitoring/test_collectors.py",
    "tests/kinds/monitoring/test_correlation.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    rank = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(LONG)))  # stable
    if PROFILE == "nightly":
        return
    late = [item for item in items if item.get_closest_marker("nightly")]
    if late:
        items[:] = [item for item in items if item not in late]
        config.hook.pytest_deselected(items=late)
