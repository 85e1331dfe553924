"""The ant's own view: the same for an ant and a world that are turned together, and for legs counted from any side."""

import numpy as np
import pytest

from o2o_jax.envs import registered
from o2o_jax.envs.antmaze.egocentric import turn_back, view

QUARTER = np.pi / 2


@pytest.fixture(scope="module")
def ants():
    pair = [registered.make_registered("Ant-v4", 1_000) for _ in range(2)]
    for ant in pair:
        ant.reset(seed=0)
    return pair


def quaternion(axis, angle):
    return np.array([np.cos(angle / 2), *(np.sin(angle / 2) * np.asarray(axis))])


def multiply(a, b):
    scalar = a[0] * b[0] - a[1:] @ b[1:]
    return np.array([scalar, *(a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:]))])


def turn(vector, angle):
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]]) @ vector


def random_state(seed):
    """A tilted ant above the ground, which moves, and a goal in front of it."""
    random = np.random.default_rng(seed)
    axis = np.array([*random.normal(size=2), 0.0])
    orientation = quaternion(axis / np.linalg.norm(axis), 0.3)
    hips, ankles = random.uniform(-0.4, 0.4, 4), random.uniform(0.6, 1.1, 4) * [1, -1, -1, 1]
    joints = np.stack([hips, ankles], axis=1).ravel()
    position = np.concatenate([[0.0, 0.0, 0.9], orientation, joints])
    return position, random.normal(size=14), np.array([3.0, random.uniform(-0.8, 0.8)])


def observed(ant):
    return np.concatenate([ant.unwrapped.data.qpos[2:], ant.unwrapped.data.qvel])


@pytest.mark.parametrize("angle", [0.4, 2.0, -3.0])
def test_a_turned_world_looks_the_same(angle):
    position, velocity, offset = random_state(0)
    seen, turns = view(np.concatenate([position[2:], velocity])[None], offset[None])
    turned = position.copy()
    turned[3:7] = multiply(quaternion([0, 0, 1], angle), position[3:7])
    velocity = np.concatenate([turn(velocity[:2], angle), velocity[2:]])
    again, turned_turns = view(np.concatenate([turned[2:], velocity])[None], turn(offset, angle)[None])
    np.testing.assert_allclose(again, seen, atol=1e-12)
    np.testing.assert_array_equal(turned_turns, turns)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_from_another_side_the_ant_looks_and_moves_the_same(ants, turns):
    # the second ant is the first one with its torso turned by quarters, so that other legs are in the same places
    first, second = ants
    position, velocity, offset = random_state(turns)
    first.unwrapped.set_state(position, velocity)
    turned, turned_velocity = position.copy(), velocity.copy()
    turned[3:7] = multiply(position[3:7], quaternion([0, 0, 1], -turns * QUARTER))
    turned_velocity[3:5] = turn(velocity[3:5], turns * QUARTER)
    signs = np.array([1, -1, -1, 1])
    for joints, source in ((turned[7:], position[7:]), (turned_velocity[6:], velocity[6:])):
        for leg in range(4):
            there = (leg + turns) % 4
            joints[2 * there] = source[2 * leg]
            joints[2 * there + 1] = source[2 * leg + 1] * signs[leg] * signs[there]
    second.unwrapped.set_state(turned, turned_velocity)
    random = np.random.default_rng(turns)
    for step in range(5):
        (seen, zero), (again, sides) = (view(observed(ant)[None], offset[None]) for ant in ants)
        np.testing.assert_allclose(again, seen, atol=1e-9)
        assert (sides - zero) % 4 == turns
        action = random.uniform(-1.0, 1.0, (1, 8))
        for ant, side in ((first, zero), (second, sides)):
            ant.step(turn_back(action, side)[0])
        np.testing.assert_allclose(ants[0].unwrapped.data.qpos[:3], ants[1].unwrapped.data.qpos[:3], atol=1e-9)
        assert np.abs(ants[0].unwrapped.data.qpos[:3]).max() > 0.0, step


def test_the_goal_is_in_front():
    random = np.random.default_rng(0)
    states = np.stack([np.concatenate([random_state(seed)[0][2:], np.zeros(14)]) for seed in range(50)])
    offsets = random.normal(size=(50, 2))
    seen, turns = view(states, offsets)
    assert set(turns) == {0, 1, 2, 3}
    angle = np.arctan2(seen[:, -1], seen[:, -2])
    assert np.abs(angle).max() < np.pi / 4 + 0.1  # a tilted torso has another yaw from another side
    np.testing.assert_allclose(np.linalg.norm(seen[:, -2:], axis=1), np.linalg.norm(offsets, axis=1))
