"""Which split a row belongs to: a function of its own text and the salt, and of nothing else.

So a row never changes its split because other rows came or went, because their order changed, or
because less of them is taken; and texts that differ only in case or blanks are never on both sides of
a border, where a model would be tested on what it has learnt. All pure. Called by `prepare_data`.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Mapping

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)


def normalised(text: str) -> str:
    """NFC, folded case, single blanks: what counts as the same text."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def hasher(salt: str) -> Callable[[str], str]:
    """sha256 of the salt and a normalised text, as 64 hex digits."""
    salted = hashlib.sha256(salt.encode())

    def of(text: str) -> str:
        one = salted.copy()
        one.update(text.encode("utf-8", "surrogatepass"))
        return one.hexdigest()

    return of


def split_of(digest: str, fractions: Mapping[str, float]) -> str:
    """u in [0, 1) from the first 32 bits; test takes the lowest, then validation, train the rest."""
    u = int(digest[:8], 16) / 2**32
    if u < (test := fractions.get(TEST, 0.0)):
        return TEST
    return VALIDATION if u < test + fractions.get(VALIDATION, 0.0) else TRAIN


def quotas(sizes: Mapping[str, int], limit: int | None) -> dict[str, int]:
    """How many rows of each split are taken: in proportion, rounded down.

    Rounding down never takes fewer where the limit grows, so that what a smaller limit takes is always part
    of what a larger one does. The sum may fall short of the limit by the number of splits.
    """
    total = sum(sizes.values())
    if limit is None or limit >= total:
        return dict(sizes)
    return {name: limit * size // total for name, size in sizes.items()}
