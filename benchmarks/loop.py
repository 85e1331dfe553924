"""Overhead of the fine-tuning loop over its parts, and speed of evaluation.

    python -m benchmarks.loop --algorithms=o2td3,o2sac --seeds=4 --env=mujoco/hopper

The loop runs as in experiments.finetune, an update after every environment step. A round is some hundred of its steps,
then as many steps of the environments alone, then as many updates alone, each with its buffer write and the next
action; the ratio is the loop's time over the sum of the other two. Every algorithm has a second loop that overlaps
environments and updates (--set=interaction.overlap=true). With several environments per seed, as
--set=schedule.num_envs=4 makes them, milliseconds are per environment step of a seed all the same.

Evaluation of all seeds' episodes side by side has its rounds with a plain loop over one environment, and with envpool's
environments where it has the robot. Episodes all have the same length there: a fallen robot continues.
"""

import dataclasses
import functools
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import absl.flags
import jax
import numpy as np
from absl.flags import FlagValues
from jax.sharding import Mesh

from benchmarks import command, measuring, reports, workloads
from o2o_jax import envs, online
from o2o_jax.cli import flags, overrides, program
from o2o_jax.interfaces import Algorithm, Task
from o2o_jax.runtime import loop, seeds
from o2o_jax.runtime.evaluate import AnyEvaluator, Evaluator, PoolEvaluator, policy_episodes, threads_for
from o2o_jax.runtime.events import finish
from o2o_jax.runtime.log import MetricLog
from o2o_jax.runtime.run import Run, begin_finetuning, start_run
from o2o_jax.runtime.setup import Setup
from o2o_jax.settings import replaced
from o2o_jax.types import Rollout

LOOP_COLUMNS = {
    "fine-tuning": ("name", ""),
    "seeds": ("seeds", "d"),
    "loop ms": ("loop_milliseconds", ".3f"),
    "environments ms": ("environment_milliseconds", ".3f"),
    "update ms": ("update_milliseconds", ".3f"),
    "ratio": ("ratio", ".3f"),
    "spread %": ("spread_percent", ".1f"),
}
EVALUATION_COLUMNS = {
    "evaluation": ("name", ""),
    "episodes": ("episodes", "d"),
    "environment steps/s": ("steps_per_second", ",.0f"),
    "against plain": ("ratio", ".2f"),
    "spread %": ("spread_percent", ".1f"),
}
FALLING = ("Hopper", "Walker2d")  # robots whose episodes end by a fall, unless envpool is told otherwise


def define(values: FlagValues) -> None:
    """Flags of this script."""
    command.define(values, "rows", "repeats")
    flags.define_common(values, "seeds", "devices", "set")
    values.set_default("seeds", 4)
    absl.flags.DEFINE_list("algorithms", "o2td3,o2sac", "of o2td3, o2sac", flag_values=values)
    absl.flags.DEFINE_string("env", "mujoco/hopper", "task whose environment is stepped", flag_values=values)
    for name, default, what in (
        ("steps", 300, "environment steps of a round, and updates"),
        ("episodes", 10, "evaluation episodes per seed"),
        ("episode_steps", 1_000, "environment steps of an evaluation episode"),
    ):
        absl.flags.DEFINE_integer(name, default, what, lower_bound=1, flag_values=values)


def main(args: FlagValues) -> None:
    """Measures, prints, writes. Impure."""
    for name in args.algorithms:
        if name not in ("o2td3", "o2sac"):
            raise ValueError(f"--algorithms takes o2td3 and o2sac, which update after every step, not {name!r}")
    names = ("rows", "repeats", "seeds", "devices", "set", "algorithms", "env", "steps", "episodes", "episode_steps")
    report = reports.Report("loop", command.settings(args, *names))
    mesh = flags.setup_devices(args.seeds, args.devices)
    task = envs.get_task(args.env)
    configs = workloads.all_settings(args.algorithms, args.set)
    rows = [
        _measure_loop(name, replaced(config, {"interaction.overlap": overlap}), task, mesh, args)
        for name, config in configs.items()
        for overlap in (False, True)
    ]
    print(reports.table(rows, LOOP_COLUMNS))
    name, config = next(iter(configs.items()))
    evaluations = _measure_evaluation(online.load(name).make(config, task.spec), task, mesh, args)
    print(reports.table(evaluations, EVALUATION_COLUMNS))
    report.write(args.out, rows=rows, evaluation=evaluations)


