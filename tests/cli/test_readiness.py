"""The readiness report's words, from numbers made up by hand."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from o2o_jax.cli import readiness
from o2o_jax.data.dataset import Dataset
from o2o_jax.diagnosis import Alignment, Coverage, CriticReport, Diagnosis, Samples, Value
from o2o_jax.runtime import log
from o2o_jax.types import Transition

SEEDS = 2


def both(value):
    return np.broadcast_to(np.asarray(value, np.float32), SEEDS).copy()


def critic(value=100.0, bias=0.0, overestimated=0.0, **numbers):
    names = [field.name for field in dataclasses.fields(CriticReport) if field.name != "samples"]
    numbers = {"value": value, "recorded": 100.0, "bias": bias, "overestimated": overestimated} | numbers
    samples = Samples(*(np.zeros((SEEDS, 4), np.float32) for _ in range(3)))
    return CriticReport(**{name: both(numbers.get(name, 0.5)) for name in names}, samples=samples)


def alignment(overestimated=0.0):
    names = [field.name for field in dataclasses.fields(Alignment)]
    return Alignment(**{name: both({"overestimated": overestimated}.get(name, 0.5)) for name in names})


def value(gap, error=0.0, advantage=None, data=100.0):
    numbers = (100.0, data, gap, error, gap if advantage is None else advantage, error)
    return Value(*map(both, numbers))


def dataset(returns=(80.0, 120.0)):
    rows, reward = len(returns), np.array(returns, np.float32)
    zeros = np.zeros((rows, 1), np.float32)
    return Dataset(Transition(zeros, zeros, reward, zeros, np.ones(rows, np.float32)), np.arange(1, rows + 1), "data")


def report(logged=None, coverage=(0.1, 0.1), deterministic=False, **parts):
    empty = dict.fromkeys(("offline", "reevaluated", "aligned", "shift", "alignment", "value"))
    distances = Coverage(*(np.full((SEEDS, 4), distance, np.float32) for distance in coverage))
    result = Diagnosis(**empty | parts, coverage=distances)
    return readiness.Report(
        "title", result, range(SEEDS), dataset(), dataset(), True, 0.05, deterministic, logged, ("a note",)
    )


@pytest.mark.parametrize(
    ("gap", "error", "expected"),
    [(10.0, 2.0, "better"), (10.0, 3.0, "like"), (5.0, 0.0, "like"), (-10.0, 2.0, "worse"), (-4.0, 0.0, "like")],
)  # margin 5 % of 100; 10 − 1.96 · 2 = 6.1 and 10 − 1.96 · 3 = 4.1
def test_the_regime_of_the_re_evaluated_critic(gap, error, expected):
    found = report(value=value(gap, error))
    assert found.regime() == expected
    assert found.regimes() == [expected] * SEEDS


def test_seeds_may_differ_and_their_mean_decides():
    found = report(value=value([30.0, 4.0]))
    assert found.regimes() == ["better", "like"]
    assert found.regime() == "better"  # 17
    assert "seeds: better 1, like 1" in readiness.page(found)


def test_a_band_that_is_too_wide_leaves_something_open():
    assert "which leaves worse open" in readiness.page(report(value=value(-20.0, advantage=0.0)))
    assert "which leaves worse and better open" in readiness.page(report(value=value(0.0, error=10.0)))
    assert "open" not in readiness.page(report(value=value(0.0)))


def test_a_seed_that_diverged_has_no_regime():
    found = report(value=value([np.nan, 20.0]))
    assert found.regimes() == [None, "better"]
    assert found.regime() is None
    text = readiness.page(found)
    assert "REGIME  unknown" in text
    assert "diverged 1" in text
    assert "ADVICE" not in text


@pytest.mark.parametrize(
    ("gap", "settings"),
    [
        (20.0, "--set=replay.mode=part --set=interaction.warmup_env_steps=5000 (O2TD3, O2SAC, TD3, SAC)"),
        (0.0, "--set=replay.mode=half (O2TD3, O2SAC, TD3, SAC)\n"),
        (-20.0, "--set=replay.mode=half --set=interaction.warmup_env_steps=0"),
    ],
)
def test_advice_follows_from_the_regime(gap, settings):
    text = readiness.page(report(value=value(gap)))
    assert settings in text
    assert "arXiv:2510.01460; which settings keep it is this package's inference" in text


def test_logged_evaluation_by_hand(tmp_path):
    with log.MetricLog(tmp_path) as metrics:
        metrics.write("evaluation", 1, {"return": both(0.0)})
        metrics.write("evaluation", 2, {"return": np.array([140.0, 160.0])})
    (tmp_path / "config.json").write_text(json.dumps({"eval_episodes": 4}))
    found = readiness.logged_gap(tmp_path, dataset())
    # 150 − 100 ∓ 1.96 · 20 · √(1 / (4 · 2) + 1 / 2)
    error = 1.96 * 20 * np.sqrt(1 / 8 + 1 / 2)
    np.testing.assert_allclose(dataclasses.astuple(found), [150.0, 100.0, 50.0 - error, 50.0 + error])
    assert report(logged=found).regime() == "better"
    doubtful = report(logged=found, value=value(0.0))
    assert doubtful.regime() == "like"  # the networks come first
    assert "they disagree: the score saw whole episodes" in readiness.page(doubtful)
    assert "better, other advice holds" in readiness.page(doubtful)
    assert "they disagree" not in readiness.page(report(logged=found, value=value(20.0)))
    assert readiness.logged_gap(tmp_path / "nothing", dataset()) is None


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"offline": critic(bias=-30.0)}, "a drop at first, since its values lie 30% below the returns"),
        ({"offline": critic(overestimated=0.4)}, "a drop at first, since it rates 40% of probes above"),
        ({"offline": critic(bias=10.0, overestimated=0.05)}, "no mismatch that foretells a drop"),
        (
            # against the re-evaluated critic where there is one: a good policy is rightly worth more than the returns
            {"offline": critic(bias=50.0), "reevaluated": critic(value=150.0), "shift": both(0.0)},
            "no mismatch that foretells a drop",
        ),
        (
            {"offline": critic(), "reevaluated": critic(value=200.0), "shift": both(-100.0)},
            "its values lie 50% below those of the re-evaluated critic",
        ),
        (
            {"reevaluated": critic(74.0, recorded=237.0, spread=100.0, correlation=0.06)},
            "the re-evaluated critic is not to be trusted: it is worth 74 where returns are 237 and orders them at "
            "0.06: re-evaluate longer",
        ),
        (
            {"reevaluated": critic(229.0, recorded=237.0, spread=100.0, correlation=0.94)},
            "the re-evaluated critic can be trusted: it is worth 229 where returns are 237 and orders them at 0.94",
        ),
        (
            {"reevaluated": critic(480.0, recorded=500.0, spread=20.0, correlation=0.1)},
            "the re-evaluated critic can be trusted: it is worth 480 where returns are 500 and they are too alike",
        ),
        ({"alignment": alignment(0.09)}, "9% of its actor's probes are still overestimated: few enough"),
        ({"alignment": alignment(0.3)}, "30% of its actor's probes are still overestimated: align longer"),
        ({"coverage": (0.3, 0.1)}, "3.0 times as far from the dataset as its own are: re-evaluation extrapolates"),
        ({}, "1.0 times as far from the dataset as its own are: covered by the data"),
    ],
)
def test_what_to_expect(parts, expected):
    assert expected in "\n".join(readiness.expectations(report(**parts)))


def test_a_critic_without_returns_to_compare_with_is_not_judged():
    unknown = critic(np.nan, recorded=np.nan, spread=np.nan, correlation=np.nan)
    assert "trusted" not in "\n".join(readiness.expectations(report(reevaluated=unknown)))


def test_notes_say_what_the_numbers_rest_on():
    text = "\n".join(readiness.notes(report(offline=critic(), reevaluated=critic())))
    assert "2 episodes of the dataset itself: SEEN IN TRAINING" in text
    assert "offline and re-evaluated critic add up other rewards, or discount them otherwise: not compared" in text
    assert text.endswith("a note")
    nothing = critic()
    nothing = nothing.replace(recorded=both(np.nan))
    assert "no recorded return counts" in "\n".join(readiness.notes(report(offline=nothing)))


@pytest.mark.parametrize("deterministic", [True, False])
def test_notes_depend_on_the_kind_of_policy(deterministic):
    found = report(alignment=alignment(), value=value(0.0), deterministic=deterministic)
    text = "\n".join(readiness.notes(found))
    assert ("Proposition 4.3 is proved for Eq. (12)" in text) == deterministic
    assert ("value is that of its samples" in text) != deterministic


def test_measures_are_numbers_per_seed():
    numbers = readiness.measures(report(offline=critic(bias=[1.0, 2.0]), coverage=(0.3, 0.1)).result)
    np.testing.assert_array_equal(numbers["offline.bias"], [1.0, 2.0])
    np.testing.assert_allclose(numbers["coverage.policy"], [0.3, 0.3], rtol=1e-6)  # the mean over states
    assert not [name for name in numbers if "samples" in name]
    assert all(column.shape == (SEEDS,) for column in numbers.values())


def test_numbers_that_are_none_are_null(tmp_path):
    found = report(value=value([np.nan, 20.0], np.inf))
    readiness.write(found, {}, tmp_path)
    record = json.loads((tmp_path / "diagnosis.json").read_text(), parse_constant=pytest.fail)
    assert record["measures"]["value.gap"] == [None, 20.0]
    assert record["measures"]["value.gap_error"] == [None, None]
    assert (record["regime"], record["advice"]) == (None, None)


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"pip install 'o2o_jax\[plot\]'"):
        readiness.draw(report(), tmp_path / "figure.png")
