"""What people read in the Dagster UI: descriptions, diffs and summaries, as Markdown and as one line.

Markdown hides behind a click in logs and on the checks' page, so each diff comes as a line of text too.
"""

from collections.abc import Mapping

import yaml

from gamma_orch.core.canonical import Json
from gamma_orch.core.change import Action, Change
from gamma_orch.core.condition import Condition, Health
from gamma_orch.core.leaves import encode
from gamma_orch.core.ledger import Entry
from gamma_orch.core.plan import Plan
from gamma_orch.core.render import changed_fields, diff_lines, headline, table_markdown, value_text
from gamma_orch.core.resource import Resource

LONGEST_LINE = 400


def description(resource: Resource) -> str:
    """The resource's own words, where it is declared, and its spec as YAML."""
    parts = [resource.description.strip()] if resource.description else []
    if resource.span.file:
        parts.append(f"Declared in `{resource.span.file}:{resource.span.line}`.")
    rules = [name for name in ("protect", "retain") if getattr(resource.lifecycle, name)]
    if resource.lifecycle.drift:
        rules.append(f"drift: {resource.lifecycle.drift}")
    if rules:
        parts.append("Lifecycle: " + ", ".join(f"`{rule}`" for rule in rules) + ".")
    parts.append(f"```yaml\n{spec_yaml(resource.spec)}```")
    return "\n\n".join(parts)


def unwanted_description(entry: Entry | None) -> str:
    """Of something recorded that no document declares any more; None if it is gone already."""
    if entry is None:
        return "No document declares it any more, and it is gone."
    what = "forgotten, and stays as it is" if entry.record and entry.record.retain else "deleted"
    return f"No document declares it any more: it will be {what} by the next reconcile."


def spec_yaml(spec: Json) -> str:
    """A spec as YAML, leaves in their encoded form: a secret shows as its name."""
    return str(yaml.safe_dump(_shown(encode(spec)), sort_keys=False, allow_unicode=True, width=100))


def _shown(value: Json) -> Json:
    """Leaves in words, nothing that is not said."""
    if isinstance(value, dict):
        if any(key.startswith("$") for key in value):
            return value_text(value)
        return {key: _shown(item) for key, item in value.items() if item not in (None, "", [], {})}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return value


def diff_markdown(change: Change) -> str:
    """Each field as lines of a diff, which the UI colours."""
    lines = diff_lines(change)
    return "```diff\n" + "\n".join(lines) + "\n```" if lines else "no fields differ"


def diff_line(change: Change) -> str:
    """The same on one line: `owner: mallory -> app_owner; ...`."""
    parts = [f"{path}: {movement}" for path, movement in changed_fields(change)]
    text = "; ".join(parts) or headline(change)
    return text if len(text) <= LONGEST_LINE else text[: LONGEST_LINE - 1] + "…"


def summary(plan: Plan, conditions: list[Condition]) -> str:
    """One line on an environment."""
    ready = sum(condition.health is Health.READY for condition in conditions)
    counted = ", ".join(
        f"{count} to {action}" if action not in ("refuse", "wait") else f"{count} {action}"
        for action, count in plan.summary().items()
        if count and action != Action.KEEP
    )
    return f"{ready:,} of {len(conditions):,} ready" + (f"; {counted}" if counted else "")


def conditions_markdown(conditions: list[Condition]) -> str:
    """A row for each resource that is not ready."""
    rows = [
        (str(c.address), c.health.name.lower(), c.reason, c.message)
        for c in conditions
        if c.health is not Health.READY
    ]
    return table_markdown(("resource", "health", "reason", "message"), rows) if rows else "All are ready."


def outputs_shown(outputs: Mapping[str, Json]) -> dict[str, str]:
    return {name: value_text(value) for name, value in outputs.items()}
