"""The jobs beside `reconcile`: `plan` and `verify` only read, `destroy` asks for a typed confirmation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg

from gamma_orch.core.change import Action
from gamma_orch.core.condition import Health, conditions
from gamma_orch.core.render import plan_markdown, plan_text
from gamma_orch.engine.converge import apply, look
from gamma_orch.engine.doors import opened, run
from gamma_orch.orchestration import words
from gamma_orch.orchestration.keys import ENVIRONMENT_TAG, HEALTHY, IN_SYNC, asset_key
from gamma_orch.orchestration.scene import Scene
from gamma_orch.orchestration.work import Logged


class Confirmation(dg.Config):
    confirm: str = ""
    """The name of the environment, typed out: everything that Gamma made in it is deleted."""


def jobs(scene: Scene) -> list[dg.JobDefinition]:
    root, environment = scene.root, scene.environment
    return [_plan(root, environment), _verify(root, environment), _destroy(root, environment)]


def _tags(environment: str) -> dict[str, str]:
    return {"gamma/reads": environment}


def _plan(root: Path, environment: str) -> dg.JobDefinition:
    @dg.op(name="show_plan", description="What a reconcile would do now, and why.")
    def show_plan(context: dg.OpExecutionContext) -> dg.Output[str]:
        with opened(root, environment) as site:
            found = run(site, look(site))
        context.log.info(plan_text(found.plan))
        said: dict[str, Any] = {
            "plan": dg.MetadataValue.md(plan_markdown(found.plan)),
            "id": found.plan.id,
            "changes": sum(change.action is not Action.KEEP for change in found.plan.changes),
        }
        context.log_event(
            dg.AssetObservation(dg.AssetKey([environment]), metadata=said, description="A plan was made.")
        )
        return dg.Output(found.plan.id, metadata=said)

    @dg.job(name="plan", description=show_plan.description, tags=_tags(environment))
    def plan() -> None:
        show_plan()

    return plan


def _verify(root: Path, environment: str) -> dg.JobDefinition:
    @dg.op(name="verify_all", description="Read everything, and fail if anything is not as declared.")
    def verify_all(context: dg.OpExecutionContext) -> dg.Output[int]:
        with opened(root, environment) as site:
            found = run(site, look(site))
        told = conditions(found.plan, found.ledger, found.observations)
        wrong = [condition for condition in told if condition.health is not Health.READY]
        by_address = {change.address: change for change in found.plan.changes}
        for condition in wrong:
            change = by_address[condition.address]
            context.instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    asset_key=asset_key(environment, condition.address),
                    check_name=HEALTHY if condition.health is Health.FAILED else IN_SYNC,
                    passed=False,
                    description=f"{condition.reason} {condition.message}".strip(),
                    metadata={
                        "now": words.diff_line(change),
                        "diff": dg.MetadataValue.md(words.diff_markdown(change)),
                    },
                )
            )
        said: dict[str, Any] = {
            "summary": words.summary(found.plan, told),
            "not ready": dg.MetadataValue.md(words.conditions_markdown(told)),
        }
        if wrong:
            raise dg.Failure(
                f"{len(wrong):,} of {len(told):,} resources are not ready: "
                + ", ".join(str(condition.address) for condition in wrong[:10]),
                metadata=said,
                allow_retries=False,
            )
        return dg.Output(len(told), metadata=said)

    @dg.job(name="verify", description=verify_all.description, tags=_tags(environment))
    def verify() -> None:
        verify_all()

    return verify


def _destroy(root: Path, environment: str) -> dg.JobDefinition:
    @dg.op(name="delete_all", description="Delete everything that Gamma made here. Protected objects refuse.")
    def delete_all(context: dg.OpExecutionContext, config: Confirmation) -> None:
        if config.confirm != environment:
            raise dg.Failure(
                f"Nothing was deleted: to delete everything of {environment}, type its name into "
                f"ops.delete_all.config.confirm; it says {config.confirm!r}.",
                allow_retries=False,
            )
        watcher = Logged()
        watcher.log = context.log
        with opened(root, environment) as declared:
            site = replace(declared, desired={})
            outcome = run(
                site, apply(site, watcher=watcher, purpose=f"Dagster destroy {context.run.run_id[:8]}")
            )
        refused = [refusal.message for refusal in outcome.refusals]
        refused += [str(change.address) for change in outcome.plan.refused]
        if refused or outcome.failed:
            raise dg.Failure("Not all of it is deleted: " + "; ".join(refused), allow_retries=False)

    @dg.job(
        name="destroy",
        description=delete_all.description,
        config={"ops": {"delete_all": {"config": {"confirm": ""}}}},
        tags={ENVIRONMENT_TAG: environment},
    )
    def destroy() -> None:
        delete_all()

    return destroy
