"""Which level of optimization keeps its promise: the asked one, or the last below it that does. Pure.

A level promises a share of the source's quality, and that binds: a level whose lower bound is under its
promise gives way to the one below, and a sentence says so with its figures. It also promises speed, size
and memory, which are reported as kept or missed and make nothing fall back: a model that is good, and 3.4
instead of 3.5 times as fast, is still the best there is.

Called by `selection`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gamma_orch.core.canonical import Json
from gamma_orch.kinds.models.intervals import Interval

LEVELS = ("none", "basic", "advanced", "ultra")


class Kept(StrEnum):
    KEPT = "kept"
    MISSED = "missed"
    UNKNOWN = "unknown"  # promised, and not measured


@dataclass(frozen=True, slots=True)
class Promise:
    """As shares of the source's. None: nothing is promised."""

    quality: float = 0.0  # least, of the lower bound
    speed: float | None = None  # times as fast, at least
    size: float | None = None  # share that is saved, at least: 0.74
    memory: float | None = None  # share that is saved, at least


# Of a level, on an encoder of sentences. basic is an exported graph at parity with PyTorch, which the export
# itself checks.
PROMISES: Mapping[str, Promise] = {
    "none": Promise(),
    "basic": Promise(quality=0.995, speed=1.3),
    "advanced": Promise(quality=0.995, speed=3.5, size=0.74),
    "ultra": Promise(quality=0.99, speed=6.0, size=0.8, memory=0.5),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One model beside its source."""

    speed: float | None = None
    size: float | None = None
    memory: float | None = None
    quality: Interval | None = None


@dataclass(frozen=True, slots=True)
class LevelResult:
    level: str
    promise: Promise
    measured: Measured | None  # None: nothing could be built at this level
    why: str = ""  # why nothing could be built


@dataclass(frozen=True, slots=True)
class Ladder:
    level: str | None  # None: not even the lowest keeps its promise
    sentences: tuple[str, ...]  # a level each, the asked one first, down to the one that stands
    promises: Mapping[str, Mapping[str, Kept]]  # by level, by what was promised

    @property
    def fell(self) -> bool:
        return len(self.sentences) > 1 or self.level is None

    def encoded(self) -> Json:
        return {
            "level": self.level,
            "sentences": list(self.sentences),
            "promises": {level: dict(kept) for level, kept in self.promises.items()},
        }


def fallback(levels: Sequence[LevelResult]) -> Ladder:
    """`levels`: the asked one and those below it, in any order. Raises ValueError for none."""
    if not levels:
        raise ValueError("there is no level to look at")
    if strange := [one.level for one in levels if one.level not in LEVELS]:
        raise ValueError(f"{strange[0]} is no level; there are: {', '.join(LEVELS)}")
    ordered = sorted(levels, key=lambda one: LEVELS.index(one.level), reverse=True)
    sentences, promises = [], {}
    for one in ordered:
        promises[one.level] = dict(_kept(one))
        stands = one.measured is not None and promises[one.level]["quality"] is Kept.KEPT
        sentences.append(_sentence(one, promises[one.level], stands))
        if stands:
            return Ladder(one.level, tuple(sentences), promises)
    return Ladder(None, tuple(sentences), promises)


def _kept(one: LevelResult) -> Iterator[tuple[str, Kept]]:
    found, promise = one.measured or Measured(), one.promise
    if promise.quality <= 0:
        yield "quality", Kept.KEPT
    else:
        yield "quality", _at_least(found.quality.low if found.quality else None, promise.quality)
    pairs = (
        ("speed", found.speed, promise.speed),
        ("size", found.size, promise.size),
        ("memory", found.memory, promise.memory),
    )
    for name, value, least in pairs:
        if least is not None:
            yield name, _at_least(value, least)


def _at_least(value: float | None, least: float) -> Kept:
    if value is None:
        return Kept.UNKNOWN
    return Kept.KEPT if value >= least else Kept.MISSED


def _sentence(one: LevelResult, kept: Mapping[str, Kept], stands: bool) -> str:
    if one.measured is None:
        return f"{one.level} falls back: {one.why.rstrip('.') or 'nothing could be built at this level'}."
    quality = one.measured.quality
    if quality is None and not stands:
        promised = f"{one.promise.quality:.2%}"
        return f"{one.level} falls back: its quality was not measured, and it promises {promised}."
    if quality is not None and not stands:
        text = (
            f"{one.level} falls back: it keeps {quality.value:.2%} of the source's quality, but only "
            f"{quality.low:.2%} is certain (95% interval {quality.low:.2%} to {quality.high:.2%}), and it "
            f"promises {one.promise.quality:.2%}"
        )
        more = "; more rows would narrow the interval" if quality.value >= one.promise.quality else ""
        return f"{text}{more}."
    said = [f"at least {quality.low:.2%} of the source's quality"] if quality is not None else []
    said += [_figure(name, one.measured, one.promise, kept[name]) for name in kept if name != "quality"]
    return f"{one.level} stands: {', '.join(said) or 'it is the source as it was'}."


def _figure(name: str, found: Measured, promise: Promise, kept: Kept) -> str:
    value, least = getattr(found, name), getattr(promise, name)
    if kept is Kept.UNKNOWN:
        return f"{name} not measured"
    if name == "speed":
        text, wanted = f"{value:.2f} times as fast", f"{least:.2f}"
    else:
        text, wanted = f"{value:.0%} less {name}", f"{least:.0%}"
    return text if kept is Kept.KEPT else f"{text} (promised {wanted}: missed)"
