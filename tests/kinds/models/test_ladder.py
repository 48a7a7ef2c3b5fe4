"""Levels and their promises: quality binds, the rest is told."""

import pytest

from gamma_orch.kinds.models.intervals import Interval
from gamma_orch.kinds.models.ladder import Kept, LevelResult, Measured, Promise, fallback

NONE = LevelResult("none", Promise(), Measured(1.0, 0.0, 0.0, None))
BASIC = LevelResult(
    "basic", Promise(0.995, speed=1.3), Measured(1.6, 0.0, -0.1, Interval(1.0, 0.9995, 1.0005))
)
ADVANCED = LevelResult(
    "advanced",
    Promise(0.995, speed=3.5, size=0.74),
    Measured(4.12, 0.747, 0.2, Interval(1.0023, 0.9954, 1.0094)),
)
ULTRA = LevelResult(
    "ultra",
    Promise(0.99, speed=6, size=0.8, memory=0.5),
    Measured(7.5, 0.805, 0.45, Interval(0.9899, 0.9758, 1.004)),
)


def test_a_level_that_keeps_everything():
    found = fallback([ADVANCED, BASIC, NONE])
    assert found.level == "advanced"
    assert not found.fell
    assert found.sentences == (
        "advanced stands: at least 99.54% of the source's quality, 4.12 times as fast, 75% less size.",
    )
    assert found.promises == {
        "advanced": {"quality": Kept.KEPT, "speed": Kept.KEPT, "size": Kept.KEPT},
    }


def test_a_level_that_is_not_good_enough_gives_way():
    found = fallback([NONE, ULTRA, BASIC, ADVANCED])
    assert found.level == "advanced"
    assert found.fell
    assert found.sentences[0] == (
        "ultra falls back: it keeps 98.99% of the source's quality, but only 97.58% is certain (95% "
        "interval 97.58% to 100.40%), and it promises 99.00%."
    )
    assert found.sentences[1].startswith("advanced stands")
    assert found.promises["ultra"]["memory"] is Kept.MISSED
    assert found.encoded()["promises"]["ultra"]["quality"] == "missed"


def test_more_rows_would_help_where_the_estimate_is_good():
    good = Measured(7.5, 0.8, 0.5, Interval(0.993, 0.985, 1.001))
    [first, _] = fallback([LevelResult("ultra", ULTRA.promise, good), ADVANCED]).sentences
    assert first.endswith("promises 99.00%; more rows would narrow the interval.")


def test_a_missed_speed_makes_nothing_fall():
    slow = LevelResult("advanced", ADVANCED.promise, Measured(3.4, 0.7, None, Interval(1, 0.996, 1.01)))
    found = fallback([slow, BASIC])
    assert found.level == "advanced"
    assert found.promises["advanced"]["speed"] is Kept.MISSED
    assert "3.40 times as fast (promised 3.50: missed)" in found.sentences[0]
    assert "70% less size (promised 74%: missed)" in found.sentences[0]


def test_what_could_not_be_built_gives_way():
    broken = LevelResult("ultra", ULTRA.promise, None, "gpt2 cannot be pruned here.")
    found = fallback([broken, ADVANCED])
    assert found.sentences[0] == "ultra falls back: gpt2 cannot be pruned here."
    assert found.level == "advanced"


def test_an_unmeasured_quality_keeps_no_promise():
    unknown = LevelResult("advanced", ADVANCED.promise, Measured(4, 0.75))
    found = fallback([unknown, NONE])
    assert found.level == "none"
    assert found.sentences == (
        "advanced falls back: its quality was not measured, and it promises 99.50%.",
        "none stands: it is the source as it was.",
    )
    assert found.promises["advanced"]["quality"] is Kept.UNKNOWN


def test_not_even_the_lowest():
    found = fallback([ULTRA])
    assert (found.level, found.fell) == (None, True)
    with pytest.raises(ValueError, match="no level"):
        fallback([])
    with pytest.raises(ValueError, match="extreme"):
        fallback([LevelResult("extreme", Promise(), None)])


@pytest.mark.parametrize(("low", "stands"), [(0.995, True), (0.99499, False)])
def test_the_bound_itself_is_kept(low: float, stands: bool):
    exact = LevelResult("advanced", Promise(0.995), Measured(quality=Interval(1.0, low, 1.01)))
    assert (fallback([exact]).level == "advanced") is stands
