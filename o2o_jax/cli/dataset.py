"""Makes offline datasets by D4RL's protocol and stores them for Minari.

    python -m experiments.dataset --env=mujoco/hopper-medium
    python -m experiments.dataset --all --table=datasets.md

The first makes a task's dataset. The second makes all of a family's benchmark, by default the fifteen of locomotion,
and writes a table of what is in them; those that exist already are left alone, so that the same command resumes where
it was interrupted.

The task's family says who acts, one behaviour after the other, each for its share of the transitions: uniform actions
for `random`, samples of policies that ship with the package for the others, `medium-expert` half of the one and half of
the other, `medium-replay` snapshots of a training run one after the other, as they filled its replay buffer. Episodes
last until they terminate or reach the time limit, and none is left out: they are stored in the order in which they
began, and the last of each behaviour is cut, marked as truncated, where its share is reached.

Every episode is stored with the seed that its environment was reset with, in Minari's own place for it: reset an
environment of the dataset with it and the stored actions give the same episode again.
"""

import contextlib
import dataclasses
import importlib.metadata
import itertools
import math
import os
import pathlib
import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import absl.flags
import jax
import numpy as np
from absl.flags import FlagValues

from o2o_jax import envs
from o2o_jax.cli import estimates, flags
from o2o_jax.data.sources import MINARI_ID, minari_folder
from o2o_jax.envs.behaviour import Behaviour, load_behaviour, replay, sampled
from o2o_jax.envs.vector import check_failures, last_observations
from o2o_jax.interfaces import Task
from o2o_jax.runtime import files, limits
from o2o_jax.runtime.log import progress

NUM_ENVS = 25


def make_dataset(
    task: Task,
    transitions: int | None = None,
    seed: int = 0,
    out: str | None = None,
    behaviours: list[Behaviour] | None = None,
    overwrite: bool = False,
) -> str:
    """Collects transitions and writes them as a local Minari dataset.

    Args:
      task: the environment, and the id and reference scores of the dataset.
      transitions: N, exactly as many rows get written; None for `task.transitions`.
      seed: of the environments and the actions.
      out: Minari id to write; None for `task.dataset_id`.
      behaviours: who acts, one after the other, each for its share; None for those of the task's family.
      overwrite: whether an existing dataset gets replaced, once the new one has been collected.

    Returns:
      The id of the dataset.

    Raises:
      ValueError: too few transitions, or more than this machine can record; a malformed id, or a task whose dataset
        can't be made this way.
      FileExistsError: the id exists and `overwrite` is False.
      FileNotFoundError: a behaviour policy isn't shipped.
      OSError: Minari's folder can't be made.
    """
    check_can_be_recorded(task)
    dataset_id = out or task.dataset_id
    if not dataset_id:
        raise envs.no_dataset(task, "pass --out")
    if not MINARI_ID.fullmatch(dataset_id):
        raise ValueError(f"{dataset_id!r} is no Minari id: write --out=<namespace>/<name>-v0, without dots")
    if behaviours is None:
        behaviours = envs.family(task.name).behaviours(task)
    folder = minari_folder(dataset_id)
    if folder.exists() and not overwrite:
        raise FileExistsError(
            f"dataset {dataset_id} exists at {folder}: pass --overwrite to replace it, or another --out"
        )
    if transitions is None:
        transitions = task.transitions
    rows = _rows(behaviours, transitions)
    _check_limits(task, transitions)
    files.make_folder(folder.parent)  # before what may take an hour
    keys = jax.random.split(jax.random.key(seed), len(behaviours))
    seeds = np.random.SeedSequence(seed).spawn(len(behaviours))
    num_envs = min(NUM_ENVS, math.ceil(max(rows) / task.max_episode_steps))  # what more would record is thrown away
    episodes = []
    with (
        contextlib.closing(envs.make_collection_env(task, num_envs)) as vector,
        progress(task.name, transitions) as bar,
    ):
        recorded_in = vector.get_attr("unwrapped")[0]
        for behaviour, count, key, stream in zip(behaviours, rows, keys, seeds, strict=True):
            episodes += collect(vector, behaviour.act, count, key, np.random.default_rng(stream), bar.update)
    names = [name for name, _ in itertools.groupby(behaviour.name for behaviour in behaviours)]
    _write(dataset_id, task, recorded_in, " then ".join(names), seed, episodes)
    return dataset_id


