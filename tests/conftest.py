"""Hypothesis profiles, chosen by GAMMA_PROFILE: dev, ci (where CI is set) or nightly."""

import os

from hypothesis import HealthCheck, settings

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
settings.load_profile(os.environ.get("GAMMA_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))
