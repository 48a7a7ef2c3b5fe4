"""What starts runs by itself: the schedule, the git sensor, the drift sensor; and what tells of failures."""

import json
import logging
import urllib.request

import dagster as dg

from gamma_orch.core.render import diagnostics_text
from gamma_orch.engine.project import SpecsBroken
from gamma_orch.orchestration.git import Followed, GitFailed, follow
from gamma_orch.orchestration.keys import COMMIT_TAG, ENVIRONMENT_TAG
from gamma_orch.orchestration.pulse import (
    Pulse,
    ask_to_reload,
    pulse,
    request,
    run_going_on,
)
from gamma_orch.orchestration.scene import Scene
from gamma_orch.orchestration.scene import scene as read_scene
from gamma_orch.orchestration.ticks import Cause

GIT_SECONDS = 30  # between two looks at the followed branch
# What a skipped tick begins with, where the next one has to look again.
BUSY, OUTDATED = "Run", "The specs changed since they were loaded;"
_ON, _OFF = dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED


def sensors(loaded: Scene) -> list[dg.SensorDefinition]:
    settings = loaded.settings.reconcile
    found = [_git_sensor(loaded), _failure_sensor(loaded)]
    if settings.drift != "off" or any(r.lifecycle.drift for r in loaded.wanted.values()):
        found.append(_drift_sensor(loaded))
    if settings.every is not None:
        found.append(_rhythm_sensor(loaded, int(settings.every.total_seconds())))
    return found


def schedules(loaded: Scene) -> list[dg.ScheduleDefinition]:
    cron = loaded.settings.reconcile.cron
    if cron is None:
        return []
    suspended = loaded.settings.reconcile.suspend

    @dg.schedule(
        cron_schedule=cron,
        job_name="reconcile",
        name="reconcile_schedule",
        description="Plans, and starts a run of what is pending.",
        default_status=dg.DefaultScheduleStatus.STOPPED if suspended else dg.DefaultScheduleStatus.RUNNING,
    )
    def reconcile_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        told = _tick(loaded, Cause.SCHEDULE, context.instance)
        if isinstance(told, str):
            return dg.SkipReason(told)
        return request(loaded.environment, told, Cause.SCHEDULE)

    return [reconcile_schedule]


def _rhythm_sensor(loaded: Scene, seconds: int) -> dg.SensorDefinition:
    text = "Plans, and starts a run of what is pending."
    return _sensor(loaded, "reconcile_every", Cause.SCHEDULE, seconds, text)


def _drift_sensor(loaded: Scene) -> dg.SensorDefinition:
    seconds = int(loaded.settings.reconcile.observe.total_seconds())
    text = "Looks for changes made outside, shows them as failed checks, and starts a run that heals them."
    return _sensor(loaded, "drift", Cause.DRIFT, seconds, text)


def _sensor(loaded: Scene, name: str, cause: Cause, seconds: int, text: str) -> dg.SensorDefinition:
    @dg.sensor(
        name=name,
        job_name="reconcile",
        description=text,
        minimum_interval_seconds=seconds,
        default_status=_OFF if loaded.settings.reconcile.suspend else _ON,
    )
    def sensed(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        told = _tick(loaded, cause, context.instance)
        return dg.SkipReason(told) if isinstance(told, str) else request(loaded.environment, told, cause)

    return sensed


def _git_sensor(loaded: Scene) -> dg.SensorDefinition:
    @dg.sensor(
        name="commits",
        job_name="reconcile",
        description="Follows the branch: a new commit is planned, and what it changes is converged.",
        minimum_interval_seconds=GIT_SECONDS,
        default_status=_OFF if loaded.settings.reconcile.suspend else _ON,
    )
    def commits(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        known = context.cursor or ""
        settings = loaded.settings.reconcile
        try:
            followed = follow(loaded.root, settings.branch, settings.remote)
        except GitFailed as error:
            return dg.SensorResult(skip_reason=str(error), cursor=known)
        if not followed.commit or followed.commit == known:
            said = f"No new commit: {followed.commit[:12] or 'this is no git repository'}."
            return dg.SensorResult(skip_reason=said, cursor=known)
        told = _tick(loaded, Cause.COMMIT, context.instance)
        if isinstance(told, str):
            later = told.startswith((BUSY, OUTDATED))
            return dg.SensorResult(skip_reason=told, cursor=known if later else followed.commit)
        asked = request(loaded.environment, told, Cause.COMMIT, _tags(followed))
        return dg.SensorResult(run_requests=[asked], cursor=followed.commit)

    return commits


def _tags(followed: Followed) -> dict[str, str]:
    return {
        COMMIT_TAG: followed.commit[:12],
        "gamma/author": followed.author,
        "gamma/subject": followed.subject,
    }


def _tick(loaded: Scene, cause: Cause, instance: dg.DagsterInstance) -> Pulse | str:
    """What a run should do, or why none is started."""
    if why := _busy(loaded, instance):
        return why
    now = read_scene(loaded.root, loaded.environment)
    if now.digest != loaded.digest:
        return f"{OUTDATED} {ask_to_reload(loaded.environment)}."
    try:
        told = pulse(now, cause, instance)
    except SpecsBroken as error:
        return f"The specs have errors:\n{diagnostics_text(error.diagnostics)}"
    return told if told.start else told.words


def _busy(loaded: Scene, instance: dg.DagsterInstance) -> str:
    going_on = run_going_on(instance, loaded.environment)
    return f"{BUSY} {going_on[:8]} is at work on {loaded.environment}." if going_on else ""


def _failure_sensor(loaded: Scene) -> dg.SensorDefinition:
    @dg.run_failure_sensor(
        name="failures",
        description="One notification for each failed run.",
        default_status=_ON,
        monitor_all_code_locations=False,
    )
    def failures(context: dg.RunFailureSensorContext) -> None:
        run = context.dagster_run
        if run.tags.get(ENVIRONMENT_TAG) != loaded.environment:
            return
        notify(loaded, failure_message(context, loaded.environment))

    return failures


def failure_message(context: dg.RunFailureSensorContext, environment: str) -> dict[str, object]:
    """One message for a run, whatever number of its resources failed."""
    events = context.get_step_failure_events()
    failed = [
        {"step": event.step_key, "error": _first_line(event.step_failure_data.error_display_string)}
        for event in events
    ]
    return {
        "environment": environment,
        "run": context.dagster_run.run_id,
        "job": context.dagster_run.job_name,
        "cause": context.dagster_run.tags.get("gamma/cause", "by hand"),
        "message": context.failure_event.message,
        "failed": failed,
    }


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def notify(loaded: Scene, message: dict[str, object]) -> None:
    """To the log, and by one POST to `reconcile.notify`, whose URL may be a secret."""
    log = logging.getLogger(__name__)
    log.error("Run %s of %s failed: %s", message["run"], message["environment"], message["message"])
    if loaded.settings.reconcile.notify is None:
        return
    url = str(loaded.project.secrets.reveal(loaded.settings.reconcile.notify))
    if not url.startswith(("http://", "https://")):
        log.error("reconcile.notify is no http or https URL; nobody was told")
        return
    body = json.dumps(message, ensure_ascii=False).encode()
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - checked
    try:
        urllib.request.urlopen(asked, timeout=30).close()  # noqa: S310 - as above
    except OSError as error:  # its text may hold the URL, and the URL a token
        log.error("The notification could not be delivered: %s", type(error).__name__)  # noqa: TRY400