def _check_limits(task: Task, transitions: int) -> None:
    """Refuses more transitions than memory holds, where all are kept twice before they are written, or a year makes."""
    row = 8 * task.spec.observation_dim + 4 * task.spec.action_dim + 10  # a reward of 8 bytes, two flags
    limits.check_memory({"transitions": 2 * row * transitions}, {"transitions": "lower --transitions"})
    estimates.check_simulators(task, transitions, "lower --transitions")


def _rows(behaviours: list[Behaviour], transitions: int) -> list[int]:
    """Rows of each behaviour, at least one and `transitions` in all: its share, rounded so that no rounding adds up."""
    shares = np.array([behaviour.share for behaviour in behaviours])
    if not np.isclose(shares.sum(), 1.0):
        raise ValueError(f"shares of behaviours must sum to 1, got {shares.tolist()}")
    rows = np.diff(np.floor(np.cumsum(shares) * transitions + 0.5).astype(int), prepend=0)
    if rows.min() < 1:
        raise ValueError(
            f"--transitions must be at least {math.ceil(1 / shares.min())}, a row for each who acts, got {transitions}"
        )
    return rows.tolist()


def collect(
    vector: Any,
    act: Callable[[Any, np.ndarray, jax.Array], Any],
    transitions: int,
    key: jax.Array,
    seeds: np.random.Generator,
    report: Callable[[int], Any] = lambda steps: None,
) -> list[dict[str, Any]]:
    """Steps environments until the episodes that began first hold the requested number of transitions.

    Episodes count in the order in which they began. That order is fixed before any of them shows how long it lasts,
    so short episodes, which end sooner, aren't favoured: the outcome is distributed like one long recording with a
    single environment. Later episodes that happen to be finished are dropped.

    Args:
      vector: gymnasium vector environment [N] that resets on the step that ends an episode.
      act: who acts, see `Behaviour`.
      transitions: rows to collect, exactly.
      key: of the sampled actions.
      seeds: draws the seed of every episode.
      report: called with the number of rows that each step adds, `transitions` in all.

    Returns:
      Episodes: seed, observations [T + 1, O], actions [T, A], rewards [T], terminations [T], truncations [T].

    Raises:
      EnvironmentFailure: an environment fails.
    """
    steps: list[tuple[np.ndarray, ...]] = []
    spans = [_Span(env, _draw(seeds), begin=0) for env in range(vector.num_envs)]  # in the order in which they began
    running = list(spans)  # of each environment
    first, rows_before = 0, 0  # the first span that still runs, and the rows of all before it
    observations, info = vector.reset(seed=[span.seed for span in spans])
    check_failures(info)

    while True:
        while (end := spans[first].end) is not None:
            rows_before += end - spans[first].begin
            first += 1
        if rows_before + len(steps) - spans[first].begin >= transitions:
            break
        actions = np.asarray(act(vector, observations, jax.random.fold_in(key, len(steps))), np.float32)
        next_observations, rewards, terminations, truncations, info = vector.step(actions)
        check_failures(info)
        steps.append((observations, actions, rewards, terminations, truncations))
        ended = terminations | truncations
        for env in np.flatnonzero(ended).tolist():
            running[env].end = len(steps)
            running[env].last = last_observations(next_observations, info)[env]
            running[env] = _Span(env, _draw(seeds), begin=len(steps))
            spans.append(running[env])
        if ended.any():  # reset already, but with no seed that could be stored
            fresh = [span.seed if over else None for span, over in zip(running, ended, strict=True)]
            next_observations, info = vector.reset(seed=fresh, options={"reset_mask": ended})
            check_failures(info)
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


