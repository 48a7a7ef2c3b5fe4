"""The kind Dashboard: what people look at, on a Grafana, or as a file that one can read.

What is compared are the fields that a dashboard says that it was made of; where it is not any more what those
make, somebody has changed it by hand, and it is put again. Others' dashboards are never looked at.
"""

import asyncio
from typing import Any

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.core.observation import Observation, Seen
from gamma_orch.core.provider import Task
from gamma_orch.kinds.monitoring import grafana_model, panels, promql
from gamma_orch.kinds.monitoring.dashboard_spec import DashboardSpec, in_unit, queries, unit
from gamma_orch.kinds.monitoring.on_server import ServerProvider
from gamma_orch.spec.durations import duration
from gamma_orch.spec.kind import Kind
from gamma_orch.targets.grafana import FILES, Boards


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    """In one form: expressions as PromQL prints them, times in seconds, units and thresholds said."""
    return {
        "grafana": spec["grafana"] or FILES,
        "name": address.name,
        "title": spec["title"],
        "description": spec["description"],
        "refresh": duration(spec["refresh"]).total_seconds(),
        "span": duration(spec["span"]).total_seconds(),
        "variables": [{**one, "title": one["title"] or one["name"]} for one in spec["variables"]],
        "rows": [
            {"title": row["title"], "panels": [_panel(one) for one in row["panels"]]} for row in spec["rows"]
        ],
    }


def _panel(said: Json) -> Json:
    asked = [{**one, "expr": promql.parsed(one["expr"]).pretty} for one in queries(said)]
    measured = unit(said["unit"], [one["expr"] for one in asked])
    kept = {name: value for name, value in said.items() if name not in ("expr", "legend")}
    thresholds = {level: in_unit(measured, value) for level, value in said["thresholds"].items()}
    return {**kept, "queries": asked, "unit": measured, "thresholds": thresholds}


def target(fields: Fields) -> str:
    return f"grafana/{fields['grafana']}"


class DashboardProvider(ServerProvider[Boards]):
    KIND = "Dashboard"
    PLACE = "grafana"

    async def apply(self, task: Task) -> None:
        """Raises Temporary or Permanent."""
        made = grafana_model.model(self._targets.environment, task.address.name, dict(task.fields))
        await self._have(task, made)

    def _server(self, name: str) -> Boards:
        return self._targets.grafana(name)

    async def _put(self, server: Boards, name: str, content: Any) -> None:
        await server.put(grafana_model.uid(self._targets.environment, name), content)

    async def _seen(self, name: str, server: Boards) -> dict[Address, Observation]:
        found: dict[Address, Observation] = {}
        for one in await server.tagged(grafana_model.tag(self._targets.environment)):
            kept = grafana_model.fields_of(one)
            # A copy that somebody made in Grafana has another uid, and is theirs.
            if kept is not None and one.get("uid") == grafana_model.uid(
                self._targets.environment, kept["name"]
            ):
                seen = await asyncio.to_thread(self._of, name, kept, one)
                found[Address(self.KIND, kept["name"])] = seen
        return found

    def _of(self, name: str, kept: Json, found: Json) -> Observation:
        fields = {**kept["fields"], "grafana": name}
        try:
            made = grafana_model.model(self._targets.environment, kept["name"], kept["fields"])
            same = grafana_model.is_still(made, found)
        except (KeyError, TypeError, ValueError):  # fields of another version of Gamma, or of another hand
            same = False
        return Seen(fields, healthy=same, why="" if same else "it was changed by hand")


KIND = Kind(
    name="Dashboard",
    family="monitoring",
    summary="What people look at: rows of panels, each of which asks a Prometheus.",
    spec=DashboardSpec,
    provider=DashboardProvider,
    traits=Traits(normalise=normalise, convergent=True, target=target),
    check=panels.dashboards,
)
