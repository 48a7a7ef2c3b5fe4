"""From a recipe to one model: build the candidates of a level, measure them, choose, prove, report.

A level is tried from the asked one down. On the validation split a choice is made: what is inside the budget
and, by the estimate, keeps the level's promise; of those the best. On the test split, which no choice has
seen, the promise is proved: by the lower bound of the paired interval. A candidate that cannot prove it is
out, and the next best is tried; a level with none left gives way to the one below, and the report says so.
A candidate that cannot be built (a runtime that does not know an operation) is out too, with its error.
Gates are tested last, on what was chosen. Nothing here points at anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import GatesFailed, Permanent
from gamma_orch.kinds.models import figures
from gamma_orch.kinds.models import gates as gating
from gamma_orch.kinds.models.building import Builder
from gamma_orch.kinds.models.choice import Budget, Choice, Objective, Shape, choose, pareto
from gamma_orch.kinds.models.choice import Candidate as Weighed
from gamma_orch.kinds.models.derivation import Derivation, in_order, title
from gamma_orch.kinds.models.figures import Quality
from gamma_orch.kinds.models.host import probe
from gamma_orch.kinds.models.ladder import PROMISES, Ladder, LevelResult, fallback
from gamma_orch.kinds.models.ladder import Measured as Standing
from gamma_orch.kinds.models.model_spec import datasets
from gamma_orch.kinds.models.recipe import Candidate, Recipe, Rung
from gamma_orch.spec.quantities import seconds_of, share_of, size_of
from gamma_orch.store.artifacts import Artifact


@dataclass(frozen=True, slots=True)
class Settled:
    chosen: Artifact
    report: Artifact
    outputs: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate that was built and measured."""

    rung: str
    candidate: Candidate
    artifact: Artifact
    validation: Quality | None
    speed: Json  # facts of the benchmark

    @property
    def name(self) -> str:
        return self.candidate.name


class OutOfBudget(Permanent):
    """No candidate is inside the budget."""


def select(wanted: Recipe, builder: Builder, address: Address) -> Settled:
    """Raises Permanent where nothing can be built, nothing is inside the budget, or a gate is not passed;
    Temporary where it may go better later."""
    if (settled := _before(wanted, builder)) is not None:
        return settled
    search = _Search(wanted, builder)
    tried, rung = search.run()
    test = search.quality(tried.candidate.measured, "test")
    verdicts = gating.judge(
        wanted.fields.get("gates", []), figures.for_gates(tried.speed, test, tried.artifact)
    )
    if failed := [verdict for verdict in verdicts if not verdict.passed]:
        raise GatesFailed(
            f"{tried.name} was built, and does not pass: "
            + "; ".join(f"{one.name}: {one.says}" for one in failed)
            + ". Nothing points at it. Change the model, or the gate.",
            {one.name: one.encoded() for one in verdicts},
        )
    facts = _facts(wanted, search, tried, rung, test, verdicts)
    told = {
        "name": address.name,
        "lineage": _lineage(builder, tried),
        "fields": dict(wanted.fields),
        "evaluation": search.evaluation(tried.candidate.measured, "test"),
        "data": [_data(builder, name, digest) for name, digest in datasets(wanted.fields)],
        "builtFor": builder.environment,
        "host": str(probe()),
    }
    report = builder.keep(wanted.choice, {**facts, **told}, facts)
    return Settled(tried.artifact, report, _outputs(report, tried.artifact))


def _before(wanted: Recipe, builder: Builder) -> Settled | None:
    """What an earlier build of the same recipe came to, where it is still there."""
    report = builder.store.find(wanted.choice.key)
    if report is None:
        return None
    chosen = builder.store.find(report.facts["chosen"]["key"])
    if chosen is None or builder.store.fault(chosen):
        derivation = _derivation(wanted, report.facts["chosen"]["key"])
        if derivation is None:
            return None
        builder.folder(derivation)  # builds it anew where it is damaged or gone
        chosen = builder.artifact(derivation)
    return Settled(chosen, report, _outputs(report, chosen))


def _derivation(wanted: Recipe, key: str) -> Derivation | None:
    every = (c.built for rung in wanted.rungs for c in rung.candidates)
    return next((one for one in every if one.key == key), None)


