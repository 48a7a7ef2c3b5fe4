"""`gamma graph`: what needs what, as text, Mermaid (markdown) or JSON."""

from pathlib import Path

from gamma_orch.cli.contract import EnvironmentOption, OutputOption, ProjectOption
from gamma_orch.core.render import Style


def graph(
    env: EnvironmentOption = "dev", output: OutputOption = Style.TEXT, project: ProjectOption = Path()
) -> None:
    """Show what needs what."""
    from gamma_orch.cli.report import show, show_json
    from gamma_orch.core.fingerprint import in_order
    from gamma_orch.engine.project import faultless, find_root

    resources = faultless(find_root(project.resolve()), env)[1].resources
    arrows = [(address, need) for address in in_order(resources) for need in resources[address].needs]
    match output:
        case Style.JSON:
            show_json(
                {
                    "environment": env,
                    "resources": [str(address) for address in in_order(resources)],
                    "needs": [[str(address), str(need)] for address, need in arrows],
                }
            )
        case Style.MARKDOWN:
            numbered = {address: f"r{index}" for index, address in enumerate(in_order(resources))}
            lines = [f'  {name}["{address}"]' for address, name in numbered.items()]
            lines += [f"  {numbered[need]} --> {numbered[address]}" for address, need in arrows]
            show("\n".join(["```mermaid", "flowchart LR", *lines, "```", ""]))
        case Style.TEXT:
            for address in in_order(resources):
                needs = ", ".join(map(str, resources[address].needs))
                show(f"{address}" + (f"  needs {needs}" if needs else "") + "\n")
