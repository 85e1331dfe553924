"""Makes an offline dataset by D4RL's protocol and stores it for Minari.

    python -m experiments.dataset --env=mujoco/hopper-medium --transitions=1000000

The behaviour policy ships with the package and its actions are sampled; `random` acts uniformly, `medium-expert` takes
its first half from the medium policy and its second from the expert's. Episodes last until they terminate or reach the
time limit, and none is left out: they are stored in the order in which they began, and the last is cut, marked as
truncated, where the requested number of transitions is reached.
"""

import contextlib
import dataclasses
import importlib.metadata
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import absl.flags
import jax
import numpy as np
from absl.flags import FlagValues

from experiments import flags
from o2o_jax import envs
from o2o_jax.data.sources import MINARI_ID, minari_folder
from o2o_jax.envs.vector import last_observations
from o2o_jax.interfaces import Task
from o2o_jax.policy import Policy
from o2o_jax.runtime.log import progress

NUM_ENVS = 25
Sample = Callable[[np.ndarray, jax.Array], Any]  # (raw observations [N, O], key) -> actions [N, A]


def make_dataset(
    task: Task,
    transitions: int,
    seed: int = 0,
    out: str | None = None,
    policies: list[Policy | None] | None = None,
    overwrite: bool = False,
) -> str:
    """Collects transitions and writes them as a local Minari dataset.

    Args:
      task: the environment, and the id and reference scores of the dataset.
      transitions: N, exactly as many rows get written.
      seed: of the environments and the actions.
      out: Minari id to write; None for `task.dataset_id`.
      policies: who acts, in equal shares one after the other; None in the list acts uniformly. By default the
        policies that the task's family ships for it.
      overwrite: whether an existing dataset gets replaced, once the new one has been collected.

    Returns:
      The id of the dataset.

    Raises:
      ValueError: too few transitions, a malformed id, or a task whose dataset can't be made this way.
      FileExistsError: the id exists and `overwrite` is False.
      FileNotFoundError: a behaviour policy isn't shipped.
    """
    dataset_id = out or task.dataset_id
    if not dataset_id:
        raise ValueError(f"{task.name} names no dataset: choose a quality, as in {task.name}-medium, or pass --out")
    if not MINARI_ID.fullmatch(dataset_id):
        raise ValueError(f"{dataset_id!r} is no Minari id: write --out=<namespace>/<name>-v0, without dots")
    folder = minari_folder(dataset_id)
    if folder.exists() and not overwrite:
        raise FileExistsError(
            f"dataset {dataset_id} exists at {folder}: pass --overwrite to replace it, or another --out"
        )
    if policies is None:
        policies = envs.family(task.name).behaviours(task)
    for policy in policies:
        if policy is None:
            continue
        sizes = policy.normalizer.mean.size, policy.actor.action_dim
        if sizes != dataclasses.astuple(task.spec):
            raise ValueError(
                f"a behaviour policy maps {sizes[0]} observations to {sizes[1]} actions, which doesn't fit {task.name} "
                f"({task.spec})"
            )
    if transitions < len(policies):
        raise ValueError(f"--transitions must be at least {len(policies)}, got {transitions}")

    keys = jax.random.split(jax.random.key(seed), len(policies))
    seeds = np.random.SeedSequence(seed).spawn(len(policies))
    episodes = []
    for i, policy in enumerate(policies):
        share = transitions * (i + 1) // len(policies) - transitions * i // len(policies)
        num_envs = min(NUM_ENVS, share)
        vector = envs.family(task.name).make_vector_env(task, num_envs)
        with contextlib.closing(vector), progress(task.name, share) as bar:
            env_seeds = [int(state) for state in seeds[i].generate_state(num_envs)]
            episodes += collect(vector, _sampler(policy, task), share, keys[i], env_seeds, bar.update)
    names = ["uniform actions" if policy is None else "sampled policy" for policy in policies]
    _write(dataset_id, task, " then ".join(names), seed, episodes)
    return dataset_id


def collect(
    vector: Any,
    sample: Sample,
    transitions: int,
    key: jax.Array,
    env_seeds: list[int],
    report: Callable[[int], Any] = lambda steps: None,
) -> list[dict[str, np.ndarray]]:
    """Steps environments until the episodes that began first hold the requested number of transitions.

    Episodes count in the order in which they began. That order is fixed before any of them shows how long it lasts,
    so short episodes, which end sooner, aren't favoured: the outcome is distributed like one long recording with a
    single environment. Later episodes that happen to be finished are dropped.

    Args:
      vector: gymnasium vector environment [N] that resets on the step that ends an episode.
      sample: who acts.
      transitions: rows to collect, exactly.
      key: of the sampled actions.
      env_seeds: [N] of the environments.
      report: called with the number of rows that each step adds, `transitions` in all.

    Returns:
      Episodes: observations [T + 1, O], actions [T, A], rewards [T], terminations [T], truncations [T].
    """
    observations, _ = vector.reset(seed=env_seeds)
    steps: list[tuple[np.ndarray, ...]] = []
    spans = [_Span(env, begin=0) for env in range(vector.num_envs)]  # in the order in which episodes began
    running = list(spans)  # of each environment
    first, rows_before = 0, 0  # the first span that still runs, and the rows of all before it

    while True:
        while (end := spans[first].end) is not None:
            rows_before += end - spans[first].begin
            first += 1
        if rows_before + len(steps) - spans[first].begin >= transitions:
            break
        actions = np.asarray(sample(observations, jax.random.fold_in(key, len(steps))), np.float32)
        next_observations, rewards, terminations, truncations, info = vector.step(actions)
        steps.append((observations, actions, rewards, terminations, truncations))
        for env in np.flatnonzero(terminations | truncations).tolist():
            running[env].end = len(steps)
            running[env].last = last_observations(next_observations, info)[env]
            running[env] = _Span(env, begin=len(steps))
            spans.append(running[env])
        observations = next_observations
        report(min(vector.num_envs, max(0, transitions - (len(steps) - 1) * vector.num_envs)))

    columns = [np.stack(column) for column in zip(*steps, strict=True)]
    columns[0] = np.concatenate([columns[0], observations[None]])  # [T + 1, N, O]: where a cut episode's s' is found
    episodes = []
    for span in spans[: first + 1]:
        if transitions:
            episodes.append(_episode(columns, span, at_most=transitions))
            transitions -= len(episodes[-1]["rewards"])
    return episodes


