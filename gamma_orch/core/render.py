"""A plan, a status or a history as text, Markdown or JSON: one value, three visitors.

Every line of a plan says what would be done and why. The JSON is the contract of `docs/cli.md`; text
and Markdown are for people and may change between versions.
"""

import json
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import takewhile

from gamma_orch.core.canonical import Json, digest
from gamma_orch.core.change import MISSING, NO_IMPACT, Action, Change, FieldChange, Impacts, Reason, Verdict
from gamma_orch.core.condition import Condition, Health, overall
from gamma_orch.core.diagnostic import Diagnostic, written
from gamma_orch.core.leaves import REF, SECRET, TEMPLATE, UNKNOWN, is_leaf, is_secret
from gamma_orch.core.plan import Plan


class Style(StrEnum):
    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


SYMBOLS = {
    Action.KEEP: " ",
    Action.CREATE: "+",
    Action.UPDATE: "~",
    Action.REPLACE: "±",
    Action.ADOPT: ">",
    Action.FORGET: "<",
    Action.DELETE: "-",
    Action.WAIT: ".",
    Action.REFUSE: "!",
}
_DOING = {
    Action.CREATE: "to create",
    Action.UPDATE: "to update",
    Action.REPLACE: "to replace",
    Action.ADOPT: "to adopt",
    Action.FORGET: "to forget",
    Action.DELETE: "to delete",
    Action.WAIT: "waiting",
    Action.REFUSE: "refused",
    Action.KEEP: "unchanged",
}
WIDEST = 72  # of a value in text; the JSON has it whole
LEAD = 24  # characters that are shown before the first that differs


def plan_json(plan: Plan, impacts: Impacts | None = None) -> Json:
    """The plan as `gamma plan -o json` prints it and `--out` saves it."""
    body = plan.encoded()
    for change, encoded in zip(plan.changes, body["changes"], strict=True):
        encoded["impact"] = (impacts or {}).get(change.address, NO_IMPACT).encoded()
    return {"id": plan.id, "summary": plan.summary(), **body}


def sealed(document: Json) -> bool:
    """Whether a saved plan still is what was saved: its id is the digest of its content."""
    body = {key: value for key, value in document.items() if key not in ("id", "summary")}
    body["changes"] = [{k: v for k, v in change.items() if k != "impact"} for change in body["changes"]]
    return bool(document.get("id") == digest(body))


def plan_text(plan: Plan, impacts: Impacts | None = None, everything: bool = False) -> str:
    """What would be done, a block a change; the kept ones only with `everything`."""
    shown = [change for change in plan.changes if everything or change.action is not Action.KEEP]
    at = f" at {plan.commit[:12]}" if plan.commit else ""
    lines = [f"Plan {plan.id[:12]} for {plan.environment}{at}", ""]
    for change in shown:
        why = headline(change) + _estimate(change, impacts)
        lines.append(f"  {SYMBOLS[change.action]} {change.address}  {why}")
        lines += [f"      {line}" for line in _field_lines(change)]
    lines += ["", summary_line(plan)] if shown else []
    if not plan.steps and not plan.refused:
        text = f"No changes. {_count(len(plan.changes), 'resource')} of {plan.environment} as declared."
        lines = [*lines[:-1], text] if shown else [text]
    if plan.extras:
        lines += ["", "Marked as Gamma's, but neither declared nor recorded here (left alone):"]
        lines += [f"  {extra}" for extra in plan.extras]
    return "\n".join([*lines, ""])


def headline(change: Change) -> str:
    """`update: drifted`, with the detail where there is one."""
    moved = (
        f", moved from {change.moved_from}" if change.moved_from and change.reason is not Reason.MOVED else ""
    )
    return f"{change.action.value}: {change.reason.value}{moved}" + (
        f": {change.detail}" if change.detail else ""
    )


def summary_line(plan: Plan) -> str:
    counted = plan.summary()
    parts = [f"{counted[action.value]} {said}" for action, said in _DOING.items() if counted[action.value]]
    return ("Plan: " if plan.steps else "Nothing to do: ") + (", ".join(parts) or "no resources") + "."


def plan_markdown(plan: Plan, impacts: Impacts | None = None) -> str:
    """For a pull request: the summary on top, each change folded with its fields as a diff."""
    lines = [f"### Gamma plan for `{plan.environment}`", "", f"**{summary_line(plan)}**", ""]
    shown = [change for change in plan.changes if change.action is not Action.KEEP]
    if shown:
        lines += ["| | resource | why |", "|---|---|---|"]
        for change in shown:
            why = _cell(headline(change) + _estimate(change, impacts))
            lines.append(f"| `{SYMBOLS[change.action]}` | `{change.address}` | {why} |")
        lines.append("")
    for change in shown:
        if fields := diff_lines(change):
            lines += ["<details><summary><code>" + str(change.address) + "</code></summary>", ""]
            lines += ["```diff", *fields, "```", "</details>", ""]
    if plan.extras:
        lines += [
            "Left alone, though marked as Gamma's: " + ", ".join(f"`{extra}`" for extra in plan.extras),
            "",
        ]
    lines += [
        f"<sub>plan <code>{plan.id[:12]}</code>"
        + (f" at <code>{plan.commit[:12]}</code>" if plan.commit else "")
    ]
    return "\n".join(lines) + "</sub>\n"


def value_text(value: Json) -> str:
    """A value on one line, secrets and unknowns in words."""
    if value is MISSING:
        return "(none)"
    if is_leaf(value):
        if SECRET in value:
            return f"(secret {value[SECRET]})"
        if TEMPLATE in value:
            return "".join(part if isinstance(part, str) else value_text(part) for part in value[TEMPLATE])
        return f"({value.get(UNKNOWN) or value.get(REF)})"
    return _cut(_whole(value))


