from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import workloads
from o2o_jax import offline, online
from o2o_jax.training import PhaseState
from tests import tiny


def test_every_workload_has_a_count_and_the_other_way_round():
    counted = set()
    modules = [package.load(name) for package in (offline, online) for name in package.names()]
    own = [module for module in modules if (Path(module.__file__).parent / "cost.py").exists()]
    for algorithm, module in ((module.__name__.rpartition(".")[-1], module) for module in own):
        phases = module.operations(workloads.settings(algorithm), workloads.SHAPES["hopper"])
        counted |= {algorithm if phase == "update" else f"{algorithm}/{phase}" for phase in phases}
    assert counted == set(workloads.NAMES)


@pytest.mark.parametrize("shape", workloads.SHAPES)
def test_workloads_have_the_sizes_of_the_shape(shape):
    spec = workloads.SHAPES[shape]
    for name in ("o2sac/align", "cql"):
        workload = workloads.make(name, spec=spec, rows=7)
        assert workload.data.observation.shape == (7, spec.observation_dim)
        assert workload.data.action.shape == (7, spec.action_dim)


def test_the_data_of_an_on_policy_update_is_one_rollout():
    workload = workloads.make("o2ppo/finetune", rows=7)
    assert workload.data.reward.shape == (workload.config.rollout.env_steps,)


def test_names_stand_for_themselves_or_for_all_of_an_algorithm():
    assert workloads.matching(["bc", "o2ppo"]) == ["o2ppo/reevaluate", "o2ppo/finetune", "bc"]
    assert workloads.matching(["o2sac/align"]) == ["o2sac/align"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["o2sca"], "unknown workload 'o2sca'. Did you mean"),
        (["align"], "unknown workload 'align'"),
        ([], "no workload is asked for"),
    ],
)
def test_what_there_is_not_is_explained(wanted, message):
    with pytest.raises(ValueError, match=message):
        workloads.matching(wanted)


def test_a_setting_goes_to_whoever_has_it():
    configs = workloads.all_settings(["bc", "cql"], ["critic_hidden=8", "batch_size=4"])
    assert (configs["bc"].batch_size, configs["cql"].batch_size, configs["cql"].critic_hidden) == (4, 4, (8,))
    with pytest.raises(ValueError, match="unknown field 'critic_hidden'"):
        workloads.all_settings(["bc"], ["critic_hidden=8"])


def test_synthetic_episodes_end_by_a_time_limit():
    dataset = workloads.synthetic(workloads.SHAPES["hopper"], 2_500)
    np.testing.assert_array_equal(dataset.episode_ends, [1_000, 2_000, 2_500])
    assert dataset.rollout().truncated.sum() == 3
    assert workloads.synthetic(workloads.SHAPES["hopper"], 1_000).episode_ends.tolist() == [1_000]


def test_a_rollout_s_updates_go_on_from_each_other():
    config = tiny.changed(
        workloads.settings("o2ppo"), hidden=(4,), critic_hidden=(4,), rollout_env_steps=8, minibatch_size=4, epochs=1
    )
    workload = workloads.make("o2ppo/finetune", config, rows=8)
    state, _ = jax.jit(workload.run, static_argnames="num_updates")(
        PhaseState.start(workload.init(jax.random.key(0))), workload.data, None, jax.random.key(1), num_updates=3
    )
    assert int(state.step) == 3
    assert not bool(state.failed)
