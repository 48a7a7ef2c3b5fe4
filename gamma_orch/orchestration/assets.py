"""Resources as Dagster assets, with their checks. An op a resource: a step in the run's Gantt chart.

`single` is how assets execute. `listed` is how a large environment is shown: one definition for
all, cheap to load; a run never executes it, because `location` builds a run's job from `single`.
"""

import base64
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from gamma_orch.core.address import Address
from gamma_orch.core.change import Action
from gamma_orch.core.provider import GammaError, Page
from gamma_orch.core.render import headline
from gamma_orch.core.resource import Resource
from gamma_orch.orchestration import words
from gamma_orch.orchestration.keys import HEALTHY, IN_SYNC, asset_key, op_name
from gamma_orch.orchestration.scene import Scene
from gamma_orch.orchestration.work import Told

RESOURCE = "gamma"

Converged = dg.MaterializeResult[None] | dg.AssetCheckResult


def spec_of(scene: Scene, address: Address) -> dg.AssetSpec:
    """One resource as Dagster shows it."""
    resource = scene.wanted.get(address)
    needs = scene.needs(address)
    shown: dict[str, Any] = {
        "key": asset_key(scene.environment, address),
        "deps": [asset_key(scene.environment, need) for need in needs],
        "group_name": scene.families.get(address.kind, "unknown"),
        "kinds": {address.kind.lower()},
    }
    if resource is None:
        text = (
            f"The specs are broken; this is known from the ledger.\n\n```\n{scene.problems}```"
            if scene.broken
            else words.unwanted_description(scene.unwanted.get(address))
        )
        return dg.AssetSpec(**shown, description=text, tags={"gamma/removed": "true"})
    return dg.AssetSpec(
        **shown,
        description=words.description(resource),
        owners=[_owner(resource.owner)] if resource.owner else None,
        code_version=scene.prints[address].content,
        tags={key: value for key, value in resource.labels.items() if _is_tag(key, value)},
        metadata={"dagster/code_references": _place(scene, resource)},
    )


def _place(scene: Scene, resource: Resource) -> dg.CodeReferencesMetadataValue:
    """A link to the file and line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        place = dg.LocalFileCodeReference(
            file_path=str(scene.root / resource.span.file), line_number=resource.span.line
        )
        return dg.CodeReferencesMetadataValue(code_references=[place])


def checks_of(scene: Scene, address: Address) -> list[dg.AssetCheckSpec]:
    key = asset_key(scene.environment, address)
    checks = [
        dg.AssetCheckSpec(IN_SYNC, asset=key, description="Whether the live object is as declared."),
        dg.AssetCheckSpec(HEALTHY, asset=key, description="Whether it works."),
    ]
    return checks + [
        dg.AssetCheckSpec(gate_name(name), asset=key, description=f"A gate: {asked}.")
        for name, asked in gates_of(scene, address).items()
    ]


def gates_of(scene: Scene, address: Address) -> Mapping[str, str]:
    """The gates that a resource declares, by name."""
    resource = scene.wanted.get(address)
    kind = scene.project.kinds.get(address.kind) if resource else None
    return kind.gates(resource.spec) if kind and resource else {}


def gate_name(name: str) -> str:
    """As a check's name, in which Dagster takes letters, digits and underscores."""
    return "gate_" + re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def single(scene: Scene, address: Address, pool: str | None = None) -> dg.AssetsDefinition:
    """One resource that can be converged by itself."""
    spec = spec_of(scene, address)

    @dg.multi_asset(
        name=op_name(address),
        specs=[spec],
        check_specs=checks_of(scene, address),
        required_resource_keys={RESOURCE},
        pool=pool,
        op_tags={"gamma/address": str(address)},
    )
    def converge(context: dg.AssetExecutionContext) -> Iterator[Converged]:
        yield from _converged(context, scene, address)

    return converge


