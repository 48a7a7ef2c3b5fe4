"""Which token comes next: the likeliest, or one drawn from the likely ones."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Sampling:
    """Greedy unless a temperature is given."""

    temperature: float = 0.0  # 0: always the likeliest token
    top_p: float = 1.0  # draw from the smallest set of tokens that has this share of the probability
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                "temperature is at least 0, and top_p above 0 and at most 1, "
                f"not {self.temperature} and {self.top_p}."
            )


class Chooser:
    """Chooses for one generation. Each row draws from a stream of its own, so that what a prompt becomes
    does not depend on what else is in the batch."""

    def __init__(self, sampling: Sampling, rows: int) -> None:
        import numpy as np

        self._sampling = sampling
        self._draws = [np.random.default_rng((sampling.seed, 0)) for _ in range(rows)]

    def next(self, logits: "np.ndarray") -> "np.ndarray":
        """int64 [rows] for float32 [rows, vocabulary]."""
        import numpy as np

        if self._sampling.temperature == 0:
            return logits.argmax(axis=-1).astype(np.int64)
        return np.array(
            [self._draw(row, draw) for row, draw in zip(logits, self._draws, strict=True)], dtype=np.int64
        )

    def _draw(self, logits: "np.ndarray", draw: "np.random.Generator") -> int:
        import numpy as np

        scaled = logits.astype(np.float64) / self._sampling.temperature
        likely = np.exp(scaled - scaled.max())
        likely /= likely.sum()
        order = np.argsort(-likely, kind="stable")
        # Nucleus: a token stays while the ones before it have less than top_p together (Holtzman et al.
        # 2020).
        before = np.cumsum(likely[order]) - likely[order]
        kept = order[before < self._sampling.top_p]
        return int(draw.choice(kept, p=likely[kept] / likely[kept].sum()))