def _draw(seeds: np.random.Generator) -> int:
    return int(seeds.integers(2**31))  # what any simulator takes for a seed


@dataclasses.dataclass
class _Span:
    """Place of an episode among the steps."""

    env: int
    seed: int
    begin: int
    end: int | None = None  # one past the last step; None while it runs
    last: Any = None  # [O] true last observation, once it has ended


def _episode(columns: list[np.ndarray], span: _Span, at_most: int) -> dict[str, Any]:
    """Takes one episode out of the steps [T, N, ...], cut to a number of rows."""
    observations, actions, rewards, terminations, truncations = columns
    recorded = len(rewards) if span.end is None else span.end
    end = min(recorded, span.begin + at_most)
    rows = slice(span.begin, end)
    last = span.last if end == span.end else observations[end, span.env]
    truncated = truncations[rows, span.env].copy()
    truncated[-1] |= end != span.end
    return {
        "seed": span.seed,
        "observations": np.concatenate([observations[rows, span.env], last[None]]),
        "actions": actions[rows, span.env],
        "rewards": rewards[rows, span.env],
        "terminations": terminations[rows, span.env],
        "truncations": truncated,
    }


def check_can_be_recorded(task: Task) -> None:
    """Refuses an environment that a dataset can't name, before it is played. Impure: makes it.

    Raises:
      ValueError: it is registered with a class or a function, which no file can hold.
    """
    env = envs.family(task.name).make_env(task)
    spec = env.unwrapped.spec
    env.close()
    if spec is not None and callable(spec.entry_point):
        raise ValueError(
            f"{spec.id} is registered with {spec.entry_point}, which a dataset can't name: register it with the text "
            "'module:Class'"
        )


def _write(
    dataset_id: str,
    task: Task,
    recorded_in: Any,
    algorithm_name: str,
    seed: int,
    episodes: list[dict[str, Any]],
) -> None:
    """Writes episodes in Minari's format and reads them back; only then a dataset of that id is replaced."""
    import minari
    from minari.data_collector import EpisodeBuffer

    env = envs.family(task.name).make_env(task)
    # the simulators' own environments, so that they can be made again from the dataset; the spaces are ours
    recorded_spec, eval_spec = (
        dataclasses.replace(simulator.spec, max_episode_steps=task.max_episode_steps)
        for simulator in (recorded_in, env.unwrapped)
    )
    env.close()

    def check(folder: pathlib.Path) -> None:
        rows = sum(len(episode["rewards"]) for episode in episodes)
        if (found := envs.family(task.name).load_dataset(task, str(folder)).size) != rows:
            raise ValueError(f"{dataset_id} holds {found} transitions where {rows} were written; nothing was replaced")

    with _beside(dataset_id, check), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # minari asks for an author and an e-mail address
        minari.create_dataset_from_buffers(
            dataset_id,
            [EpisodeBuffer(**episode) for episode in episodes],
            env=recorded_spec,
            eval_env=eval_spec,
            observation_space=env.observation_space,
            action_space=env.action_space,
            ref_min_score=task.random_score if task.has_references else None,
            ref_max_score=task.expert_score if task.has_references else None,
            algorithm_name=algorithm_name,
            description=f"{task.name} by D4RL's protocol, time limit {task.max_episode_steps} steps, seed {seed}",
            requirements=_requirements(type(env.unwrapped).__module__),
        )


def _requirements(module: str) -> list[str]:
    """The simulator's packages and the one that an environment's module belongs to, as they are installed."""
    packages = importlib.metadata.packages_distributions().get(module.partition(".")[0], [])
    names = sorted({"gymnasium", "mujoco", *packages})
    return [f"{name}=={importlib.metadata.version(name)}" for name in names]


