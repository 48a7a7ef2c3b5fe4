"""Ticks in Dagster: what schedules and sensors evaluate, and what they record without a run.

Nothing changed costs one read of the world, and no event at all. What did change since the last
tick is recorded: the drift of a resource as its failed check `in_sync`, the state of the whole as one
observation of the environment.
"""

import json
import logging
import os
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import digest
from gamma_orch.core.change import Action, Change
from gamma_orch.core.condition import conditions
from gamma_orch.core.event import Event, Type
from gamma_orch.core.render import headline, plan_markdown
from gamma_orch.engine.converge import Site, look
from gamma_orch.engine.doors import run, working
from gamma_orch.engine.project import SpecsBroken
from gamma_orch.engine.survey import Survey
from gamma_orch.orchestration import words
from gamma_orch.orchestration.keys import CAUSE_TAG, ENVIRONMENT_TAG, HEALTHY, IN_SYNC, asset_key
from gamma_orch.orchestration.scene import Scene
from gamma_orch.orchestration.ticks import Cause, Decision, Seen, blocked, decide, drifted
from gamma_orch.orchestration.work import PURPOSE
from gamma_orch.store.ledger import drifts, events, last_planned

WEBSERVER = "GAMMA_DAGSTER_URL"  # set by `gamma dev`: who is asked to reload a location
# More resources than this, applied in one go outside of Dagster, are not recorded one by one.
SHOWN_AT_ONCE = 200
Recorded = dg.AssetMaterialization | dg.AssetCheckEvaluation
GOING_ON = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True, slots=True)
class Memory:
    """What was recorded last. It lies in the environment's own newest event, so that all schedules and
    sensors go on from the same."""

    summary: str = ""  # digest of the whole
    drifted: Mapping[str, str] = field(default_factory=dict)  # address -> digest of its drift
    state: int = 0  # where the ledger stood

    @classmethod
    def of(cls, instance: dg.DagsterInstance, environment: str) -> "Memory":
        """Whatever an older Gamma has left there counts as nothing."""
        records = instance.fetch_materializations(dg.AssetKey([environment]), limit=1).records
        found = records[0].asset_materialization if records else None
        kept = found.metadata.get("memory") if found else None
        try:
            return cls(**kept.value) if isinstance(kept, dg.JsonMetadataValue) else cls()  # type: ignore[arg-type]
        except TypeError:
            return cls()


@dataclass(frozen=True, slots=True)
class Pulse:
    """What came of one tick."""

    start: tuple[Address, ...]
    plan: str
    words: str


def pulse(scene: Scene, cause: Cause, instance: dg.DagsterInstance) -> Pulse:
    """Look, decide and record, for files that were read a moment ago.

    Raises SpecsBroken, and StoreError where the ledger is away.
    """
    environment = scene.environment
    if scene.project.desired is None:
        raise SpecsBroken(scene.project.diagnostics)
    with working(scene.project, scene.project.desired) as site:
        survey = run(site, look(site))
        now = datetime.now(UTC)
        settings = site.reconcile
        last = last_planned(site.database, environment)
        seen = Seen(
            plan=survey.plan,
            ledger=survey.ledger,
            wanted=site.desired,
            drifts=drifts(site.database, environment, now - settings.flapping.within)
            if survey.plan.steps
            else (),
            planned_commit=str(last.data.get("commit", "")) if last else "",
            unfinished=_unfinished(instance, last, survey.plan.commit),
            settled=frozenset(event.address for event in survey.settled if event.address),
            now=now,
        )
        decision = decide(seen, settings, cause)
        memory = Memory.of(instance, environment)
        applied = _applied_elsewhere(site, survey, memory) if survey.ledger.state != memory.state else []
    found = drifted(survey.plan, site.desired, settings)
    _record(instance, environment, survey, decision, found, memory, applied)
    if decision.start and (frozen := settings.frozen(now)):
        window, end = frozen
        said = f"Frozen until {end:%Y-%m-%d %H:%M} UTC: {window.reason}"
        return Pulse((), survey.plan.id, said)
    return Pulse(decision.start, survey.plan.id, _said(survey, decision))


def _applied_elsewhere(site: Site, survey: Survey, memory: Memory) -> list[Recorded]:
    """What was applied since the last record by anybody but a run: shown as if it had been one."""
    history = events(site.database, site.environment, memory.state)
    ours = {event.plan for event in history if event.type is Type.PLANNED and _by_a_run(event)}
    done = {
        event.address: event
        for event in history
        if event.type is Type.DONE and event.plan not in ours and event.address in site.desired
    }
    if len(done) > SHOWN_AT_ONCE:
        return []
    in_sync = {change.address for change in survey.plan.changes if change.action is Action.KEEP}
    found: list[Recorded] = []
    for address, event in done.items():
        assert address is not None  # a Done has one
        said: dict[str, Any] = {
            "action": event.data["opcode"],
            "applied": event.at,
            "by": event.by,
            "plan": event.plan[:12],
        }
        key = asset_key(site.environment, address)
        found.append(dg.AssetMaterialization(key, metadata=said, description=f"Applied by {event.by}."))
        if address in in_sync:
            found += [passed_check(site.environment, address, name) for name in (IN_SYNC, HEALTHY)]
    return found


