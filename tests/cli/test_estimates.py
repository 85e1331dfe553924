"""Estimates of a run: updates and operations by hand, the rate by a clock that is held."""

import dataclasses
import json
import types

import pytest

from o2o_jax import envs, online, operations
from o2o_jax import offline as offline_algorithms
from o2o_jax.cli import estimates, finetune, flags, offline
from o2o_jax.jobs.job import OfflineJob
from o2o_jax.policy import CloneConfig
from o2o_jax.runtime import limits
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.setup import Setup
from o2o_jax.types import Spec
from tests import tiny

SPEC = Spec(observation_dim=11, action_dim=3)


def of(name, clone_config=None, **settings):
    module = online.load(name)
    config = tiny.config(module.Config, **settings)
    return estimates.online_work(module, module.make(config, SPEC), config, SPEC, clone_config)


def test_updates_of_every_phase_on_replay():
    settings = {"reevaluate_updates": 7, "align_updates": 5, "env_steps": 100, "warmup_env_steps": 30}
    work = of("o2sac", **settings, updates_per_env_step=2)
    assert [(part.phase, part.updates) for part in work] == [("reevaluate", 7), ("align", 5), ("finetune", 140)]
    module = online.load("o2sac")
    counts = module.operations(module.Config(), SPEC)
    assert [part.operations for part in work] == [counts[part.phase].executed for part in work]
    assert [part.phase for part in of("td3", env_steps=100, warmup_env_steps=100)] == []


def test_updates_on_rollouts_are_rollouts():
    # 40 of 90 steps: two whole rollouts, of which each is one update
    work = of("o2ppo", reevaluate_updates=3, env_steps=90, rollout_env_steps=40, minibatch_size=20)
    assert [(part.phase, part.updates) for part in work] == [("reevaluate", 3), ("finetune", 2)]
    assert [part.phase for part in of("ppo", reevaluate_updates=0)] == ["finetune"]


def test_updates_after_episodes_are_those_of_the_longest():
    module = online.load("odt")
    config = tiny.config(module.Config, env_steps=100, updates_per_episode=3)
    work = estimates.online_work(module, module.make(config, SPEC), config, SPEC, episode_steps=20)
    assert [(part.phase, part.updates) for part in work] == [("finetune", 15)]
    assert work[0].operations == module.operations(config, SPEC)["finetune"].executed


def test_a_clone_comes_first():
    # an actor 11-8-6 on 4 rows: forward 11 · 8 + 8 · 6, gradient the same and 8 · 6 once more; two for each
    first = of("o2sac", CloneConfig(hidden=(8,), updates=9, batch_size=4))[0]
    assert first == estimates.Work("clone", 9, 2 * 4 * (2 * (88 + 48) + 48))


def test_what_is_said(monkeypatch):
    asked = []
    monkeypatch.setattr(estimates, "measure_rate", lambda *arguments: asked.append(arguments) or 2e9)
    plan = plan_of(updates=1_000_000)
    monkeypatch.setattr(
        estimates, "work_of", lambda _: [estimates.Work("align", 1_000_000, 7.2e8), estimates.Work("finetune", 10, 5e6)]
    )
    *lines, time = estimates.describe(plan)
    assert asked == [(plan.setup.config, plan.setup.spec, 2, plan.setup.mesh)]
    assert lines == [
        "align: 1,000,000 updates of 720 MFLOP",
        "finetune: 10 updates of 5 MFLOP",
        f"memory: at least {limits.size_text(sum(limits.memory_of(plan).values()))}, beside the data, programs and "
        "simulators",
        "operations: 720 TFLOP per seed, 1,440 in all",
    ]
    assert time.startswith("time: about 200.0 h of updates on this machine. That rests on 1 s of gradient steps of 2")
    assert "all seeds together, just now: 2 GFLOP/s. Simulators" in time
    monkeypatch.setattr(estimates, "work_of", lambda _: [estimates.Work("finetune", 10, 5e6)])
    *_, time = estimates.describe(plan)
    assert time.startswith("time: about 0.00083 min")


def test_operations_that_nobody_counted_are_no_time(monkeypatch):
    monkeypatch.delattr(offline_algorithms.load("dt"), "operations")
    first, second = estimates.describe(plan_of("dt", updates=5))
    assert first == "offline: 5 updates, whose operations aren't counted: no time estimate"
    assert second.startswith("memory: at least ")


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_the_rate_is_that_of_all_seeds(num_seeds, monkeypatch):
    # the clock is read at the start, after each of three calls, and at the end
    times = iter([10.0, 10.5, 10.9, 11.5, 12.0])
    monkeypatch.setattr(estimates.time, "perf_counter", lambda: next(times))
    config = types.SimpleNamespace(critic_hidden=(8, 8), hidden=(4,), batch_size=4)
    steps = 3 * estimates.STEPS * num_seeds
    rate = estimates.measure_rate(config, SPEC, num_seeds, seed_mesh(num_seeds))
    assert rate == steps * operations.Network(14, (8, 8), 1, 2).step(4) / 2.0