@contextlib.contextmanager
def _beside(dataset_id: str, check: Callable[[pathlib.Path], Any]) -> Iterator[None]:
    """Lets Minari write a dataset beside the one of that id, which is replaced once the new one has been read back.

    After an error the old one is where it was. A kill may come between the two renames at the end: both are then in a
    hidden folder beside Minari's, from which the next call takes the old one back.

    Args:
      dataset_id: Minari's.
      check: (folder of the new dataset) -> raises what is wrong with it.

    Raises:
      ValueError: the new dataset couldn't be written, or `check` raises it.
    """
    folder, root = minari_folder(dataset_id), minari_folder("")
    draft = root / f".{dataset_id.replace('/', '-')}.making"
    replaced = draft / "replaced"
    if replaced.exists() and not folder.exists():
        replaced.rename(folder)
        print(f"note: {folder} is back as it was before a process that replaced it was killed")
    shutil.rmtree(draft, ignore_errors=True)
    environment = os.environ.get("MINARI_DATASETS_PATH")
    try:
        os.environ["MINARI_DATASETS_PATH"] = str(draft)
        try:
            yield
        except (OSError, RuntimeError) as error:  # h5py raises either where the disk is full
            raise ValueError(f"{dataset_id} could not be written to {root}: {error}; nothing was replaced") from error
        check(draft / dataset_id)
        for description in draft.rglob("namespace_metadata.json"):  # which Minari has for every part of an id
            own = root / description.relative_to(draft)
            if not own.exists():
                own.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(description, own)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            folder.rename(replaced)
        (draft / dataset_id).rename(folder)
    finally:
        if environment is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = environment
        shutil.rmtree(draft, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Contents of a dataset.

    Attributes:
      task: which the dataset belongs to.
      dataset_id: Minari's.
      transitions: rows in all.
      returns: [episodes] undiscounted returns of the whole episodes.
      lengths: [episodes] theirs in steps.
      terminated: [episodes] whether they terminated; the others reached the time limit.
    """

    task: Task
    dataset_id: str
    transitions: int
    returns: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.dataset_id}: {self.transitions} transitions, {len(self.returns)} whole episodes, "
            f"return {self.returns.mean():.1f} ± {self.returns.std():.1f} "
            f"(score {self.task.score(self.returns.mean()):.1f}), in {minari_folder(self.dataset_id)}"
        )


def summarize(task: Task, dataset_id: str) -> Summary:
    """Reads a dataset and counts its whole episodes: where a behaviour's share ends, one is cut short of its return.

    Raises:
      FileNotFoundError: no such dataset.
      ValueError: it is damaged or doesn't fit the task.
    """
    dataset = envs.family(task.name).load_dataset(task, dataset_id)
    lengths = np.diff(dataset.episode_ends, prepend=0)
    terminated = dataset.transitions.terminated[dataset.episode_ends - 1] > 0
    whole = terminated | (lengths == task.max_episode_steps)
    if not whole.any():  # in a very small dataset
        whole = np.ones_like(whole)
    return Summary(task, dataset_id, dataset.size, dataset.returns()[whole], lengths[whole], terminated[whole])


def table(summaries: list[Summary]) -> str:
    """A Markdown page with a row per dataset: counts, return and length of an episode, and the published score."""
    lines = [
        "# Datasets",
        "",
        "Written by `python -m experiments.dataset --all --table=…`. Return (mean ± standard deviation), score (of the",
        "mean) and length are those of whole episodes; terminated is the share of them that ended before the limit.",
        "Published is the mean score of D4RL's dataset of that name, where it is known.",
        "",
        "| Task | Transitions | Episodes | Return | Score | Published | Length | Terminated |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for summary in summaries:
        task, returns = summary.task, summary.returns
        cells = [
            f"`{task.name}`",
            f"{summary.transitions:,}",
            f"{len(returns):,}",
            f"{returns.mean():.0f} ± {returns.std():.0f}",
            f"{task.score(returns.mean()):.1f}",
            "" if task.published_score is None else f"{task.published_score:.1f}",
            f"{summary.lengths.mean():.0f}",
            f"{100 * summary.terminated.mean():.1f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def define(values: FlagValues) -> None:
    """Flags of this script."""
    absl.flags.DEFINE_string(
        "env", None, "task, such as mujoco/hopper-medium; with --all a family, by default mujoco", flag_values=values
    )
    absl.flags.DEFINE_bool(
        "all", False, "make all datasets of the family's benchmark that don't exist yet", flag_values=values
    )
    absl.flags.DEFINE_integer(
        "transitions", None, "rows to collect, by default as many as D4RL has", lower_bound=1, flag_values=values
    )
    absl.flags.DEFINE_integer(
        "seed", 0, "of environments and actions", lower_bound=0, upper_bound=10**9, flag_values=values
    )
    absl.flags.DEFINE_string("out", None, "Minari id to write, by default the task's own", flag_values=values)
    flags.define_path(values, "policy", None, ".npz of experiments.behaviour to make the data with; needs --out")
    absl.flags.DEFINE_bool("overwrite", False, "replace existing datasets", flag_values=values)
    flags.define_path(values, "table", None, "file for a Markdown table of the datasets")


def main(args: FlagValues) -> None:
    """Makes one dataset or all of a family, and says what is in them. Impure."""
    if args.all:
        if args.out or args.policy:
            raise ValueError("--all makes every task's own dataset: --out and --policy go with one task")
        if args.env and "/" in args.env:
            raise ValueError(f"--all takes a family, such as --env=mujoco, not {args.env!r}")
        summaries, missing = _make_all(args.env or "mujoco", args)
    else:
        if not args.env:
            raise ValueError("--env=… is missing: name a task, such as mujoco/hopper-medium, or pass --all")
        if args.policy and not args.out:
            raise ValueError("--policy needs --out: the task's own id belongs to the shipped policies")
        task = envs.get_task(args.env)
        behaviours = _behaviours_of(args.policy, task) if args.policy else None
        dataset_id = make_dataset(task, args.transitions, args.seed, args.out, behaviours, args.overwrite)
        summaries, missing = [summarize(task, dataset_id)], []
        print(summaries[0])
    if args.table:
        path = pathlib.Path(args.table)
        files.make_folder(path.parent)
        path.write_text(table(summaries), encoding="utf-8")
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(missing) + len(summaries)} datasets could not be made, for want of behaviour "
            f"policies (above: which, and what trains them): {', '.join(missing)}"
        )


def _behaviours_of(path: str, task: Task) -> list[Behaviour]:
    """Returns the behaviours of a file of `experiments.behaviour`: its policy or, of a replay, its snapshots."""
    policy, metadata = load_behaviour(path)
    return replay(policy, metadata, task) if "shares" in metadata else [sampled(policy, task)]


def _make_all(family: str, args: FlagValues) -> tuple[list[Summary], list[str]]:
    """Makes what is missing of a family's benchmark; returns what there is then, and names of what can't be made."""
    summaries, missing = [], []
    for name in envs.benchmark(family):
        task = envs.get_task(name)
        summary = None if args.overwrite else _existing(task)
        if summary:
            print(f"exists: {summary}", flush=True)
        else:
            try:
                behaviours = envs.family(name).behaviours(task)
            except FileNotFoundError as error:
                print(f"{name} can't be made: {error}", flush=True)
                missing.append(name)
                continue
            make_dataset(task, args.transitions, args.seed, None, behaviours, overwrite=True)
            summary = summarize(task, task.dataset_id)
            print(summary, flush=True)
        summaries.append(summary)
    return summaries, missing


def _existing(task: Task) -> Summary | None:
    """The task's dataset if it is there, whole; one whose writing was killed isn't."""
    if not minari_folder(task.dataset_id).exists():
        return None
    try:
        return summarize(task, task.dataset_id)
    except (ValueError, FileNotFoundError) as error:
        print(f"to be made again: {error}", flush=True)
        return None
