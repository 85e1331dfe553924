"""Readiness report: what taking a policy online will do, before one environment step is spent.

    python -m experiments.diagnose --run=runs/td3_bc                      # policy and critic of an offline run
    python -m experiments.diagnose --run=runs/td3_bc --algorithm=o2td3    # re-evaluates and aligns them first
    python -m experiments.diagnose --run=runs/o2td3                       # what a fine-tuning run left of both phases

The output folder, by default `<run>/diagnosis`, gets `diagnosis.txt` (the page that is printed), `diagnosis.png`,
`diagnosis.csv` (a row per seed) and `diagnosis.json`; with --algorithm also the logs of both phases. The settings of
these are those of experiments.finetune, and --set shortens them: --set=reevaluate.updates=50_000.

Held-out trajectories are episodes of another dataset, --holdout_dataset. Without one they are taken from the dataset
itself, which the offline run has seen, and the report says so.
"""

import contextlib
import dataclasses
import functools
from pathlib import Path
from typing import Any

import absl.flags
import jax
from absl.flags import FlagValues
from jax.sharding import Mesh

from o2o_jax import envs, online
from o2o_jax.cli import flags, overrides, readiness
from o2o_jax.cli.report import figure_class
from o2o_jax.critic import QFunction
from o2o_jax.data import sources
from o2o_jax.data.dataset import Dataset
from o2o_jax.diagnosis import MARGIN, Diagnosis, DiagnosisConfig, diagnose
from o2o_jax.interfaces import Task
from o2o_jax.jobs.handoffs import Stage, data_of, load_offline, load_stages, named_task, networks_of, places, seeds_of
from o2o_jax.jobs.job import check_discount, cloning, data_warnings
from o2o_jax.policy import AnyPolicy, Policy, SequencePolicy
from o2o_jax.runtime import limits, log, seeds
from o2o_jax.runtime.checkpoint import claim, read_config
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.setup import Setup
from o2o_jax.runtime.train import CLONE, train

HOLDOUT_EPISODES = 50  # by default, and never more than half of them


@dataclasses.dataclass(frozen=True)
class Subject:
    """The networks to diagnose, seeds stacked [S] each.

    Attributes:
      title: one line that says what they are.
      policy: π_off, or its clone.
      offline: the offline critic, if there is one.
      stages: "reevaluate" and "align" -> what these phases ended with, as far as there is something.
      notes: what readers of the report have to know of them, a line each.
    """

    title: str
    policy: Policy
    offline: QFunction | None
    stages: dict[str, Stage]
    notes: tuple[str, ...] = ()


def define(values: FlagValues) -> None:
    """Flags of this script."""
    flags.define_common(values, "set", "devices")
    flags.define_schedule(values)
    flags.define_clone_updates(values)
    flags.define_path(
        values, "run", None, "output folder of experiments.offline or experiments.finetune", required=True
    )
    flags.define_path(values, "out", None, "folder for the report; by default diagnosis in the run's")
    absl.flags.DEFINE_integer(
        "seeds", None, "how many of the run's seeds; all by default", lower_bound=1, flag_values=values
    )
    absl.flags.DEFINE_integer(
        "first_seed", None, "number of the first of them; the run's first one by default", lower_bound=0,
        flag_values=values,
    )  # fmt: skip
    absl.flags.DEFINE_string(
        "algorithm", None, "online algorithm that re-evaluates and aligns an offline run's policy; none by default",
        flag_values=values,
    )  # fmt: skip
    flags.define_path(values, "dataset", None, "Minari id or path; by default the data that the run was trained on")
    flags.define_path(
        values, "holdout_dataset", None, "data that nothing was trained on; by default episodes of the dataset itself"
    )
    absl.flags.DEFINE_integer(
        "holdout_episodes", None, f"how many trajectories; {HOLDOUT_EPISODES} by default, half of them at most",
        lower_bound=1, flag_values=values,
    )  # fmt: skip
    flags.define_number(
        values,
        "margin",
        MARGIN,
        "difference to the data, as a share of its value, up to which the policy is like it",
        0.0,
    )