def _unfinished(instance: dg.DagsterInstance, last: Event | None, commit: str) -> frozenset[Address]:
    """What the last run was started for, where it failed or its process died. One that a person cancelled
    is not taken up."""
    if last is None or last.data.get("commit") != commit or "run" not in last.data:
        return frozenset()
    run = instance.get_run_by_id(last.data["run"])
    if run is None or run.status is not dg.DagsterRunStatus.FAILURE:
        return frozenset()
    selection = last.data["selection"] or [change["address"] for change in last.data["changes"]]
    return frozenset(Address.parse(text) for text in selection)


def _by_a_run(event: Event) -> bool:
    return str(event.data.get("purpose", "")).startswith(PURPOSE)


def _said(survey: Survey, decision: Decision) -> str:
    if not survey.plan.steps and not blocked(survey.plan):
        return f"No changes. {len(survey.plan.changes):,} resources as declared."
    parts = [f"{address}: {why}" for address, why in sorted(decision.left.items())]
    parts += [f"{address}: {why}" for address, why in sorted(blocked(survey.plan).items())]
    shown = "; ".join(parts[:5]) + (f"; and {len(parts) - 5:,} more" if len(parts) > 5 else "")
    return f"{len(decision.start):,} to converge" + (f". Left alone: {shown}" if parts else "")


def _record(
    instance: dg.DagsterInstance,
    environment: str,
    survey: Survey,
    decision: Decision,
    found: Mapping[Address, Change],
    memory: Memory,
    applied: Sequence[Recorded],
) -> None:
    """Events for what is news since the last record, and none where nothing is."""
    now = {str(a): digest([change.encoded(), a in decision.flapping]) for a, change in found.items()}
    told = conditions(survey.plan, survey.ledger, survey.observations)
    line = words.summary(survey.plan, told)
    summary = digest([line, words.conditions_markdown(told)])
    if (summary, now, survey.ledger.state) == (memory.summary, memory.drifted, memory.state):
        return
    for one in applied:
        instance.report_runless_asset_event(one)
    for address, change in found.items():
        if memory.drifted.get(str(address)) != now[str(address)]:
            why = decision.left.get(address, "a run heals it")
            instance.report_runless_asset_event(drift_check(environment, change, why))
    known = {str(change.address) for change in survey.plan.changes}
    for name in sorted((memory.drifted.keys() - now.keys()) & known):
        instance.report_runless_asset_event(passed_check(environment, Address.parse(name), IN_SYNC))
    said: dict[str, Any] = {
        "summary": line,
        "plan": dg.MetadataValue.md(plan_markdown(survey.plan)),
        "not ready": dg.MetadataValue.md(words.conditions_markdown(told)),
        "commit": survey.plan.commit[:12],
        "memory": {"summary": summary, "drifted": now, "state": survey.ledger.state},
    }
    instance.report_runless_asset_event(
        dg.AssetMaterialization(dg.AssetKey([environment]), metadata=said, description=line)
    )


def drift_check(environment: str, change: Change, why: str) -> dg.AssetCheckEvaluation:
    """The failed `in_sync` of a resource that was changed outside."""
    return dg.AssetCheckEvaluation(
        asset_key=asset_key(environment, change.address),
        check_name=IN_SYNC,
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=headline(change),
        metadata={
            "now": words.diff_line(change),
            "diff": dg.MetadataValue.md(words.diff_markdown(change)),
            "then": why,
        },
    )


def passed_check(environment: str, address: Address, name: str) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=asset_key(environment, address),
        check_name=name,
        passed=True,
        metadata={"now": "as declared" if name == IN_SYNC else "it works"},
    )


def request(
    environment: str, told: Pulse, cause: Cause, tags: Mapping[str, str] | None = None
) -> dg.RunRequest:
    """The run that a tick asks for: these resources, and the plan it was seen in."""
    return dg.RunRequest(
        job_name="reconcile",
        asset_selection=[asset_key(environment, address) for address in told.start],
        run_config={"resources": {"gamma": {"config": {"plan": told.plan}}}},
        tags={ENVIRONMENT_TAG: environment, CAUSE_TAG: cause.value, **(tags or {})},
    )


def run_going_on(instance: dg.DagsterInstance, environment: str) -> str:
    """The id of a run that is at work on the environment, or about to be; empty where none is."""
    filters = dg.RunsFilter(statuses=GOING_ON, tags={ENVIRONMENT_TAG: environment})
    runs = instance.get_runs(filters, limit=1)
    return runs[0].run_id if runs else ""


_reloads: dict[str, threading.Thread] = {}  # one at a time, however many ticks ask for it


def ask_to_reload(location: str) -> str:
    """Have the webserver load the location anew, without waiting: this very process is replaced by it."""
    url = os.environ.get(WEBSERVER)
    if not url:
        return f"reload the code location {location} (no webserver is named in {WEBSERVER})"
    if not (location in _reloads and _reloads[location].is_alive()):
        _reloads[location] = threading.Thread(
            target=_reload, args=(url, location), name="reload", daemon=True
        )
        _reloads[location].start()
    return f"the code location {location} is being reloaded"


def _reload(url: str, location: str) -> None:
    query = """mutation ($name: String!) {
      reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"""
    body = json.dumps({"query": query, "variables": {"name": location}}).encode()
    asked = urllib.request.Request(  # noqa: S310 - our own webserver
        f"{url}/graphql", body, {"Content-Type": "application/json"}
    )
    try:
        urllib.request.urlopen(asked, timeout=300).close()  # noqa: S310 - as above
    except OSError as error:
        logging.getLogger(__name__).warning("The webserver at %s did not reload %s: %s", url, location, error)