def beside(*values: Json) -> list[str]:
    """Values that are compared, as `value_text`; of long ones the part in which they differ."""
    plain = [value for value in values if value is not MISSING and not is_leaf(value)]
    wholes = [_whole(value) for value in plain]
    skipped = 0
    if len(set(wholes)) > 1 and any(len(one) > WIDEST for one in wholes):
        alike = takewhile(lambda column: len(set(column)) == 1, zip(*wholes, strict=False))
        skipped = max(0, sum(1 for _ in alike) - LEAD)

    def shown(value: Json) -> str:
        if not skipped or value is MISSING or is_leaf(value):
            return value_text(value)
        return _cut("…" + _whole(value)[skipped:])

    return [shown(value) for value in values]


def _whole(value: Json) -> str:
    text = (
        value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False, sort_keys=True)
    )
    return " ".join(text.split())


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def changed_fields(change: Change) -> list[tuple[str, str]]:
    """Each field that differs: its path, and `live -> wanted` in words."""
    return [
        (written(field.path), _movement(change, field))
        for field in change.fields
        if not _noise(change, field)
    ]


def _field_lines(change: Change) -> list[str]:
    fields = changed_fields(change)
    width = max((len(path) for path, _ in fields), default=0)
    return [f"{path:<{width}}  {movement}" for path, movement in fields]


def _noise(change: Change, field: FieldChange) -> bool:
    """Fields of a creation that are empty say nothing; the JSON has them."""
    empty = field.wanted is False or field.wanted in (None, "", [])
    return change.action is Action.CREATE and (empty or field.wanted is MISSING)


def _movement(change: Change, field: FieldChange) -> str:
    was, wanted, live = beside(field.was, field.wanted, field.live)
    if change.action is Action.CREATE:
        return wanted
    match field.verdict:
        case Verdict.RELEASE:
            return f"{live} -> (unset)"
        case Verdict.FORGET:
            return f"left at {live}"
        case Verdict.DRIFT:
            return f"{live} -> {wanted}  (drifted)"
        case Verdict.CONFLICT:
            return f"{live} -> {wanted}  (last applied {was})"
        case Verdict.CHANGE if is_secret(field.wanted):
            return f"{wanted} changed"
        case Verdict.KEEP:
            return wanted
        case _:
            return f"{live} -> {wanted}"


def diff_lines(change: Change) -> list[str]:
    """The fields of a change as lines of a diff."""
    lines = []
    for field in change.fields:
        if _noise(change, field):
            continue
        name = written(field.path)
        if field.verdict in (Verdict.KEEP, Verdict.FORGET):
            lines.append(f"  {name}: {value_text(field.live)}")
            continue
        live, wanted = beside(field.live, field.wanted)
        if field.live is not MISSING:
            lines.append(f"- {name}: {live}")
        if field.wanted is not MISSING:
            lines.append(f"+ {name}: {wanted}")
    return lines


def _estimate(change: Change, impacts: Impacts | None) -> str:
    impact = (impacts or {}).get(change.address, NO_IMPACT)
    said = [impact.note] if impact.note else []
    if impact.seconds is not None:
        said.append(f"about {duration(impact.seconds)}, from {_count(impact.runs, 'past run')}")
    return f"  [{'; '.join(said)}]" if said else ""


def duration(seconds: float) -> str:
    """20 ms, 3.4 s, 2 min 05 s."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def diagnostic_json(diagnostic: Diagnostic) -> Json:
    span = diagnostic.span
    return {
        "severity": diagnostic.severity.value,
        "code": str(diagnostic.code),
        "message": diagnostic.message,
        "file": span.file if span else None,
        "line": span.line if span and span.line else None,
        "column": span.column if span and span.line else None,
        "path": written(diagnostic.path),
        "address": str(diagnostic.address) if diagnostic.address else None,
        "hint": diagnostic.hint,
    }


def diagnostic_text(diagnostic: Diagnostic) -> str:
    """`file:line:column: error GAM202 Kind/name spec.path: what is wrong` and the hint below."""
    place = f"{diagnostic.span}: " if diagnostic.span else ""
    about = " ".join(str(part) for part in (diagnostic.address, written(diagnostic.path)) if part)
    text = f"{place}{diagnostic.severity.value} {diagnostic.code}: {diagnostic.message}"
    if about:
        text += f"\n    in {about}"
    return text + (f"\n    hint: {diagnostic.hint}" if diagnostic.hint else "")


def diagnostics_text(diagnostics: Sequence[Diagnostic]) -> str:
    if not diagnostics:
        return ""
    return (
        "\n".join(map(diagnostic_text, diagnostics)) + f"\n\n{_count(len(diagnostics), 'problem')} found.\n"
    )


def status_json(environment: str, release: str, found: Sequence[Condition]) -> Json:
    return {
        "environment": environment,
        "release": release or None,
        "ready": overall(found) is Health.READY,
        "resources": [condition.encoded() for condition in found],
    }


def status_lines(environment: str, found: Sequence[Condition], everything: bool = False) -> list[str]:
    ready = sum(condition.health is Health.READY for condition in found)
    lines = [f"{environment}: {ready} of {_count(len(found), 'resource')} ready"]
    shown = [condition for condition in found if everything or condition.health is not Health.READY]
    width = max((len(str(condition.address)) for condition in shown), default=0)
    for condition in shown:
        text = f"  {condition.address!s:<{width}}  {condition.health.name.lower():<11}  {condition.reason}"
        lines.append(text + (f": {condition.message}" if condition.message else ""))
    return lines


def table_markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