def main(args: FlagValues) -> None:
    """Loads or makes the networks, measures, writes the report. Impure."""
    settings = read_config(args.run)
    if settings.get("script") not in ("offline", "finetune"):
        raise ValueError(f"{args.run} holds no run of experiments.offline or experiments.finetune")
    seed_list = seeds_of(settings)
    if args.first_seed is not None:
        seed_list = range(args.first_seed, max(args.first_seed + 1, seed_list.stop))
    if args.seeds:
        seed_list = range(seed_list.start, seed_list.start + args.seeds)
    places(args.run, seeds_of(settings), seed_list)
    if args.set and not args.algorithm:
        raise ValueError("--set changes settings of --algorithm, which is missing")
    if args.algorithm and settings["script"] == "finetune":
        raise ValueError(
            f"{args.run} is a fine-tuning run, whose own phases are diagnosed: leave --algorithm out, or pass the "
            f"offline run, --run={settings['policy']}"
        )
    figure_class()  # says what is missing before minutes of work
    mesh = flags.setup_devices(len(seed_list), args.devices)
    task = named_task(args.run, settings)
    clip = settings.get("clip_actions", False)
    with contextlib.nullcontext() if args.dataset else data_of(args.run):
        dataset = _load(task, args.dataset or settings["dataset"], clip)
    heldout, support, seen = _hold_out(task, dataset, args.holdout_dataset, args.holdout_episodes, clip)
    out = Path(args.out) if args.out else Path(args.run) / "diagnosis"
    record = {
        "script": "diagnose",
        "run": str(args.run),
        "algorithm": args.algorithm or "",
        "set": list(args.set),
        "dataset": dataset.name,
        "heldout": heldout.name,
        "heldout_episodes": len(heldout.episode_ends),
        "heldout_seen_in_training": seen,
        "seeds": len(seed_list),
        "first_seed": seed_list.start,
        "margin": args.margin,
        "measured": dataclasses.asdict(DiagnosisConfig()),
    }
    if settings["script"] == "finetune":
        subject = finetuning_run(args.run, settings, seed_list, dataset)
        _claim(out, record)
    else:
        subject = offline_run(args, settings, seed_list, task, dataset, out, record, mesh)
    result = measure(subject, heldout, support, seed_list, mesh)
    report = readiness.Report(
        title=subject.title,
        result=result,
        seed_list=seed_list,
        dataset=dataset,
        heldout=heldout,
        seen=seen,
        margin=args.margin,
        deterministic=subject.policy.head == "deterministic",
        logged=readiness.logged_gap(args.run if settings["script"] == "offline" else settings["policy"], dataset),
        notes=(*subject.notes, *data_warnings(dataset, task)),
    )
    print(readiness.write(report, record, out))
    print(f"Figure: {(out / 'diagnosis.png').absolute()}")


def measure(subject: Subject, heldout: Dataset, support: Dataset, seed_list: range, mesh: Mesh) -> Diagnosis:
    """Diagnoses all seeds on the same episodes: every number [S], as numpy arrays. Impure: compiles and runs."""
    reevaluated, aligned = (subject.stages.get(phase) for phase in ("reevaluate", "align"))
    networks = (
        subject.policy,
        subject.offline,
        reevaluated and reevaluated.critic,
        aligned and aligned.critic,
        aligned and aligned.policy,
    )
    program = seeds.over_seeds(diagnose, mesh, shared=(1, 2))
    keys = seeds.keys(seed_list, "diagnose")
    episodes, rows = seeds.replicate((heldout.rollout(), support.transitions), mesh)
    return jax.device_get(program(seeds.place(keys, mesh), episodes, rows, *seeds.place(networks, mesh)))


def finetuning_run(run: str, settings: dict[str, Any], seed_list: range, dataset: Dataset) -> Subject:
    """Returns the ends of a fine-tuning run's phases, beside the offline critic before it. Impure: reads files."""
    chosen = places(run, seeds_of(settings), seed_list)
    stages = {phase: seeds.take(stage, chosen) for phase, stage in load_stages(run, dataset.spec).items()}
    notes = [
        f"the run left nothing after {phase}: {'it leaves the phase out' if not updates else 'it has not reached it'}"
        for phase, updates in (
            ("reevaluate", settings["config"].get("reevaluate", {}).get("updates", 0)),
            ("align", settings["config"].get("align", {}).get("updates", 0)),
        )
        if phase not in stages
    ]
    if settings["clone"]:
        notes.append("the policy is the clone that goes online; the offline critic knew the original")
    offline = policy = None
    try:
        handoff, offline = load_offline(settings["policy"], seed_list, dataset.spec)
        policy = None if settings["clone"] else _on_observations(handoff.policy)
    except FileNotFoundError:
        notes.append(f"no offline critic: the offline run {settings['policy']} is not there any more")
    if "reevaluate" in stages:
        policy = stages["reevaluate"].policy  # the phase leaves π_off as it is
    if policy is None:
        raise FileNotFoundError(
            f"{run} left no policy from before its alignment, and neither did {settings['policy']}: nothing to compare"
        )
    title = f"{settings['source']['algorithm']} → {settings['algorithm']} on {settings['env']}"
    return Subject(title, policy, offline, stages, tuple(notes))


