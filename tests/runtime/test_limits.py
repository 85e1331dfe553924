"""Memory and time that a command would take are refused before it takes them."""

import jax
import pytest

from o2o_jax import online
from o2o_jax.interfaces import Task
from o2o_jax.runtime import limits
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.setup import Setup
from o2o_jax.types import Spec
from tests import tiny

TASK = Task("test/walk", "Walk-v0", Spec(11, 3), 6, "", False, random_score=-10.0, expert_score=40.0)


def plan_of(num_seeds=2, **settings):
    module = online.load("o2td3")
    config = tiny.config(module.Config, **{"networks_critic_source": "random", "env_steps": 1_000, **settings})
    return Plan(Setup(module.make(config, TASK.spec), config, TASK, range(num_seeds), seed_mesh(2, 1)))


def test_memory_is_counted_by_hand():
    plan = plan_of(replay_buffer_size=500, update_batch_size=64, evaluation_episodes=7)
    memory = limits.memory_of(plan)
    assert memory["replay"] == 2 * (500 * 4 * (11 + 3 + 1 + 11 + 1) + 8)  # and where the ring is, and how full
    assert memory["batches"] == 2 * 4 * 64 * (11 + 3 + 1 + 11 + 1 + 256)
    assert memory["evaluation"] == 2 * 7 * (limits.EPISODE_BYTES + 4 * (11 + 3))
    leaves = jax.tree.leaves(plan.shapes())
    assert memory["networks"] + memory["replay"] == 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    assert memory["data"] == 0


@pytest.mark.parametrize(
    ("settings", "way_out"),
    [
        ({"num_seeds": 10**9}, "lower --seeds, or"),
        ({"networks_num_critics": 10**9}, "lower --seeds, or the number or widths of the networks"),
        ({"networks_hidden": (10**9, 10**9)}, "lower --seeds, or the number or widths of the networks"),
        # more than 2^63 bytes, and more than 2^63 numbers
        (
            {"networks_critic_hidden": (2**31 - 1,) * 2, "networks_num_critics": 2**31 - 1},
            "lower --seeds, or the number",
        ),
        ({"update_batch_size": 2**31 - 2}, "lower --seeds or the batch size"),
        ({"evaluation_episodes": 2**31 - 1}, "lower --seeds, or the episodes of an evaluation"),
        ({"replay_buffer_size": 10**9, "env_steps": 10**9}, "lower --seeds, or replay.buffer_size"),
    ],
)
def test_what_does_not_fit_is_refused_unmade(settings, way_out, monkeypatch):
    monkeypatch.setattr(limits.devices, "memory_available", lambda device=None: 64 * 10**9)
    with pytest.raises(ValueError, match=f"^this takes at least .* of memory .* has 64 GB free: {way_out}"):
        limits.check(plan_of(**settings))


def test_what_fits_or_is_not_known_passes(monkeypatch):
    needed = sum(limits.memory_of(plan_of()).values())
    for free in (needed, None):
        monkeypatch.setattr(limits.devices, "memory_available", lambda device=None, free=free: free)
        assert sum(limits.check(plan_of()).values()) == needed
    monkeypatch.setattr(limits.devices, "memory_available", lambda device=None: needed - 1)
    with pytest.raises(ValueError, match="of memory"):
        limits.check(plan_of())


def test_episodes_that_are_remembered(monkeypatch):
    needed = 2 * 5 * (limits.EPISODE_BYTES + 4 * 14 + 4 * 100 * 4)
    monkeypatch.setattr(limits.devices, "memory_available", lambda device=None: needed)
    limits.check_episodes(2, 5, 100, TASK.spec)
    with pytest.raises(ValueError, match=r"has 0 MB free: lower --episodes$"):
        limits.check_episodes(2, 6, 100, TASK.spec)


def test_a_year_is_enough():
    limits.check_hours(8_760 * 3_600, "lower it")
    with pytest.raises(ValueError, match="^this would take about 8,761.0 h, more than a year, .*: lower it$"):
        limits.check_hours(8_761 * 3_600, "lower it")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 MB"), (1.5e6, "2 MB"), (9.9e9, "9,900 MB"), (64e9, "64 GB"), (3e15, "3,000 TB"), (1e29, "1e+14 PB")],
)
def test_sizes_for_people(count, text):
    assert limits.size_text(count) == text
