"""The engine's bench, for plans of whole trees, and tests that are coroutines."""

from tests.engine.conftest import bench, empty_ledger  # noqa: F401 - fixtures
from tests.targets.coroutines import pytest_pyfunc_call  # noqa: F401 - a hook
