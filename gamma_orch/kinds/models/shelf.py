"""What stands in the store, for people: which environment points at what, and how models compare.

Called by `gamma models`. Reads pointers and manifests, and no weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import did_you_mean
from gamma_orch.core.provider import GammaError
from gamma_orch.core.render import duration
from gamma_orch.store.artifacts import Artifact, Artifacts

LEAST_DIGITS = 6  # of a digest or key, to be found by


@dataclass(frozen=True, slots=True)
class Pointed:
    """An artifact, and who points at it; `address` is empty for one that nobody points at by name."""

    environment: str
    address: str
    key: str
    digest: str
    outputs: Json
    report: str  # the key of the report; empty where there is none
    built_at: str = ""

    @property
    def title(self) -> str:
        if not self.address:
            return self.digest[:12]
        return f"{self.environment}:{self.address.partition('/')[2]}"

    def encoded(self) -> Json:
        return {
            "environment": self.environment,
            "address": self.address,
            "key": self.key,
            "digest": self.digest,
            "builtAt": self.built_at,
            **{name: value for name, value in self.outputs.items() if name not in ("key", "digest")},
        }


def pointed(store: Artifacts) -> list[Pointed]:
    """Everything that an environment points at, by address and environment. Raises StoreError."""
    built = {artifact.key: artifact for artifact in store.all()}
    found = [_pointed(at, body, built.get(body["key"])) for at, body in store.pointers().items()]
    return sorted(found, key=lambda one: (one.address, one.environment))


def _pointed(at: tuple[str, str], body: Json, artifact: Artifact | None) -> Pointed:
    told = body.get("told") or {}
    return Pointed(
        environment=at[0],
        address=at[1],
        key=body["key"],
        digest=body["digest"],
        outputs=body["outputs"],
        report=told.get("report", ""),
        built_at=artifact.built_at if artifact else "",
    )


def find(store: Artifacts, name: str, environment: str) -> Pointed:
    """By `model`, `Kind/model`, `environment:model`, or the first digits of a digest or key.

    Raises GammaError with the nearest name.
    """
    all_of = pointed(store)
    where, _, wanted = name.rpartition(":")
    for one in all_of:
        if one.environment == (where or environment) and wanted in (one.address, _short(one.address)):
            return one
    if len(name) >= LEAST_DIGITS:
        for one in all_of:
            if one.digest.startswith(name) or one.key.startswith(name):
                return one
        for artifact in store.all():
            if artifact.digest.startswith(name) or artifact.key.startswith(name):
                return _unnamed(artifact)
    known = sorted({_short(one.address) for one in all_of if one.environment == (where or environment)})
    hint = did_you_mean(wanted, known) if known else "nothing is built there yet"
    raise GammaError(f"{where or environment} has no model {wanted!r} in this store; {hint}")


def _unnamed(artifact: Artifact) -> Pointed:
    facts = artifact.facts if isinstance(artifact.facts, dict) else {}
    return Pointed(
        "", "", artifact.key, artifact.digest, {"size": artifact.size, **facts}, "", artifact.built_at
    )


def _short(address: str) -> str:
    return address.partition("/")[2]


def card(store: Artifacts, one: Pointed) -> str:
    """The model card, in Markdown. Raises GammaError where there is none."""
    report = store.find(one.report) if one.report else None
    if report is None:
        said = "\n".join(
            f"{name}: {value}" for name, value in one.encoded().items() if value not in (None, "")
        )
        return said + "\n"
    return (store.folder(report) / "card.md").read_text(encoding="utf-8")


def row(one: Pointed) -> tuple[str, ...]:
    """A line of `gamma models ls`."""
    outputs = one.outputs
    rows = outputs.get("rows")
    what = outputs.get("candidate") or (f"{sum(rows.values()):,} rows" if isinstance(rows, dict) else "")
    return (
        one.environment,
        one.address,
        one.digest[:12],
        str(what),
        megabytes(outputs.get("size")),
        quality(outputs),
        _time(outputs.get("p95")),
        one.built_at[:16].replace("T", " "),
    )


def compared(all_of: Sequence[Pointed]) -> list[tuple[str, ...]]:
    """Rows of figures, a column a model; those that no model has are left out."""
    figures: dict[str, Callable[[Json], str]] = {
        "artifact": lambda o: o["digest"][:12],
        "level": lambda o: str(o.get("level") or ""),
        "candidate": lambda o: str(o.get("candidate") or ""),
        "runtime": lambda o: str(o.get("runtime") or ""),
        "size": lambda o: megabytes(o.get("size")),
        "memory": lambda o: megabytes(o.get("memory")),
        "quality": quality,
        "of the source's": _relative,
        "p95": lambda o: _time(o.get("p95")),
        "speedup": lambda o: f"{o['speedup']:.2f}x" if o.get("speedup") else "",
        "tokens/s": lambda o: f"{o['tokensPerSecond']:.1f}" if o.get("tokensPerSecond") else "",
        "load": lambda o: _time(o.get("load")),
    }
    rows = [
        (name, *(figure({**one.outputs, "digest": one.digest}) for one in all_of))
        for name, figure in figures.items()
    ]
    return [row for row in rows if any(row[1:])]


def megabytes(size: float | None) -> str:
    return f"{size / 1e6:,.1f} MB" if size else ""


def quality(outputs: Json) -> str:
    value = outputs.get("quality")
    return f"{outputs.get('metric')} {value:.4g}" if value is not None else ""


def _relative(outputs: Json) -> str:
    share = outputs.get("relative")
    return f"{share['value']:.2%} ({share['low']:.2%} to {share['high']:.2%})" if share else ""


def _time(seconds: float | None) -> str:
    if seconds and seconds < 0.01:
        return f"{seconds * 1000:.2g} ms"
    return duration(seconds) if seconds else ""
