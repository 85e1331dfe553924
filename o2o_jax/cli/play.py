"""Plays the policies of a run: scores them and films them, side by side.

    python -m experiments.play --run=runs/o2td3 --episodes=5 --video=walker2d.mp4
    python -m experiments.play --run=runs/o2td3 --compare=offline,runs/td3:lowest,best --video=compared.mp4

--run is the folder of a run, offline or online, or one that `o2o_jax.save_policy` wrote. --compare names several of its
policies, or <folder>:<policy> of other runs: best, last, offline, aligned, lowest. All play from the same start states,
which no evaluation of the run began with. The film shows the first episode in real time, a long one faster; a panel
keeps its last frame when its episode has ended. It needs no screen.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import absl.flags
import numpy as np
from absl.flags import FlagValues

from o2o_jax import envs, registry
from o2o_jax.cli import estimates, flags
from o2o_jax.interfaces import Task
from o2o_jax.jobs.policies import WHICH, load_policy
from o2o_jax.runtime import film, limits, playing
from o2o_jax.runtime.deployed import DeployedPolicy
from o2o_jax.runtime.saved import is_saved


def define(values: FlagValues) -> None:
    """Flags of this script."""
    flags.define_path(values, "run", None, "folder of a run, or of a policy that save_policy wrote", required=True)
    flags.define_paths(
        values,
        "compare",
        ["best"],
        f"policies of the run ({', '.join(WHICH)}), or <folder>:<policy> of others, to play from the same start states",
    )
    absl.flags.DEFINE_integer("seed", 0, "number of the runs' seed", lower_bound=0, flag_values=values)
    absl.flags.DEFINE_integer("episodes", 5, "per policy", lower_bound=1, flag_values=values)
    flags.define_path(values, "video", None, "film to write, an .mp4 file")
    absl.flags.DEFINE_integer("film_episodes", 1, "episodes to film, one after the other", lower_bound=1,
                              flag_values=values)  # fmt: skip
    absl.flags.DEFINE_bool("overwrite", False, "replace the film that is there", flag_values=values)
    absl.flags.DEFINE_string("env", None, "task to play in; by default that of the policies", flag_values=values)


def main(args: FlagValues) -> None:
    """Plays, prints, films. Impure."""
    if args.video:
        film.check(args.video, args.overwrite)
        if args.film_episodes > args.episodes:
            raise ValueError(
                f"--film_episodes={args.film_episodes} are more than the {args.episodes} that are played: lower it, or "
                "raise --episodes"
            )
    flags.keep_compiled_programs()
    if not args.compare:
        raise ValueError(f"--compare names no policy: choose of {', '.join(WHICH)}")
    entries = [_entry(args.run, text) for text in args.compare]
    policies = [load_policy(folder, args.seed, which) for folder, which in entries]  # type: ignore[arg-type]
    labels = [_label(args.run, folder, policy) for (folder, _), policy in zip(entries, policies, strict=True)]
    task = _task(args.env, labels, policies)
    family = envs.family(task.name)
    make_env = functools.partial(family.make_env, task)
    if args.video:
        film.check_renderer(make_env)
    limits.check_episodes(len(policies), args.episodes, task.max_episode_steps, task.spec)
    steps = len(policies) * args.episodes * task.max_episode_steps
    estimates.check_simulators(task, steps, "lower --episodes")
    episodes = playing.play(family, task, policies, args.seed, args.episodes)
    print(table(task, labels, episodes))
    if args.video:
        panels = [
            film.Panel(label, played[: args.film_episodes]) for label, played in zip(labels, episodes, strict=True)
        ]
        score = task.score if task.has_references else None
        made = film.write(args.video, make_env, panels, score, args.overwrite)
        speed = "" if made.speed == 1 else f", {made.speed:g} times as fast as real time"
        size = made.path.stat().st_size / 1e3
        beside = f"{len(panels)} side by side, " if len(panels) > 1 else ""
        print(f"film: {made.path} ({beside}{made.seconds:.1f} s{speed}, {size:,.0f} kB)")
        if not made.replayed:
            print("note: the environment doesn't repeat an episode: the film shows other returns than the table")


def _entry(run: str, text: str) -> tuple[str, str]:
    """Folder and name of a policy that --compare names.

    Raises:
      ValueError: no such policy.
    """
    folder, separator, which = text.rpartition(":")
    if separator and which in WHICH:
        return folder, which
    if text in WHICH:
        return run, text
    if is_saved(text):
        return text, "best"
    raise ValueError(registry.unknown("policy", text, [*WHICH, "<folder>:<policy>"]))


def _label(run: str, folder: str, policy: DeployedPolicy) -> str:
    """The name of a policy in table and film: what it is, of which run, after how many environment steps."""
    made = policy.made
    name = str(made.get("which", "policy"))
    if folder != run:
        name = f"{name} of {Path(folder).name}"
    if made.get("which") in ("lowest", "last") and "env_steps" in made:
        name += f", step {made['env_steps']:,}"
    return name


def _task(env: str | None, labels: Sequence[str], policies: Sequence[DeployedPolicy]) -> Task:
    """The task that all policies play in, with all its facts.

    Raises:
      ValueError: they have none, or several, or it is of other sizes.
    """
    names = sorted({policy.task.name for policy in policies if policy.task is not None})
    if env is None and not names:
        raise ValueError("the policy knows no environment: pass --env, the task to play in")
    if env is None and len(names) > 1:
        raise ValueError(f"the policies are of {' and '.join(names)}: compare those of one task, or pass --env")
    task = envs.get_task(env) if env else envs.recorded_task(names[0])
    for label, policy in zip(labels, policies, strict=True):
        if policy.spec != task.spec:
            raise ValueError(
                f"the policy {label} takes {policy.spec}, but {task.name} has {task.spec}: choose an --env with as many"
            )
    return task


def table(task: Task, labels: Sequence[str], episodes: Sequence[Sequence[playing.Episode]]) -> str:
    """Returns a line per policy: mean and standard deviation of returns and normalised scores, mean length.

    Args:
      task: whose scores they are.
      labels: P names.
      episodes: of each.
    """
    width = max(len("policy"), *map(len, labels))
    scored = task.has_references
    header = f"{'policy':{width}}  {'return':>8} {'±':>8}" + (f"  {'score':>6} {'±':>6}" if scored else "")
    lines = [f"{task.name}, {len(episodes[0])} episodes from the same start states", f"{header}  {'length':>6}"]
    for label, played in zip(labels, episodes, strict=True):
        totals = np.array([episode.total for episode in played])
        line = f"{label:{width}}  {totals.mean():8.1f} {totals.std():8.1f}"
        if scored:
            scores = task.score(totals)
            line += f"  {scores.mean():6.1f} {scores.std():6.1f}"
        lines.append(f"{line}  {np.mean([episode.length for episode in played]):6.0f}")
    return "\n".join(lines)