def offline_run(
    args: FlagValues,
    settings: dict[str, Any],
    seed_list: range,
    task: Task | None,
    dataset: Dataset,
    out: Path,
    record: dict[str, Any],
    mesh: Mesh,
) -> Subject:
    """An offline run's policy and critic; with --algorithm, re-evaluated and aligned first. Impure: claims `out`."""
    handoff, offline = load_offline(args.run, seed_list, dataset.spec)
    title = f"{settings['algorithm']} on {settings['env'] or dataset.name}"
    notes = [] if offline else [f"no offline critic: {settings['algorithm']} learns no values of actions"]
    if not args.algorithm:
        policy = _on_observations(handoff.policy)
        _claim(out, record)
        notes.append("nothing is re-evaluated or aligned: --algorithm=o2td3 or o2sac would do it")
        return Subject(title, policy, offline, {}, tuple(notes))

    module = online.load(args.algorithm)
    published = module.Config.published(task) if task else module.Config()
    config = overrides.parse_overrides(published.scheduled(args.schedule), args.set)
    switch = module.make(config, dataset.spec)
    if switch.critic is None or not any(phase.name == "reevaluate" for phase in switch.phases):
        raise ValueError(f"{args.algorithm} re-evaluates no values of actions: pass --algorithm=o2td3 or o2sac")
    setup = Setup(switch, config, dataset.spec, seed_list, mesh)
    check_discount(settings, setup)
    fits = setup.requires.takes(handoff.policy.head)
    clone = None if fits else cloning(config, args.schedule, args.clone_updates)
    plan = Plan(setup, dataset, handoff, clone)
    limits.check(plan)
    record["config"] = dataclasses.asdict(config)
    notes += config.warnings(settings["algorithm"])
    _claim(out, record)
    policy, stages = _reconstruct(plan, out)
    if clone:
        notes.append("the policy is the clone that goes online; the offline critic knew the original")
    lengths = " + ".join(f"{phase.updates:,}" for phase in switch.phases) + " updates"
    return Subject(f"{title}, {lengths} of {args.algorithm}", policy, offline, stages, tuple(notes))


def _reconstruct(plan: Plan, out: Path) -> tuple[Policy, dict[str, Stage]]:
    """Runs a plan's phases; returns π_off, or its clone, and what each phase ended with. Impure: writes logs."""
    algorithm = plan.setup.algorithm
    to_stage = seeds.over_seeds(functools.partial(networks_of, algorithm), plan.setup.mesh)
    assert plan.start is not None
    policy, stages = plan.start.policy, {}
    with log.MetricLog(out, first_seed=plan.setup.seeds[0]) as metric_log:
        for event in train(plan):
            metric_log.take(event)
            for line in event.lines:
                print(line)
            if event.ended and event.phase == CLONE:
                policy = jax.device_get(event.run.agent.student)
            elif event.ended:
                stages[event.phase] = jax.device_get(to_stage(event.run.agent))
            if len(stages) == len(algorithm.phases):
                break
    return _on_observations(policy), stages


def _on_observations(policy: AnyPolicy) -> Policy:
    """The policy as it is, if observations are all that it acts on, as every measure here asks of it."""
    if isinstance(policy, SequencePolicy):
        raise ValueError("the policy acts on histories: pass --algorithm=o2td3 or o2sac to diagnose the clone of it")
    assert isinstance(policy, Policy)  # no offline method leaves a set, or an optimised one
    return policy


def _claim(out: Path, record: dict[str, Any]) -> None:
    claim(out, record, way_out="it is not overwritten; pass another --out, or delete it first")


def _load(task: Task | None, source: str, clip: bool) -> Dataset:
    if task is None:
        return sources.load(source, clip_actions=clip)
    return envs.family(task.name).load_dataset(task, source, clip)


def _hold_out(
    task: Task | None, dataset: Dataset, other: str | None, count: int | None, clip: bool
) -> tuple[Dataset, Dataset, bool]:
    """The trajectories to compare with, the rows of the dataset without them, and whether training has seen them."""
    source = _load(task, other, clip) if other else dataset
    episodes = len(source.episode_ends)
    count = count or max(1, min(HOLDOUT_EPISODES, episodes // 2))
    if other and count >= episodes:
        return source, dataset, False
    if episodes < 2:
        raise ValueError(f"{source.name} is one single episode, of which none can be set aside: pass --holdout_dataset")
    rest, heldout = source.hold_out(count)
    return heldout, dataset if other else rest, not other
