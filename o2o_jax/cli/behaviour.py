"""Trains the policies that datasets are made with: PPO or SAC from scratch, a snapshot at every evaluation.

    python -m experiments.behaviour --env=mujoco/hopper --seeds=2 --out=runs/behaviour-hopper

--algorithm=ppo takes far fewer operations per environment step than --algorithm=sac, which updates after every one.

At the end three files are in the output folder: `medium.npz` (the snapshot whose sampled actions score nearest to
--medium), `expert.npz` (the best) and `medium-replay.npz` (snapshots of the medium policy's run up to it, with the
share of its replay buffer that each represents). --choose picks them from the snapshots that are there, without
training. Resume a stopped run with --resume.
"""

import pathlib
from typing import Any

import jax
import numpy as np
from absl import flags as absl_flags
from absl.flags import FlagValues

from o2o_jax import envs, online
from o2o_jax.cli import estimates, flags, overrides
from o2o_jax.envs.behaviour import load_behaviour, sample_actions, save_behaviour
from o2o_jax.interfaces import Task
from o2o_jax.jobs.job import ScratchJob
from o2o_jax.policy import Policy, SampledPolicy
from o2o_jax.runtime import provenance, seeds
from o2o_jax.runtime.checkpoint import check_claim, read_config
from o2o_jax.runtime.evaluate import evaluation_metrics, make_evaluator, policy_episodes
from o2o_jax.runtime.events import Event
from o2o_jax.runtime.output import Output
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.setup import Setup
from o2o_jax.runtime.train import train
from o2o_jax.settings import flat

CHOICE_EPISODES = 100  # sampled episodes that settle what a chosen snapshot is worth
DEFAULT_ENV = "mujoco/hopper"
ALGORITHMS = ("ppo", "sac")  # with settings to start from scratch
REPLAY_SNAPSHOTS = 16  # a file of about 2 MB in float16


def define(values: FlagValues) -> None:
    """Defines the script's flags."""
    flags.define_common(values, "seeds", "first_seed", "out", "set", "config", "devices", "resume", "log_to")
    absl_flags.DEFINE_string(
        "env",
        None,
        f"environment to learn in, {DEFAULT_ENV} by default; with --choose the run's own",
        flag_values=values,
    )
    absl_flags.DEFINE_enum("algorithm", "ppo", ALGORITHMS, "what learns", flag_values=values)
    flags.define_number(values, "medium", 44.0, "normalized score wanted of the medium policy")
    absl_flags.DEFINE_bool("choose", False, "only choose among the snapshots in --out", flag_values=values)


def main(args: FlagValues) -> None:
    """Trains, takes snapshots, chooses. Impure."""
    if args.choose:
        env = read_config(args.out)["env"]
        if args.env not in (None, env):
            raise ValueError(f"the run in {args.out} learnt in {env}: leave --env out")
        choose(envs.recorded_task(env), pathlib.Path(args.out), args.medium)
        return
    mesh = flags.setup_devices(args.seeds, args.devices)
    task = envs.get_task(args.env or DEFAULT_ENV)
    module = online.load(args.algorithm)

    def estimate(config: Any) -> list[str]:
        setup = Setup(module.make(config, task.spec), config, task, flags.seed_list(args), mesh)
        return estimates.describe(Plan(setup, settings={"algorithm": args.algorithm}))

    config = overrides.settings(args, args.algorithm, module.Config.from_scratch(), estimate)
    if not config.evaluation.episodes:
        raise ValueError("snapshots are chosen by their scores: evaluation.episodes must be at least 1")
    job = ScratchJob(
        algorithm=args.algorithm, config=config, env=task.name, seeds=args.seeds, first_seed=args.first_seed
    )
    plan = job.plan(mesh)
    check_claim(args.out, plan.settings, args.resume)
    hours = estimates.announce(plan)
    snapshots = Snapshots(plan, task, pathlib.Path(args.out) / "snapshots")
    try:
        with Output(args.out, plan, args.resume, args.log_to) as output:
            snapshots.folder.mkdir(exist_ok=True)
            if hours:
                print(hours)
            for event in train(plan, output.restore):
                output.take(snapshots.beside(event))
    finally:
        snapshots.close()
        plan.evaluator.close()
    choose(task, output.folder, args.medium)


class Snapshots:
    """Policies of a run, one of each seed after every evaluation.

    Args:
      plan: of the run.
      task: of the environment.
      folder: for them.
    """

    def __init__(self, plan: Plan, task: Task, folder: pathlib.Path) -> None:
        self.folder = folder
        self._setup, self._task = plan.setup, task
        episodes = plan.setup.config.evaluation.episodes
        self._evaluator = make_evaluator(envs.family(task.name), task, plan.setup.seeds, episodes, stream=2)
        policy = plan.setup.algorithm.policy
        self._play = policy_episodes(lambda agent: SampledPolicy(policy(agent)), plan.setup.seeds, plan.setup.mesh)

    def beside(self, event: Event) -> Event:
        """Takes snapshots where an event has evaluated, and returns it with the log `sampled`. Impure."""
        if "evaluation" in event.cut:
            event = event._replace(cut={**event.cut, "sampled": event.cut["evaluation"]})
        if "evaluation" not in event.rows:
            return event
        agent, setup = event.run.agent, self._setup
        returns, lengths = self._play(self._evaluator, agent)
        for s, seed in enumerate(setup.seeds):
            metadata = _metadata(self._task, returns[s], event.step, seed)
            metadata |= {"algorithm": setup.algorithm.name, "command": provenance.command()}
            policy = setup.algorithm.policy(seeds.take(agent, s))
            save_behaviour(self.folder / f"{event.step:08d}-seed{seed}.npz", policy, metadata)
        return event._replace(rows={**event.rows, "sampled": evaluation_metrics(setup, returns, lengths)})

    def close(self) -> None:
        """Closes the environments."""
        self._evaluator.close()


