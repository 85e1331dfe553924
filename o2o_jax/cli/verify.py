"""Checks datasets that experiments.dataset made: by Minari's reader and this package's, and by playing episodes again.

    python -m experiments.verify --env=mujoco/hopper-medium
    python -m experiments.verify --all

Every step counts: as many rows as episodes say, none longer than the time limit, an end in the last row alone, and of
one kind but for a fall at the limit. Some episodes, drawn at random, are played again from their stored seeds: the
simulator must give the stored observations and rewards to the last bit, so that no row can be that of a reset. On
another version of MuJoCo than the one a dataset was recorded with that may fail by rounding alone; the message names
both.
"""

import contextlib
import importlib.metadata
from typing import Any

import absl.flags
import numpy as np
from absl.flags import FlagValues

from o2o_jax import envs
from o2o_jax.interfaces import Task


def verify(task: Task, dataset_id: str | None = None, samples: int = 5, seed: int = 0) -> str:
    """Checks one dataset. Impure: reads the disk, steps an environment.

    Args:
      task: which the dataset belongs to.
      dataset_id: Minari's; None for `task.dataset_id`.
      samples: episodes to play again, or all if there are fewer.
      seed: draws them.

    Returns:
      What was found, one line for people.

    Raises:
      ValueError: the first thing that is wrong.
      FileNotFoundError: no such dataset.
    """
    import minari

    dataset_id = dataset_id or task.dataset_id
    if not dataset_id:
        raise envs.no_dataset(task, "name a task that has one")
    ours = envs.family(task.name).load_dataset(task, dataset_id)
    theirs = minari.load_dataset(dataset_id)
    _require(
        theirs.total_steps == ours.size, f"Minari counts {theirs.total_steps} rows, this package {ours.size}", task
    )
    lengths, returns = [], []
    for episode in theirs.iterate_episodes():
        _check_flags(task, episode)
        lengths.append(len(episode))
        returns.append(episode.rewards.sum())
    _require(lengths == np.diff(ours.episode_ends, prepend=0).tolist(), "the readers see other lengths", task)
    _require(np.allclose(ours.returns(), returns, rtol=1e-5), "the readers see other returns", task)

    metadata = list(theirs.storage.get_episode_metadata(theirs.episode_indices))
    seeds = [found.get("seed") for found in metadata]
    if samples and None in seeds:
        raise ValueError(f"{dataset_id} doesn't say what its episodes were reset with: pass --samples=0, to play none")
    chosen = np.random.default_rng(seed).choice(len(seeds), min(samples, len(seeds)), replace=False)
    with contextlib.closing(envs.make_collection_env(task, 1)) as vector:
        for index, episode in zip(np.sort(chosen), theirs.iterate_episodes(np.sort(chosen).tolist()), strict=True):
            _play_again(task, vector, int(seeds[index]), episode, theirs.storage.metadata.get("requirements"))
    return (
        f"{dataset_id}: {ours.size:,} rows in {len(lengths):,} episodes; flags, lengths and returns hold; "
        f"{len(chosen)} episodes played again, all the same"
    )


def _check_flags(task: Task, episode: Any) -> None:
    ends = episode.terminations | episode.truncations
    name = f"episode {episode.id}"
    _require(1 <= len(episode) <= task.max_episode_steps, f"{name} has {len(episode)} steps", task)
    _require(not ends[:-1].any(), f"{name} continues after its end", task)
    _require(ends[-1], f"{name} has no end", task)
    both = episode.terminations[-1] and episode.truncations[-1]  # as a fall on the last step that there was time for
    _require(not both or len(episode) == task.max_episode_steps, f"{name} ends in both ways before the limit", task)
    _require(np.abs(episode.actions).max() <= 1.0, f"{name} has actions outside [-1, 1]", task)


def _play_again(task: Task, vector: Any, seed: int, episode: Any, recorded_with: list[str] | None) -> None:
    observations, _ = vector.reset(seed=[seed])
    same = np.array_equal(observations[0], episode.observations[0])
    for t, action in enumerate(episode.actions):
        observations, rewards, terminations, _, info = vector.step(action[None])
        if "final_obs" in info:
            observations = info["final_obs"]
        same &= np.array_equal(observations[0], episode.observations[t + 1])
        same &= rewards[0] == episode.rewards[t]
        same &= terminations[0] == episode.terminations[t]
        if not same:
            here = f"mujoco=={importlib.metadata.version('mujoco')}"
            problem = (
                f"episode {episode.id}, played again, differs from step {t} on ({here}, recorded with {recorded_with})"
            )
            _require(False, problem, task)


def _require(condition: Any, problem: str, task: Task) -> None:
    if not condition:
        raise ValueError(
            f"{task.dataset_id} is wrong: {problem}; python -m experiments.dataset --env={task.name} --overwrite makes "
            "it again"
        )


def define(values: FlagValues) -> None:
    """Flags of this script."""
    absl.flags.DEFINE_string(
        "env", None, "task, such as mujoco/hopper-medium; with --all a family, by default mujoco", flag_values=values
    )
    absl.flags.DEFINE_bool("all", False, "check all datasets of the family's benchmark", flag_values=values)
    absl.flags.DEFINE_integer(
        "samples", 5, "episodes of each to play again", lower_bound=0, flag_values=values
    )  # fmt: skip


def main(args: FlagValues) -> None:
    """Checks one dataset or all of a family, a line each. Impure."""
    if not args.env and not args.all:
        raise ValueError("--env=… is missing: name a task, such as mujoco/hopper-medium, or pass --all")
    for name in envs.benchmark(args.env or "mujoco") if args.all else [args.env]:
        print(verify(envs.get_task(name), samples=args.samples), flush=True)