@dataclass(slots=True)
class _Search:
    wanted: Recipe
    builder: Builder
    tried: list[Tried] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # candidate -> why it could not be built
    sentences: list[str] = field(default_factory=list)  # what fell back, and why
    rejected: dict[str, list[str]] = field(default_factory=dict)
    budget: Budget = field(init=False)
    _qualities: dict[tuple[str, str], Quality | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.budget = budget_of(self.wanted.fields["budget"])

    def run(self) -> tuple[Tried, Rung]:
        self.builder.artifact(self.wanted.reference)
        for rung in self.wanted.rungs:
            measured = [tried for c in rung.candidates if (tried := self._try(rung, c)) is not None]
            while measured:
                choice = self._choose(rung, measured)
                if choice.chosen is None:
                    break
                best = next(one for one in measured if one.name == choice.chosen)
                if why := self._unproved(rung, best):
                    self.rejected.setdefault(best.name, []).append(why)
                    self.sentences.append(f"{best.name} is out: {why}")
                    measured.remove(best)
                    continue
                return best, rung
            if rung is not self.wanted.rungs[-1]:
                self.sentences.append(f"{rung.level} gives way: {self._why(rung)}")
        raise self._nothing()

    def quality(self, of: Derivation, split: str) -> Quality | None:
        """Measured once; None for a model that no data is given for."""
        if self.wanted.data is None:
            return None
        at = (of.key, split)
        if at not in self._qualities:
            facts = self.evaluation(of, split)
            self._qualities[at] = figures.quality(facts, is_reference=of.key == self.wanted.reference.key)
        return self._qualities[at]

    def evaluation(self, of: Derivation, split: str) -> Json:
        """All that `evaluate` has said of a model; None without data."""
        if self.wanted.data is None:
            return None
        return self.builder.artifact(self.wanted.evaluation(of, split)).facts

    def _try(self, rung: Rung, candidate: Candidate) -> Tried | None:
        try:
            artifact = self.builder.artifact(candidate.built)
            found = Tried(
                rung.level,
                candidate,
                artifact,
                self.quality(candidate.measured, "validation"),
                self.builder.artifact(self.wanted.benchmark(candidate.measured)).facts,
            )
        except Permanent as error:
            if self._is_only:
                raise
            self.failed[candidate.name] = str(error)
            return None
        self.tried.append(found)
        return found

    @property
    def _is_only(self) -> bool:
        """Whether there is no other candidate to go on with."""
        return sum(len(rung.candidates) for rung in self.wanted.rungs) == 1

    def _choose(self, rung: Rung, measured: list[Tried]) -> Choice:
        # Without data only levels that are at parity can be asked for, and their export has proved it.
        relative = self._promised(rung) or None if self.wanted.data is not None else None
        choice = choose([self.weighed(one) for one in measured], replace(self.budget, relative=relative))
        for name, why in choice.rejected.items():
            self.rejected[name] = list(why)
        return choice

    def weighed(self, tried: Tried) -> Weighed:
        """For the choice: by the estimate on the validation split. The bound is proved on the test split."""
        weighed = figures.weighed(
            tried.name, tried.artifact, tried.candidate.runtime, tried.speed, tried.validation
        )
        if weighed.relative is None:
            return weighed
        estimate = weighed.relative.value
        return replace(weighed, relative=replace(weighed.relative, low=estimate, high=estimate))

    def _promised(self, rung: Rung) -> float:
        """The least share of the source's quality: what the level promises, or the budget asks, if more."""
        return max(rung.quality, self.budget.relative or 0.0)

    def _unproved(self, rung: Rung, best: Tried) -> str:
        """Why a promise is not proved on the test split; empty where it is."""
        test = self.quality(best.candidate.measured, "test")
        least = self._promised(rung)
        if test is None or test.relative is None or least <= 0:
            return ""
        share = test.relative
        if share.low >= least:
            return ""
        return (
            f"on the test split it keeps {share.value:.2%} of the source's quality, of which only "
            f"{share.low:.2%} is certain (95 % interval to {share.high:.2%}); {least:.2%} is promised"
        )

    def _why(self, rung: Rung) -> str:
        parts = []
        for candidate in rung.candidates:
            if candidate.name in self.failed:
                parts.append(f"{candidate.name} could not be built: {self.failed[candidate.name]}")
            elif why := self.rejected.get(candidate.name):
                parts.append(f"{candidate.name}: {'; '.join(why)}")
        return " / ".join(parts) or "it has no candidate here"

    def _nothing(self) -> Permanent:
        if not self.tried:
            why = "; ".join(f"{name}: {error}" for name, error in self.failed.items())
            return Permanent(f"No candidate could be built. {why}")
        choice = choose([self.weighed(one) for one in self.tried], self.budget)
        nearest = choice.nearest or "each fails on the test split: " + "; ".join(self.sentences)
        return OutOfBudget(f"No candidate is inside the budget; {nearest}. Widen the budget.")


def budget_of(said: Json) -> Budget:
    """The budget of the fields, in numbers."""
    latency, quality = said.get("latency"), said.get("quality") or {}
    relative = quality.get("relative")
    return Budget(
        objective=Objective(said["objective"]),
        size=size_of(said["size"]) if said.get("size") else None,
        memory=size_of(said["memory"]) if said.get("memory") else None,
        latency=seconds_of(latency["p95"]) * 1000 if latency else None,
        shape=Shape(latency["batch"], latency["length"]) if latency else Shape(1, 128),
        quality=quality.get("least"),
        relative=share_of(relative) if relative is not None else None,
    )


def _facts(
    wanted: Recipe,
    search: _Search,
    tried: Tried,
    rung: Rung,
    test: Quality | None,
    verdicts: list[gating.Verdict],
) -> Json:
    """Everything that was found out, as JSON: the report's facts."""
    weighed = [search.weighed(one) for one in search.tried]
    reference = search.quality(wanted.reference, "test")
    stands = _stands(rung, tried, test)
    return {
        "task": wanted.task,
        "asked": wanted.rungs[0].level,
        "level": rung.level,
        "candidate": tried.name,
        "runtime": tried.candidate.runtime,
        "chosen": {"key": tried.artifact.key, "digest": tried.artifact.digest},
        "reference": {"key": wanted.reference.key},
        "outcome": figures.outcome(tried.speed, test, tried.artifact),
        "quality": test.encoded() if test else None,
        "source": reference.encoded() if reference else None,
        "gates": {one.name: one.encoded() for one in verdicts},
        "sentences": [*search.sentences, *(stands.sentences if stands else ())],
        "promises": dict(stands.promises[rung.level]) if stands else {},
        "table": [
            figures.row(one.rung, weighed[number], one.validation, one.speed, one.artifact)
            for number, one in enumerate(search.tried)
        ],
        "pareto": [one.name for one in pareto(weighed)],
        "rejected": search.rejected,
        "failed": search.failed,
        "speed": tried.speed,
    }


def _stands(rung: Rung, tried: Tried, test: Quality | None) -> Ladder | None:
    """What of the level's promise is kept and missed, with figures; None where no level was asked for."""
    if rung.level not in PROMISES:
        return None
    shares = tried.speed.get("shares") or {}
    measured = Standing(
        speed=tried.speed.get("speedup"),
        size=_saved(shares.get("weights")),
        memory=_saved(shares.get("memory")),
        quality=test.relative if test else None,
    )
    promise = replace(PROMISES[rung.level], quality=rung.quality if measured.quality else 0.0)
    return fallback([LevelResult(rung.level, promise, measured)])


def _saved(share: float | None) -> float | None:
    return None if share is None else 1 - share


def _outputs(report: Artifact, chosen: Artifact) -> Json:
    facts = report.facts
    outcome = facts["outcome"]
    return {
        "digest": chosen.digest,
        "key": chosen.key,
        "keys": [report.key, facts["reference"]["key"]],
        "level": facts["level"],
        "candidate": facts["candidate"],
        "runtime": facts["runtime"],
        "gates": facts["gates"],
        **{name: value for name, value in outcome.items() if value is not None},
    }


def _data(builder: Builder, name: str, digest: str) -> Json:
    facts = builder.given(digest).facts
    licence = facts.get("licence", "")
    return {"name": name, "digest": digest, "rows": facts.get("rows", {}), "licence": licence}


def _lineage(builder: Builder, tried: Tried) -> Json:
    """Every pass from the source to the chosen model, with what it said."""
    found = []
    for one in in_order(tried.candidate.built):
        artifact = builder.store.find(one.key)
        found.append(
            {
                "op": title(one.op),
                "params": one.params,
                "key": one.key,
                "tools": dict(one.tools),
                "facts": artifact.facts if artifact else {},
                "size": artifact.size if artifact else None,
                "seconds": artifact.seconds if artifact else None,
            }
        )
    return found