def _metadata(task: Task, returns: np.ndarray, env_steps: int, seed: int) -> dict[str, Any]:
    return {
        "env_id": task.env_id,
        "seed": seed,
        "env_steps": env_steps,
        "episodes": len(returns),
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "score": float(task.score(returns.mean())),
    }


def choose(task: Task, out: pathlib.Path, medium: float) -> None:
    """Measures the most promising snapshots again, on more episodes, and keeps one as medium and one as expert.

    The medium policy's replay buffer is kept too, in short; see `replay_recipe`.
    """
    taken = {path: load_behaviour(path)[1] for path in sorted((out / "snapshots").glob("*.npz"))}
    if not taken:
        raise FileNotFoundError(f"{out} holds no snapshots: train first, without --choose")
    settings = flat(read_config(out)["config"])
    random_env_steps = settings.get("interaction.random_env_steps", 0)  # PPO's are its own policy's from the first on
    learnt = {
        path: metadata
        for path, metadata in taken.items()
        if metadata["env_steps"] > random_env_steps and np.isfinite(metadata["score"])  # of seeds that didn't diverge
    }
    if not learnt:
        raise FileNotFoundError(f"{out} holds no sound snapshots later than its random steps: train on with --resume")
    wanted = {
        "medium": lambda score: -abs(score - medium),
        "expert": lambda score: score,
    }
    chosen = {}
    for quality, merit in wanted.items():
        candidates = sorted(learnt, key=lambda path: merit(learnt[path]["score"]), reverse=True)[:3]
        measured = {path: _measure(task, path) for path in candidates}
        best = max(candidates, key=lambda path: merit(measured[path]["score"]))
        chosen[quality] = measured[best]
        save_behaviour(out / f"{quality}.npz", load_behaviour(best)[0], measured[best])
        print(f"{quality}: {best.name}, sampled score {measured[best]['score']:.1f} -> {out / f'{quality}.npz'}")
    _save_replay(out / "medium-replay.npz", taken, chosen["medium"], random_env_steps)


def _save_replay(
    path: pathlib.Path, taken: dict[pathlib.Path, dict[str, Any]], medium: dict[str, Any], random_env_steps: int
) -> None:
    """Writes the snapshots that represent the replay buffer of the medium policy's run, up to that policy."""
    run = {
        metadata["env_steps"]: snapshot
        for snapshot, metadata in taken.items()
        if metadata["seed"] == medium["seed"] and random_env_steps <= metadata["env_steps"] <= medium["env_steps"]
    }
    env_steps, shares = replay_recipe(sorted(run), random_env_steps, REPLAY_SNAPSHOTS)
    policies = [load_behaviour(run[step])[0] for step in env_steps]
    metadata = {key: medium[key] for key in ("env_id", "algorithm", "seed", "command")} | {
        "env_steps": env_steps,
        "shares": shares,
        "random_share": random_env_steps / medium["env_steps"],
    }
    save_behaviour(path, jax.tree.map(lambda *leaves: np.stack(leaves), *policies), metadata, np.float16)
    print(f"medium-replay: {len(shares)} snapshots up to {env_steps[-1]:,} environment steps -> {path}")


def replay_recipe(env_steps: list[int], random_env_steps: int, count: int) -> tuple[list[int], list[float]]:
    """Returns the snapshots of a run that represent its replay buffer, and each one's share.

    Snapshots evenly spread are kept, the first and the last among them. Every row of the buffer after the random ones
    counts for the snapshot that is nearest in environment steps.

    Args:
      env_steps: of the snapshots, increasing, the first not before `random_env_steps`; the buffer ends at the last.
      random_env_steps: rows of the buffer before them that an agent which knew nothing filled with uniform actions.
      count: how many snapshots to keep, or all if there are fewer.

    Returns:
      Environment steps [K] of the kept ones, and shares [K]; the rest of the buffer are the random steps.
    """
    kept = np.rint(np.linspace(0, len(env_steps) - 1, min(count, len(env_steps)))).astype(int)
    steps = np.array(env_steps)[kept]
    borders = np.concatenate([[random_env_steps], (steps[1:] + steps[:-1]) / 2, steps[-1:]])
    return steps.tolist(), (np.diff(borders) / steps[-1]).tolist()


def _measure(task: Task, path: pathlib.Path) -> dict[str, Any]:
    """The snapshot's metadata with its sampled returns taken from CHOICE_EPISODES episodes."""
    policy, metadata = load_behaviour(path)
    returns = sampled_returns(policy, task, CHOICE_EPISODES)
    return metadata | _metadata(task, returns, metadata["env_steps"], metadata["seed"])


def sampled_returns(policy: Policy, task: Task, episodes: int) -> np.ndarray:
    """Raw returns [E] of a policy that samples its actions. Impure."""
    key = jax.random.key(0)

    def begin() -> None:
        nonlocal key
        key = jax.random.key(0)

    def act(observation: np.ndarray) -> np.ndarray:
        nonlocal key
        key, draw = jax.random.split(key)
        return sample_actions(policy, observation, draw)

    evaluator = make_evaluator(envs.family(task.name), task, [0], episodes, stream=3)
    return evaluator(act, begin=begin)[0][0]
