"""Arguments of environments: in names of tasks, and in what data says of where it was recorded."""

import dataclasses

import gymnasium
import pytest

from o2o_jax import envs
from o2o_jax.data.sources import Origin
from o2o_jax.envs import arguments
from o2o_jax.envs.registered import check_origin, make_env


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("Hopper-v5", {}),
        ("Hopper-v5?healthy_reward=0.5", {"healthy_reward": 0.5}),
        ('my.module:Ant-v5?a=[1, 2]&b=false&c="text"', {"a": [1, 2], "b": False, "c": "text"}),
    ],
)
def test_names_hold_arguments(name, given):
    assert arguments.split(name) == (name.partition("?")[0], given)
    assert arguments.join(name.partition("?")[0], given) == name


def test_a_text_needs_no_quotes():
    assert arguments.split("Reacher-v5?xml_file=mine.xml")[1] == {"xml_file": "mine.xml"}


@pytest.mark.parametrize("name", ["Hopper-v5?healthy_reward", "Hopper-v5?=1", "Hopper-v5?a=1&", "Hopper-v5?a b=1"])
def test_arguments_have_values(name):
    with pytest.raises(ValueError, match="where <argument>=<value> is expected"):
        envs.get_task(f"gym/{name}")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"kwargs": {}, "max_episode_steps": 200}, ({}, [])),
        ({"kwargs": {"g": 1.0, "render_mode": "human"}}, ({"g": 1.0}, [])),
        ({"kwargs": {}, "max_episode_steps": 50}, ({"max_episode_steps": 50}, [])),
        (
            {"additional_wrappers": [{"name": "RescaleObservation"}, {"name": "RescaleAction"}]},
            ({}, ["RescaleObservation"]),
        ),
        ({}, ({}, [])),
    ],
)
def test_what_differs_from_the_registered_environment(spec, expected):
    assert arguments.recorded(Origin("mine/pendulum-v0", "Pendulum-v1", spec)) == expected


def test_a_task_has_the_arguments_of_its_name():
    task = envs.get_task("gym/Pendulum-v1?g=1.0&max_episode_steps=50")
    assert (task.env_id, task.env_arguments, task.max_episode_steps) == ("Pendulum-v1", '{"g": 1.0}', 50)
    env = make_env(task)
    assert env.unwrapped.g == 1.0
    assert env.spec.max_episode_steps == 50
    with pytest.raises(ValueError, match="gymnasium can't make 'Pendulum-v1' .*unexpected keyword argument 'gravity'"):
        envs.get_task("gym/Pendulum-v1?gravity=1.0")


@pytest.mark.parametrize(
    ("task", "spec", "words"),
    [
        (
            "gym/Pendulum-v1",
            {"kwargs": {"g": 1.0}},
            r"recorded in Pendulum-v1\?g=1.0, but gym/Pendulum-v1 runs",
        ),
        ("gym/Pendulum-v1", {"max_episode_steps": 9}, r"choose --env='gym/Pendulum-v1\?max_episode_steps=9'"),
        ("gym/Pendulum-v1?g=1.0", {"kwargs": {}}, r"choose --env='gym/Pendulum-v1'"),
        (
            "gym/Pendulum-v1",
            {"additional_wrappers": [{"name": "Noise"}]},
            "under Noise, which gym/Pendulum-v1 does without",
        ),
    ],
)
def test_data_of_another_environment_is_refused(task, spec, words):
    with pytest.raises(ValueError, match=words):
        check_origin(Origin("mine/pendulum-v0", "Pendulum-v1", spec), envs.get_task(task))


def test_data_of_the_same_environment_passes():
    spec = {"kwargs": {"g": 1.0}, "max_episode_steps": 50}
    check_origin(
        Origin("mine/pendulum-v0", "Pendulum-v1", spec), envs.get_task("gym/Pendulum-v1?g=1.0&max_episode_steps=50")
    )
    check_origin(Origin(), envs.get_task("gym/Pendulum-v1"))
    # older versions with the same dynamics, perhaps no longer registered
    task = dataclasses.replace(envs.get_task("mujoco/hopper-medium"), same_dynamics=("Hopper-v1",))
    assert "Hopper-v1" not in gymnasium.registry
    check_origin(Origin("d4rl/hopper-v0", "Hopper-v1", {"kwargs": {}, "max_episode_steps": 1000}), task)
