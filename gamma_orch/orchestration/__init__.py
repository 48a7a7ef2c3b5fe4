"""Gamma in Dagster: resources as assets, the engine's verbs as jobs, ticks as schedules and sensors.

Dagster schedules and shows; what is true is in the ledger, and what may happen is decided by the engine.
"""

from gamma_orch.orchestration.component import GammaProject
from gamma_orch.orchestration.location import definitions, location

__all__ = ["GammaProject", "definitions", "location"]
