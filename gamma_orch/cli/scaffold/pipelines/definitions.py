"""The Dagster code locations of this project: one attribute for each environment."""

from pathlib import Path

from gamma_orch.engine.project import environments
from gamma_orch.orchestration import location

ROOT = Path(__file__).resolve().parent.parent

for _name in environments(ROOT):
    globals()[_name.replace("-", "_")] = location(ROOT, _name)
