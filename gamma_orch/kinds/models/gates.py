"""Gates of a Model: what must hold before anything points at it. Pure.

Of a quality the unlucky end of the 95 % interval is tested, not the estimate: a model that may well be below
the bound is not let through because the test split was kind to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gamma_orch.core.canonical import Json

UNITS = {
    "p50": " ms", "p95": " ms", "size": " MB", "memory": " MB", "load": " s",
    "tokens-per-second": " tokens/s", "speedup": "x",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure, with its interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    name: str
    passed: bool
    says: str

    def encoded(self) -> Json:
        return {"passed": self.passed, "says": self.says}


def name(gate: Json) -> str:
    """`accuracy`, or `p95 1x128` where the shape matters. With both bounds it is still one gate."""
    if gate["metric"] in ("p50", "p95"):
        return f"{gate['metric']} {gate['batch']}x{gate['length']}"
    return str(gate["metric"])


def asked(gate: Json) -> str:
    unit = UNITS.get(gate["metric"], "")
    bounds = [("at least", gate.get("min")), ("at most", gate.get("max"))]
    said = " and ".join(f"{word} {bound:g}{unit}" for word, bound in bounds if bound is not None)
    return f"{name(gate)} {said}"


def judge(gates: Sequence[Json], measured: Mapping[str, Measured]) -> list[Verdict]:
    """`measured`: by the gate's name. What was not measured does not pass."""
    return [_judge(gate, measured.get(name(gate))) for gate in gates]


def _judge(gate: Json, found: Measured | None) -> Verdict:
    if found is None:
        return Verdict(name(gate), False, f"{asked(gate)}: it was not measured")
    unit = UNITS.get(gate["metric"], "")
    least, most = gate.get("min"), gate.get("max")
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    passed = (least is None or low >= least) and (most is None or high <= most)
    says = f"{found.value:.4g}{unit}"
    if found.low is not None and found.high is not None:
        says += f" (95 % interval {found.low:.4g} to {found.high:.4g})"
    return Verdict(name(gate), passed, f"{says}; asked for {asked(gate)}")