@dataclasses.dataclass
class _Span:
    """Where an episode lies among the steps."""

    env: int
    begin: int
    end: int | None = None  # one past the last step; None while it runs
    last: Any = None  # [O] true last observation, once it has ended


def _episode(columns: list[np.ndarray], span: _Span, at_most: int) -> dict[str, np.ndarray]:
    """Takes one episode out of the steps [T, N, ...], cut to a number of rows."""
    observations, actions, rewards, terminations, truncations = columns
    recorded = len(rewards) if span.end is None else span.end
    end = min(recorded, span.begin + at_most)
    rows = slice(span.begin, end)
    last = span.last if end == span.end else observations[end, span.env]
    truncated = truncations[rows, span.env].copy()
    truncated[-1] |= end != span.end
    return {
        "observations": np.concatenate([observations[rows, span.env], last[None]]),
        "actions": actions[rows, span.env],
        "rewards": rewards[rows, span.env],
        "terminations": terminations[rows, span.env],
        "truncations": truncated,
    }


def _sampler(policy: Policy | None, task: Task) -> Sample:
    """Sampled actions of a policy, or uniform ones, as one compiled call."""
    if policy is None:
        shape = (task.spec.action_dim,)
        return jax.jit(
            lambda observations, key: jax.random.uniform(key, observations.shape[:1] + shape, minval=-1.0, maxval=1.0)
        )
    act = jax.jit(lambda policy, observations, key: policy.distribution(observations).sample(key))
    return lambda observations, key: act(policy, observations.astype(np.float32), key)


def _write(dataset_id: str, task: Task, algorithm_name: str, seed: int, episodes: list[dict[str, np.ndarray]]) -> None:
    """Writes episodes in Minari's format; a dataset of that id is replaced, an interrupted one doesn't stay."""
    import minari
    from minari.data_collector import EpisodeBuffer

    with _removed_on_error(dataset_id), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # minari asks for an author and an e-mail address
        minari.create_dataset_from_buffers(
            dataset_id,
            [EpisodeBuffer(**episode) for episode in episodes],
            env=task.env_id,
            eval_env=task.env_id,
            ref_min_score=task.random_score,
            ref_max_score=task.expert_score,
            algorithm_name=algorithm_name,
            description=f"{task.name} by D4RL's protocol, time limit {task.max_episode_steps} steps, seed {seed}",
            requirements=[f"{name}=={importlib.metadata.version(name)}" for name in ("gymnasium", "mujoco")],
        )


@contextlib.contextmanager
def _removed_on_error(dataset_id: str) -> Iterator[None]:
    folder = minari_folder(dataset_id)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def define(values: FlagValues) -> None:
    """Flags of this script."""
    absl.flags.DEFINE_string("env", None, "task, such as mujoco/hopper-medium", required=True, flag_values=values)
    absl.flags.DEFINE_integer("transitions", 1_000_000, "rows to collect", lower_bound=1, flag_values=values)
    absl.flags.DEFINE_integer("seed", 0, "of environments and actions", lower_bound=0, flag_values=values)
    absl.flags.DEFINE_string("out", None, "Minari id to write, by default the task's own", flag_values=values)
    absl.flags.DEFINE_string("policy", None, ".npz of another behaviour policy; needs --out", flag_values=values)
    absl.flags.DEFINE_bool("overwrite", False, "replace an existing dataset", flag_values=values)


def main(args: FlagValues) -> None:
    """Makes one dataset and says what is in it."""
    task = envs.get_task(args.env)
    family = envs.family(args.env)
    if args.policy and not args.out:
        raise ValueError("--policy needs --out: the task's own id belongs to the shipped policies")
    policies = [family.load_behaviour(args.policy)[0]] if args.policy else None
    start = time.monotonic()
    dataset_id = make_dataset(task, args.transitions, args.seed, args.out, policies, args.overwrite)
    returns = family.load_dataset(task, dataset_id).returns()
    print(
        f"{dataset_id}: {args.transitions} transitions, {len(returns)} episodes, return {returns.mean():.1f} ± "
        f"{returns.std():.1f} (normalized {task.score(returns.mean()):.1f}), {time.monotonic() - start:.0f} s, in "
        f"{minari_folder(dataset_id)}"
    )


if __name__ == "__main__":
    flags.run(main, define, __doc__)