class Rounds:
    """In place of an evaluator: the loop calls it after every round of steps, and it measures the parts alone. Impure.

    Args:
      num_seeds: S.
      steps: environment steps of a round.
      parts: calls that each do one step's work of a part, of all environments of a seed.
      num_envs: environments per seed.

    Attributes:
      samples: seconds per step of the loop ("loop") and of every part, one value per round but the first, in which
        the loop compiles.
    """

    def __init__(self, num_seeds: int, steps: int, parts: dict[str, Callable[[], Any]], num_envs: int) -> None:
        self._num_seeds, self._steps, self._parts, self._num_envs = num_seeds, steps, parts, num_envs
        self._started: float | None = None
        self.samples: dict[str, list[float]] = {name: [] for name in ("loop", *parts)}

    def __call__(self, *policy: Any, **rounds: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns [S, 1] and lengths [S, 1] of 0: no episode is played."""
        del policy, rounds
        if self._started is not None:
            self.samples["loop"].append((time.perf_counter() - self._started) / self._steps)
        for name, part in self._parts.items():
            if self._started is None:
                part()
                continue
            started = time.perf_counter()
            for _ in range(self._steps // self._num_envs):
                part()
            self.samples[name].append((time.perf_counter() - started) / self._steps)
        self._started = time.perf_counter()
        return np.zeros((self._num_seeds, 1)), np.zeros((self._num_seeds, 1), np.int64)


class FixedLength:
    """An environment whose episodes all have the same length: it doesn't end when the robot falls.

    Args:
      env: gymnasium environment.
      steps: of an episode.
    """

    def __init__(self, env: Any, steps: int) -> None:
        self._env, self._steps, self._taken = env.unwrapped, steps, 0

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode."""
        self._taken = 0
        return self._env.reset(seed=seed)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step; truncated at the episode's length, never terminated."""
        self._taken += 1
        observation, reward, _, _, info = self._env.step(action)
        return observation, float(reward), False, self._taken >= self._steps, info

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()


def _measure_loop(name: str, config: Any, task: Task, mesh: Mesh, args: FlagValues) -> dict[str, Any]:
    config = overrides.parse_overrides(
        config,
        [
            "interaction.warmup_env_steps=0",
            f"evaluation.every_env_steps={args.steps}",
            f"env_steps={args.steps * (args.repeats + 1)}",  # the first round compiles
        ],
    )
    algorithm = online.load(name).make(config, task.spec)
    family, seed_list, num_envs = envs.family(task.name), range(args.seeds), args.seeds * config.schedule.num_envs
    data = seeds.replicate(workloads.synthetic(task.spec, args.rows).transitions, mesh)

    setup = Setup(algorithm, config, task, seed_list, mesh)

    def start() -> Run:
        # a score that none of the rounds beats: π_ref stays
        return begin_finetuning(setup, start_run(setup, None), np.zeros(args.seeds, bool), np.full(args.seeds, np.inf))

    environments = family.make_vector_env(task, num_envs)
    environments.reset(seed=list(range(num_envs)))
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (num_envs, task.spec.action_dim)).astype(np.float32)
    parts = {
        "environment": lambda: environments.step(actions),
        "update": _update_alone(setup, start(), data),
    }
    rounds = Rounds(args.seeds, args.steps, parts, config.schedule.num_envs)
    with tempfile.TemporaryDirectory() as folder, MetricLog(folder) as log:
        loop_environments = family.make_vector_env(task, num_envs)
        finish(loop.fine_tune(setup, start(), data, loop_environments, rounds), log.take)
    samples = {part: np.array(values) for part, values in rounds.samples.items()}
    ratio, spread = measuring.median_and_spread(samples["loop"] / (samples["environment"] + samples["update"]))
    milliseconds = {f"{part}_milliseconds": 1e3 * float(np.median(values)) for part, values in samples.items()}
    return {
        "name": f"{name}, overlapped" if config.interaction.overlap else name,
        "seeds": args.seeds,
        **milliseconds,
        "ratio": ratio,
        "spread_percent": spread,
        "samples": {part: values.tolist() for part, values in samples.items()},
    }


