"""Intervals: against closed forms, against drawing rows one by one, and what they promise of themselves."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.kinds.models.intervals import Interval, interval, mcnemar, mean, paired_means, sums


def right(both: int, only_ours: int, only_theirs: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    ours: np.ndarray = np.repeat([1, 1, 0, 0], [both, only_ours, only_theirs, neither])
    theirs: np.ndarray = np.repeat([1, 0, 1, 0], [both, only_ours, only_theirs, neither])
    return ours, theirs


def test_the_interval_of_a_share_is_the_normal_one():
    found = mean(np.repeat([1, 0], [4300, 700]))
    error = 1.96 * math.sqrt(0.86 * 0.14 / 5000)
    assert found.value == 0.86
    assert found.low == pytest.approx(0.86 - error, abs=6e-4)
    assert found.high == pytest.approx(0.86 + error, abs=6e-4)


def test_a_difference_is_as_wide_as_the_discordant_rows_make_it():
    ours, theirs = right(4200, 60, 80, 660)
    found = paired_means(ours, theirs).difference
    spread = math.sqrt((140 - 20**2 / 5000) / 5000**2)  # of a difference of paired shares
    assert found.value == pytest.approx(-20 / 5000)
    assert found.low == pytest.approx(found.value - 1.96 * spread, abs=4e-4)
    assert found.high == pytest.approx(found.value + 1.96 * spread, abs=4e-4)


def test_drawing_kinds_of_rows_is_drawing_rows():
    """The multinomial over like rows and the plain bootstrap have one distribution."""
    ours, theirs = right(300, 15, 25, 60)
    grouped = sums(np.column_stack([ours, theirs]), draws=20_000, seed=1)
    random = np.random.default_rng(2)
    rows = random.integers(0, 400, size=(20_000, 400))
    plain = np.column_stack([ours[rows].sum(1), theirs[rows].sum(1)])
    for percent in (2.5, 25, 50, 75, 97.5):
        assert np.percentile(grouped[:, 0] / grouped[:, 1], percent) == pytest.approx(
            np.percentile(plain[:, 0] / plain[:, 1], percent), abs=3e-3
        )


def test_pairing_narrows():
    ours, theirs = right(4200, 60, 80, 660)
    random = np.random.default_rng(0)
    together = paired_means(ours, theirs).difference
    apart = paired_means(ours, random.permutation(theirs)).difference
    assert together.high - together.low < (apart.high - apart.low) / 2


def test_the_same_rows_give_the_same_interval_whatever_their_order():
    ours, theirs = right(400, 11, 9, 80)
    order = np.random.default_rng(3).permutation(500)
    assert paired_means(ours, theirs) == paired_means(ours[order], theirs[order])


def test_many_different_values_are_drawn_in_pieces():
    values = np.random.default_rng(0).normal(3, 1, 5000)
    found = mean(values)
    assert found.low == pytest.approx(values.mean() - 1.96 / math.sqrt(5000), abs=2e-3)
    assert found.high == pytest.approx(values.mean() + 1.96 / math.sqrt(5000), abs=2e-3)


def test_models_that_never_differ():
    ours, _ = right(400, 0, 0, 100)
    found = paired_means(ours, ours)
    assert found.difference == Interval(0, 0, 0)
    assert found.ratio == Interval(1, 1, 1)


def test_no_ratio_to_a_reference_that_is_never_right():
    ours, theirs = right(0, 10, 0, 90)
    found = paired_means(ours, theirs)
    assert found.ratio is None
    assert found.encoded()["ratio"] is None
    assert found.difference.value == pytest.approx(0.1)


def test_draws_without_a_value_are_left_out():
    table = np.array([[1.0, 1.0], [1.0, 0.0]])  # a quarter of the draws have no denominator
    found = interval(table, lambda t: t[:, 0] / t[:, 1])
    assert found is not None
    assert math.isfinite(found.low)
    assert math.isfinite(found.high)


@pytest.mark.parametrize("rows", [np.empty((0, 2)), np.empty(3)])
def test_nothing_to_draw_from(rows: np.ndarray):
    with pytest.raises(ValueError, match="a bootstrap needs rows"):
        sums(rows)


def test_mcnemar_by_hand():
    ours, theirs = right(50, 2, 8, 10)
    # P(X <= 2) for ten fair coins is 56/1024; both sides make twice that.
    assert mcnemar(ours, theirs) == (2, 8, 112 / 1024)
    assert mcnemar(*right(50, 0, 0, 9)) == (0, 0, 1.0)
    assert mcnemar(*right(50, 4, 4, 9)) == (4, 4, 1.0)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_sign_test(gained: int, lost: int):
    flips = gained + lost
    tail = sum(math.comb(flips, k) for k in range(min(gained, lost) + 1))
    assert mcnemar(*right(3, gained, lost, 5)) == (
        gained,
        lost,
        min(1.0, float(Fraction(2 * tail, 2**flips))),
    )


@given(st.integers(0, 60), st.integers(0, 30), st.integers(0, 30), st.integers(0, 60))
def test_the_value_lies_in_its_interval(both: int, ours: int, theirs: int, neither: int):
    if both + ours + theirs + neither == 0:
        return
    found = paired_means(*right(both, ours, theirs, neither))
    assert found.difference.low - 1e-12 <= found.difference.value <= found.difference.high + 1e-12
    assert Interval.decoded(found.difference.encoded()) == found.difference
