"""What a build will cost and come to, from what was built before: shown in the plan, and compared with what
came out afterwards.

A pass is taken to last as long as the pass of that name whose parameters were most alike, the latest of
those. Size, latency and quality are taken from the last model with the same task and level.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gamma_orch.core.canonical import Json
from gamma_orch.core.change import Impact
from gamma_orch.core.render import duration
from gamma_orch.kinds.models.derivation import Derivation, in_order, title
from gamma_orch.kinds.models.pointing import built_before
from gamma_orch.kinds.models.recipe import Recipe
from gamma_orch.store.artifacts import Artifact, Artifacts

REPORT = "report"


@dataclass(frozen=True, slots=True)
class Forecast:
    reuse: Artifact | None  # the report of a build of the same recipe; then nothing is built
    missing: tuple[Derivation, ...] = ()  # what the asked level has to build, in order
    seconds: float | None = None  # None: some of it was never built before
    like: Json = None  # what the last model of the same task and level came to
    runs: int = 0  # how many earlier passes the seconds rest on

    def encoded(self) -> Json:
        """What is kept beside the pointer, to be told beside what came out."""
        if self.reuse is not None:
            return None
        return {"seconds": self.seconds, "passes": len(self.missing), **(self.like or {})}

    def impact(self, pointed: bool) -> Impact:
        """For the plan. `pointed`: the environment points at another artifact now."""
        if self.reuse is not None:
            verb = "point" if pointed else "reuse"
            return Impact(note=f"{verb} ({built_before(self.reuse)})")
        names = list(dict.fromkeys(title(one.op) for one in self.missing))
        said = f"build: {len(self.missing)} passes ({', '.join(names)})"
        if self.seconds is not None:
            said += f", about {duration(self.seconds)}"
        if self.like:
            said += f"; then about {expected(self.like)}"
        return Impact(note=said)


def expected(like: Json) -> str:
    """`23 MB, p95 8.1 ms, accuracy 0.861` of what is known of a build."""
    parts = []
    if like.get("size"):
        parts.append(f"{like['size'] / 1e6:.1f} MB")
    if like.get("p95"):
        parts.append(f"p95 {like['p95'] * 1000:.2g} ms")
    if like.get("quality") is not None:
        parts.append(f"{like['metric']} {like['quality']:.4g}")
    return ", ".join(parts) or "nothing measured"


def forecast(store: Artifacts, recipe: Recipe) -> Forecast:
    """Raises StoreError where the store cannot be read."""
    found = store.find(recipe.choice.key)
    if found is not None and store.find(found.facts["chosen"]["key"]) is not None:
        return Forecast(found)
    built = store.all()
    there = {artifact.key for artifact in built}
    missing = [one for one in in_order(*_asked(recipe)) if one.key not in there]
    seconds = [_seconds(one, built) for one in missing]
    known = [s for s in seconds if s is not None]
    return Forecast(
        reuse=None,
        missing=tuple(missing),
        seconds=sum(known) if len(known) == len(seconds) and known else None,
        like=_alike(recipe, built),
        runs=len(known),
    )


def _asked(recipe: Recipe) -> Iterable[Derivation]:
    for candidate in recipe.rungs[0].candidates:
        yield candidate.built
        if recipe.data is not None:
            yield recipe.evaluation(candidate.measured, "validation")
        yield recipe.benchmark(candidate.measured)
    if recipe.data is not None:  # one of them is proved
        yield recipe.evaluation(recipe.rungs[0].candidates[0].measured, "test")


def _seconds(wanted: Derivation, built: Sequence[Artifact]) -> float | None:
    same = [one for one in built if one.recipe.get("op") == wanted.op]
    if not same:
        return None

    def likeness(artifact: Artifact) -> tuple[int, str]:
        params = artifact.recipe.get("params", {})
        return sum(params.get(name) == value for name, value in wanted.params.items()), artifact.built_at

    return max(same, key=likeness).seconds


def _alike(recipe: Recipe, built: Sequence[Artifact]) -> Json:
    reports = [
        one
        for one in built
        if one.recipe.get("op") == REPORT
        and one.facts.get("task") == recipe.task
        and one.facts.get("asked") == recipe.rungs[0].level
    ]
    if not reports:
        return None
    facts = max(reports, key=lambda one: one.built_at).facts
    return facts.get("outcome")