def _update_alone(setup: Setup, run: Run, data: Any) -> Callable[[], None]:
    """A call that does what the loop's compiled program does in a step, on the same made-up step every time."""
    spec, axes = setup.spec, (len(setup.seeds), *setup.online.schedule.env_axes)
    advance = functools.partial(loop.advance, setup.online)
    program = seeds.over_seeds(advance, setup.mesh, shared=(1,), donate=(0,))
    zeros: Any = np.zeros(axes, np.float32)
    observation: Any = np.zeros((*axes, spec.observation_dim), np.float32)
    action: Any = np.zeros((*axes, spec.action_dim), np.float32)
    step = Rollout(observation, action, zeros, observation, zeros, zeros)

    def call() -> None:
        nonlocal run
        run, next_action, _ = program(run, data, None, step, observation)
        np.asarray(next_action)  # as the loop does, for the environments

    return call


def _measure_evaluation(algorithm: Algorithm, task: Task, mesh: Mesh, args: FlagValues) -> list[dict[str, Any]]:
    """Environment steps per second of all seeds' episodes side by side, and of a plain loop over one environment."""
    seed_list = range(args.seeds)

    def make_env() -> FixedLength:
        return FixedLength(envs.family(task.name).make_env(task), args.episode_steps)

    keys = seeds.place(seeds.keys(seed_list, "evaluation"), mesh)
    agent = seeds.over_seeds(lambda key: algorithm.init(key, None), mesh)(keys)
    play = policy_episodes(algorithm.policy, seed_list, mesh)
    family = envs.family(task.name)
    side_by_side = Evaluator(make_env, seed_list, args.episodes, threads=threads_for(family))
    evaluators: dict[str, AnyEvaluator] = {"side by side": side_by_side}
    if hasattr(family, "make_pool"):
        fixed = dataclasses.replace(task, max_episode_steps=args.episode_steps)
        never_ends = {"terminate_when_unhealthy": False} if task.env_id.startswith(FALLING) else {}
        make_pool = functools.partial(family.make_pool, fixed, **never_ends)
        try:
            evaluators["envpool"] = PoolEvaluator(make_pool, seed_list, args.episodes)
        except ValueError as error:
            print(f"note: {error}; evaluation by envpool is left out", file=sys.stderr)
    one, one_agent = make_env(), jax.device_get(seeds.take(agent, 0))
    one_agent = jax.device_put(one_agent)
    one_act = jax.jit(lambda agent, observation: algorithm.policy(agent).distribution(observation).mode())

    def plain() -> None:
        observation, ended = one.reset(seed=0)[0], False
        while not ended:
            action = np.asarray(one_act(one_agent, np.asarray(observation, np.float32)))
            observation, _, _, ended, _ = one.step(action)

    calls: dict[str, Callable[[], Any]] = {
        name: functools.partial(play, evaluator, agent) for name, evaluator in evaluators.items()
    }
    calls["plain"] = plain
    samples = measuring.interleave(calls, 0.0, args.repeats)
    for evaluator in evaluators.values():
        evaluator.close()
    one.close()
    episodes = dict.fromkeys(evaluators, args.seeds * args.episodes) | {"plain": 1}
    rates = {name: episodes[name] * args.episode_steps / samples[name] for name in calls}
    rows = []
    for name, rate in rates.items():
        steps_per_second, spread = measuring.median_and_spread(rate)
        rows.append(
            {
                "name": name,
                "episodes": episodes[name],
                "steps_per_second": steps_per_second,
                "spread_percent": spread,
                "ratio": float(np.median(rate / rates["plain"])),
                "samples": rate.tolist(),
            }
        )
    return rows


if __name__ == "__main__":
    program.run(main, define, __doc__)