def listed(scene: Scene, addresses: Sequence[Address]) -> dg.AssetsDefinition:
    """Many resources in one definition."""

    @dg.multi_asset(
        name="resources",
        specs=[spec_of(scene, address) for address in addresses],
        check_specs=[check for address in addresses for check in checks_of(scene, address)],
        required_resource_keys={RESOURCE},
        can_subset=True,
    )
    def converge(context: dg.AssetExecutionContext) -> Iterator[Converged]:
        for address in addresses:  # in the order of needs
            if asset_key(scene.environment, address) in context.selected_asset_keys:
                yield from _converged(context, scene, address)

    return converge


def environment_spec(scene: Scene) -> dg.AssetSpec:
    """The environment itself: what a tick finds out about all of it is recorded here."""
    text = f"The environment `{scene.environment}`: {len(scene.wanted):,} resources."
    if scene.broken:
        text += f"\n\nThe specs are broken:\n\n```\n{scene.problems}```"
    return dg.AssetSpec(
        key=dg.AssetKey([scene.environment]), description=text, group_name="delivery", kinds={"gamma"}
    )


def _converged(context: dg.AssetExecutionContext, scene: Scene, address: Address) -> Iterator[Converged]:
    reconciler = context.resources.gamma
    try:
        told = reconciler.carry_out(scene, address, context.run, context.log)
    except GammaError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    change = told.change
    said = metadata(told, reconciler.plan_made().id, reconciler.plan_made().commit)
    if change.action in (Action.REFUSE, Action.WAIT):
        raise dg.Failure(f"{address}: {headline(change)}", metadata=said, allow_retries=False)
    if told.failed:
        if told.gates:
            yield from _gates_judged(scene, address, told)
        raise dg.Failure(f"{address}: {told.failed}", metadata=said, allow_retries=False)
    said = {**said, **{title: _shown(page) for title, page in told.pages.items()}}
    if not told.results:
        context.log.info(f"{address}: {headline(change)}; nothing to do")
    key = asset_key(scene.environment, address)
    why = headline(change)
    yield dg.MaterializeResult(
        asset_key=key,
        metadata=said,
        check_results=[
            dg.AssetCheckResult(
                asset_key=key, check_name=IN_SYNC, passed=True, metadata={"now": f"as declared, after {why}"}
            ),
            dg.AssetCheckResult(
                asset_key=key,
                check_name=HEALTHY,
                passed=told.healthy,
                metadata={"now": told.why or "it works"},
            ),
            *_gates_judged(scene, address, told),
        ],
    )


def _gates_judged(scene: Scene, address: Address, told: Told) -> Iterator[dg.AssetCheckResult]:
    for name, asked in gates_of(scene, address).items():
        found = told.gates.get(name, {"passed": False, "says": "it was not measured"})
        yield dg.AssetCheckResult(
            asset_key=asset_key(scene.environment, address),
            check_name=gate_name(name),
            passed=found["passed"],
            metadata={"now": found["says"], "asked": asked},
        )


def _shown(page: Page) -> dg.MarkdownMetadataValue:
    """Dagster shows pictures inside Markdown."""
    if not page.png:
        return dg.MetadataValue.md(page.markdown)
    return dg.MetadataValue.md(f"![](data:image/png;base64,{base64.b64encode(page.png).decode()})")


def metadata(told: Told, plan: str, commit: str) -> Mapping[str, Any]:
    change = told.change
    said: dict[str, Any] = {
        "action": change.action.value,
        "reason": headline(change).partition(": ")[2],
        "seconds": round(told.seconds, 3),
        "plan": plan[:12],
    }
    if commit:
        said["commit"] = commit[:12]
    if change.fields:
        said["change"] = words.diff_line(change)
        said["diff"] = dg.MetadataValue.md(words.diff_markdown(change))
    if told.outputs:
        said["outputs"] = dg.MetadataValue.json(words.outputs_shown(told.outputs))
    return said


def _owner(name: str) -> str:
    return name if "@" in name else "team:" + "".join(c if c.isalnum() or c in "_-" else "_" for c in name)


_TAG = re.compile(r"[A-Za-z0-9_.-]{1,63}")


def _is_tag(key: str, value: str) -> bool:
    """What Dagster takes for a tag; other labels show in the spec alone."""
    return bool(_TAG.fullmatch(key)) and (not value or bool(_TAG.fullmatch(value)))
