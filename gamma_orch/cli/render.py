"""`gamma render`: the resources of an environment after patches, variables and defaults, as YAML."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gamma_orch.cli.contract import EnvironmentOption, OutputOption, ProjectOption
from gamma_orch.core.render import Style

if TYPE_CHECKING:
    from gamma_orch.core.canonical import Json
    from gamma_orch.core.resource import Resource


def render(
    resource: Annotated[str | None, typer.Argument(help="Kind/name: only this one.")] = None,
    env: EnvironmentOption = "dev",
    output: OutputOption = Style.TEXT,
    project: ProjectOption = Path(),
) -> None:
    """Print what an environment's specs come to. Secrets and references stay as expressions."""
    import yaml

    from gamma_orch.cli.address import address
    from gamma_orch.cli.report import show, show_json
    from gamma_orch.core.diagnostic import did_you_mean
    from gamma_orch.core.provider import GammaError
    from gamma_orch.engine.project import faultless, find_root

    resources = dict(faultless(find_root(project.resolve()), env)[1].resources)
    if resource is not None:
        wanted = address(resource)
        if wanted not in resources:
            raise GammaError(f"{env} has no {wanted}; {did_you_mean(str(wanted), map(str, resources))}")
        resources = {wanted: resources[wanted]}
    documents = [document(one) for one in resources.values()]
    if output is Style.JSON:
        show_json({"environment": env, "resources": documents})
        return
    text = yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, explicit_start=True)
    show(f"```yaml\n{text}```\n" if output is Style.MARKDOWN else text)


def document(resource: "Resource") -> "Json":
    """The resource as a document of the language."""
    lifecycle = resource.lifecycle
    metadata: dict[str, Json] = {"name": resource.address.name}
    if resource.owner:
        metadata["owner"] = resource.owner
    if resource.labels:
        metadata["labels"] = dict(resource.labels)
    if resource.description:
        metadata["description"] = resource.description
    settings = {
        "protect": lifecycle.protect or None,
        "retain": lifecycle.retain or None,
        "ignore": list(lifecycle.ignore) or None,
        "replace": lifecycle.replace and lifecycle.replace.value,
    }
    if any(settings.values()):
        metadata["lifecycle"] = {key: value for key, value in settings.items() if value}
    if resource.moved_from:
        metadata["moved"] = {"from": str(resource.moved_from)}
    return {
        "apiVersion": "gamma/v1",
        "kind": resource.address.kind,
        "metadata": metadata,
        "spec": expressions(resource.spec),
    }


def expressions(tree: "Json") -> "Json":
    """The tree with every leaf as the expression that it was."""
    from gamma_orch.core.leaves import Ref, Secret, Template

    match tree:
        case dict():
            return {key: expressions(value) for key, value in tree.items()}
        case list():
            return [expressions(value) for value in tree]
        case str():
            return tree.replace("${", "$${")
        case Template(parts):
            return "".join(expressions(part) for part in parts)
        case Secret(name):
            return f"${{secret.{name}}}"
        case Ref(address, output):
            return f"${{{address}.{output}}}"
        case _:
            return tree