@pytest.mark.usefixtures("data")
def test_print_config_says_on_stderr_what_a_run_takes(offline_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(estimates, "SECONDS", 0.01)
    argv = ["--algorithm=o2sac", f"--policy={offline_run}", f"--out={tmp_path / 'out'}", *tiny.ONLINE_SETTINGS]
    tiny.call(finetune, *argv, "--set=align.updates=33", "--print_config")
    printed = capsys.readouterr()
    assert json.loads(printed.out)["config"]["align"]["updates"] == 33
    assert f"clone: {flags.FAST_CLONE_UPDATES:,} updates of " in printed.err
    assert "align: 33 updates of " in printed.err
    assert "GFLOP/s. Simulators, evaluations and compilation come on top\n" in printed.err
    argv = ["--algorithm=td3_bc", f"--env={tiny.ENV}", *tiny.SETTINGS]  # --out isn't needed
    tiny.call(offline, *argv, "--set=updates=44", "--print_config")
    printed = capsys.readouterr()
    assert json.loads(printed.out)["config"]["updates"] == 44
    assert "offline: 44 updates of " in printed.err
    assert not (tmp_path / "out").exists()


def test_a_run_of_seconds_measures_nothing(monkeypatch):
    monkeypatch.setattr(estimates, "measure_rate", lambda *arguments: pytest.fail("nothing to measure"))
    monkeypatch.setattr(estimates, "measure_env_step", lambda *arguments: pytest.fail("nothing to measure"))
    assert estimates.announce(plan_of(updates=3)) == ""


def test_a_run_of_hours_says_so(monkeypatch):
    monkeypatch.setattr(estimates, "measure_rate", lambda *arguments: 1e9)
    monkeypatch.setattr(estimates, "measure_env_step", lambda task: 1e-3)
    plan = plan_of(updates=1_000_000)
    (work,) = estimates.work_of(plan)
    # two seeds, ten looks of four episodes
    steps = 10 * 4 * plan.setup.task.max_episode_steps
    assert estimates.simulated_steps(plan) == steps
    seconds = 2 * (1_000_000 * work.operations / 1e9 + steps * 1e-3)
    assert estimates.announce(plan).startswith(f"about {seconds / 3600:,.1f} h on this machine, by a measurement")


def plan_of(name="td3_bc", updates=3, **settings):
    module = offline_algorithms.load(name)
    job = OfflineJob(
        algorithm=name, config=tiny.config(module.Config, updates=updates, **settings),
        env="mujoco/hopper-medium", seeds=2, eval_every=100_000, eval_episodes=4,
    )  # fmt: skip
    task = envs.get_task(job.env)
    algorithm = module.make(job.config, task.spec)
    return Plan(Setup(algorithm, job.config, task, range(2), seed_mesh(2)), eval_every=100_000, settings=job.to_json())


def test_a_run_of_years_is_refused(monkeypatch):
    monkeypatch.setattr(estimates, "measure_rate", lambda *arguments: 1e9)
    monkeypatch.setattr(estimates, "measure_env_step", lambda task: 0.0)
    (work,) = estimates.work_of(plan_of(updates=1))
    year = int(8_760 * 3_600 * 1e9 / work.operations / 2)  # of two seeds
    assert "about 8,7" in estimates.announce(plan_of(updates=year))
    message = (
        r"^this would take about 8,7\d\d\.\d h, more than a year, on this machine: ask for fewer updates, or lower"
    )
    with pytest.raises(ValueError, match=message):
        estimates.announce(plan_of(updates=int(1.001 * year)))
    monkeypatch.setattr(estimates, "measure_env_step", lambda task: 1e6)
    with pytest.raises(ValueError, match="ask for fewer environment steps, or evaluations and their episodes, or"):
        estimates.announce(plan_of("dt", updates=1_000_000, width=8, layers=1, heads=1))


def test_the_rate_of_large_networks_is_measured_on_fewer_rows(monkeypatch):
    config = types.SimpleNamespace(critic_hidden=(8, 8), hidden=(4,), batch_size=1_000)
    network = operations.Network(14, (8, 8), 1, 2)
    monkeypatch.setattr(estimates, "MOST_OPERATIONS", 7.5 * estimates.STEPS * network.step(1))
    monkeypatch.setattr(estimates, "SECONDS", 0.0)
    times = iter([1.0, 1.0, 3.0])
    monkeypatch.setattr(estimates.time, "perf_counter", lambda: next(times))
    assert estimates.measure_rate(config, SPEC, 1, seed_mesh(1)) == estimates.STEPS * network.step(7) / 2.0


def test_online_runs_play_their_own_steps_and_those_of_looks():
    module = online.load("o2td3")
    config = tiny.config(
        module.Config, env_steps=1_000, warmup_env_steps=100, evaluation_every_env_steps=250, evaluation_episodes=3
    )
    task = envs.get_task("mujoco/hopper-medium")
    setup = Setup(module.make(config, task.spec), config, task, range(1), seed_mesh(1))
    plan = Plan(setup, settings={"algorithm": "o2td3"})
    assert estimates.simulated_steps(plan) == 1_000 + (2 + 4) * 3 * 1_000
    assert [part.phase for part in estimates.work_of(plan)][-1] == "finetune"
    taken = dataclasses.replace(plan, reconstruction=lambda: None)
    assert [part.phase for part in estimates.work_of(taken)] == ["finetune"]


def test_a_step_takes_time():
    assert 0.0 < estimates.measure_env_step(envs.get_task("gym/Pendulum-v1")) < 0.1
