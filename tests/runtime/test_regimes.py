"""The regimes of `replay=auto`, from returns made up by hand."""

import types

import numpy as np
import pytest

from o2o_jax.diagnosis import REGIMES
from o2o_jax.online import o2td3
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.regimes import replay_regimes
from o2o_jax.runtime.setup import Setup
from o2o_jax.types import Spec
from tests import tiny

DATA = types.SimpleNamespace(returns=lambda: np.array([90.0, 110.0]))  # 100 ± 10: a margin of 5
ALGORITHM = types.SimpleNamespace(critic=None, phases=())


def regimes(returns, **settings):
    columns = {name: np.array(rows, float) for name, rows in returns.items()}
    setup = Setup(ALGORITHM, tiny.config(o2td3.Config, **settings), Spec(1, 1), range(3), seed_mesh(3, 1))
    found, lines = replay_regimes(setup, None, None, columns, DATA)
    names = {number: name for name, number in REGIMES.items()}
    return [names[number] for number in np.asarray(found).tolist()], lines


def test_seeds_are_compared_with_the_data_each_for_itself():
    # two episodes each: ∓ 1.96 · 10 · √(1/2 + 1/2) = 19.6 around 50, 24 and −25
    offline = [[140.0, 160.0], [120.0, 128.0], [70.0, 80.0]]
    found, lines = regimes({"offline": offline})
    assert found == ["better", "like", "worse"]
    assert lines == [
        "replay, seed 0: the policy is better than its data (return 150 against 100, their difference 30.4 to 69.6): "
        "half of every batch, none after 5,000 environment steps",
        "replay, seed 1: the policy is like its data (return 124 against 100, their difference 4.4 to 43.6): "
        "half of every batch",
        "replay, seed 2: the policy is worse than its data (return 75 against 100, their difference -44.6 to -5.4): "
        "all of it, beside the fresh steps",
    ]


@pytest.mark.parametrize(
    ("start_actor", "expected"),
    [
        ("offline", ["better", "worse", "worse"]),
        ("aligned", ["worse", "better", "worse"]),
        ("best_of", ["better", "better", "worse"]),
    ],
)
def test_the_policy_that_goes_online_counts(start_actor, expected):
    returns = {"offline": [[150.0] * 2, [50.0] * 2, [50.0] * 2], "aligned": [[50.0] * 2, [150.0] * 2, [50.0] * 2]}
    assert regimes(returns, start_actor=start_actor)[0] == expected


def test_where_nothing_tells_policy_and_data_count_as_alike():
    found, lines = regimes({})
    assert found == ["like"] * 3
    assert all("there is neither an evaluation nor a re-evaluated critic" in line for line in lines)
