"""The component `gamma_orch.GammaProject`: a Gamma project mounted in somebody's own Dagster project."""

import dagster as dg

from gamma_orch.orchestration.location import definitions


class GammaProject(dg.Component, dg.Model, dg.Resolvable):
    """The resources of one environment of a Gamma project as assets, with their checks, jobs and sensors."""

    path: str
    """The project's folder, with specs/ and environments/; relative to this file's folder."""
    environment: str = "dev"
    """The environment."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return definitions(context.path / self.path, self.environment)
