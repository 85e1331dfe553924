"""Takes the policies of an offline run online, all seeds side by side.

    python -m experiments.finetune --algorithm=o2td3 --policy=runs/td3_bc --seeds=5 --out=runs/o2td3

Phases: `clone` where the policy's head doesn't fit the algorithm, `reevaluate`, `align`, `finetune`. The output folder
gets a CSV file for each, `<phase>_measures.csv` where stop=measures ends a phase or critic_report=true compares critics
with returns, `start.csv` with the scores of the offline and the aligned policy, `evaluation.csv` by environment steps,
checkpoints, and in `stages` what experiments.diagnose reads: the agent after re-evaluation and after alignment.
`handoffs.load_delivered` reads the policy that a finished run leaves: the last one, or with roll_back=true π_ref, the
best that evaluations confirmed. Runs that differ in what happens online alone need those phases once:
--reconstruction=<run> takes them from there. Where the policy was cloned the clone counts as the offline policy, and
`start.csv` also says how close it came: the score of its teacher, and the last row of `clone.csv`. A run that was
stopped goes on with --resume.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import absl.flags
import jax
import numpy as np
from absl.flags import FlagValues
from jax.sharding import Mesh

from experiments import estimates, flags
from experiments.handoffs import STAGES, keep_stage, load_handoff, load_reconstruction
from experiments.regimes import replay_regimes
from o2o_jax import envs, online
from o2o_jax.data.dataset import Dataset
from o2o_jax.interfaces import OnlineAlgorithm, Stop, Task
from o2o_jax.policy import CloneConfig, Handoff, Policy, SequencePolicy, clone_init, clone_prepare, clone_update
from o2o_jax.runtime import interrupt, log, loop, phases, provenance, seeds
from o2o_jax.runtime.checkpoint import Checkpoints, check_claim, claim, locked
from o2o_jax.runtime.evaluate import AnyEvaluator, evaluation_metrics, make_evaluator, mode_episodes
from o2o_jax.training import DIVERGED, Record, Watched
from o2o_jax.types import Array, Spec, Transition

CHECKPOINT_EVERY = 25_000  # updates, while the critics are reconstructed
COMPLETENESS = ("overestimated", "distance")  # how far alignment has come; they cost no environment step
RECONSTRUCTION_LOGS = ("reevaluate", "reevaluate_measures", "align", "align_measures")
ONLINE_LOGS = ("finetune", "episode", "evaluation", "reference")


def define(values: FlagValues) -> None:
    """Flags of this script."""
    flags.define_common(values)
    flags.define_schedule(values)
    absl.flags.DEFINE_string(
        "algorithm", None, f"online algorithm: {', '.join(online.names())}", required=True, flag_values=values
    )
    absl.flags.DEFINE_string(
        "policy", None, "output folder of experiments.offline, where the policies come from", required=True,
        flag_values=values,
    )  # fmt: skip
    absl.flags.DEFINE_string(
        "env", None, "task to go online in; by default the one that the policy was trained on", flag_values=values
    )
    absl.flags.DEFINE_string(
        "dataset", None, "Minari id or path; by default the data that the policy was trained on", flag_values=values
    )
    absl.flags.DEFINE_string(
        "reconstruction", None, "output folder of a run of this script, with the same settings up to the first "
        "environment step, whose re-evaluated and aligned networks to take", flag_values=values,
    )  # fmt: skip
    absl.flags.DEFINE_integer(
        "checkpoint_every", 1_000, "environment steps between checkpoints; at evaluations", lower_bound=1,
        flag_values=values,
    )  # fmt: skip


def main(args: FlagValues) -> None:
    """Clones if need be, reconstructs, fine-tunes, saves. Impure."""
    mesh = flags.setup_devices(args.seeds, args.devices)
    module = online.load(args.algorithm)
    seed_list = flags.seed_list(args)
    handoff, task, source = load_handoff(args.policy, seed_list, args.env)
    family = envs.family(task.name)

    def estimate(config: Any) -> list[str]:
        algorithm = module.make(config, task.spec)
        cloning = flags.clone_config(args, config.hidden) if handoff.policy.head != algorithm.head else None
        work = estimates.online_work(module, algorithm, config, task.spec, cloning)
        return estimates.describe(work, config, task.spec, args.seeds, mesh)

    config = flags.settings(args, args.algorithm, module.Config.for_task(task, args.schedule), estimate)
    for remark in task.remarks + config.remarks(handoff.source):
        print(f"note: {remark}")
    algorithm = module.make(config, task.spec)
    dataset = family.load_dataset(task, args.dataset or source["dataset"])
    cloning = handoff.policy.head != algorithm.head
    clone_config = flags.clone_config(args, config.hidden) if cloning else None
    seed = check(algorithm, config, task.spec, handoff, clone_config, dataset, source["config"])
    evaluator = None
    if config.eval_episodes:
        evaluator = make_evaluator(family, task, seed_list, config.eval_episodes, args.envpool)
    settings = {
        "script": "finetune",
        "algorithm": args.algorithm,
        "schedule": args.schedule,
        "env": task.name,
        "dataset": dataset.name,
        "transitions": dataset.size,
        "policy": str(args.policy),
        "source": {name: source[name] for name in ("algorithm", "config")},
        "seeds": args.seeds,
        "first_seed": args.first_seed,
        "envpool": args.envpool,
        "config": dataclasses.asdict(config),
        "clone": dataclasses.asdict(clone_config) if clone_config else None,
        "reconstruction": args.reconstruction,
    }
    vector_env = family.make_vector_env(task, args.seeds)  # shows what is missing before hours of updates
    reconstructed = None
    started = (Path(args.out) / "checkpoints").is_dir()  # a run with a checkpoint of its own doesn't need another's
    if args.reconstruction and not started:
        reconstructed = load_reconstruction(args.reconstruction, settings, config, task.spec)
    if args.dry_run:
        check_claim(args.out, settings, args.resume)
        updates = {"updates of cloning": clone_config.updates if clone_config else 0}
        updates |= {"of re-evaluation": config.reevaluate_updates, "of alignment": config.align_updates}
        print(flags.preview(updates | {"environment steps": config.env_steps}, dataset, seed, args.seeds, mesh))
        if evaluator is not None:
            evaluator.close()
        return
    out = claim(args.out, settings, args.resume)

    with locked(out), interrupt.deferred(), log.MetricLog(out, args.tensorboard, args.first_seed) as metric_log:
        provenance.record(out, dataset)
        teacher = handoff.policy if clone_config else None
        if clone_config:
            handoff = clone(handoff, algorithm.head, clone_config, dataset, seed_list, mesh, metric_log, out, settings)
        if not algorithm.reads_handoff_state:
            handoff = handoff.replace(state=None)
        run = loop.start_run(algorithm, config, task.spec, handoff, seed_list, mesh)
        with (
            Checkpoints(out / "checkpoints", settings) as checkpoints,
            Checkpoints(out / STAGES, settings, keep=2) as stages,
        ):
            saved = checkpoints.latest_step()
            extra: dict[str, Any] = {}
            if saved is not None:
                run, extra = checkpoints.restore(run)
            elif args.reconstruction:
                if reconstructed is None:
                    reconstructed = load_reconstruction(args.reconstruction, settings, config, task.spec)
                agent, records = seeds.place(reconstructed, mesh)
                run = run.replace(agent=agent, records=records)
                copy_logs(args.reconstruction, seed_list, metric_log)
            reconstruction = config.reevaluate_updates + config.align_updates
            if saved == reconstruction + 1 + config.env_steps:
                print(f"the run in {out} is complete: nothing is left to do")
            if saved is None or saved <= reconstruction:
                run = _reconstruct(
                    algorithm, config, run, handoff, teacher, task, dataset, seed_list, mesh, metric_log, checkpoints,
                    stages, evaluator,
                )  # fmt: skip

            for phase in ONLINE_LOGS:
                metric_log.rewind(phase, int(run.env_steps))

            def save(run: loop.Run, scores: dict[str, np.ndarray], episodes: dict[str, Any], stopping: bool) -> None:
                del scores
                env_steps, every = int(run.env_steps), args.checkpoint_every
                due = env_steps // every > (env_steps - config.eval_every_env_steps) // every
                if due or stopping or env_steps == config.env_steps:
                    # 1: the checkpoint after alignment is `reconstruction`, before the first environment step
                    checkpoints.save(reconstruction + 1 + env_steps, run, {"episodes": episodes})

            on_replay = algorithm.cadence.source == "replay"
            run = loop.fine_tune(
                algorithm,
                config,
                run,
                replay_data(config.replay, config.part_episodes, dataset, mesh) if on_replay else None,
                vector_env,
                evaluator,
                task,
                seed_list,
                mesh,
                metric_log,
                save,
                extra.get("episodes"),
            )
            print("".join(f"{line}\n" for line in delivered(config, task, run, seed_list, out)), end="")
    if evaluator is not None:
        evaluator.close()


def check(
    algorithm: OnlineAlgorithm,
    config: Any,
    spec: Spec,
    handoff: Handoff,
    clone_config: CloneConfig | None,
    dataset: Dataset,
    offline_config: dict[str, Any],
) -> loop.Run:
    """Returns the shapes of one seed's run; raises what speaks against it, before hours of work or a claimed folder.

    Raises:
      ValueError: a phase needs held-out episodes that aren't there, or `algorithm.init` refuses the handoff or clone.
    """
    if algorithm.stops and len(dataset.episode_ends) < 2:
        raise ValueError(
            f"stop=measures and critic_report hold out episodes, but {dataset.name} is a single one: set stop=updates "
            "and critic_report=false"
        )
    discount = offline_config.get("discount", config.discount)
    if algorithm.reads_handoff_state and discount != config.discount:
        raise ValueError(f"the critics of {handoff.source} were trained with another discount: set discount={discount}")

    def start(key: Array, handoff: Handoff) -> loop.Run:
        if clone_config:
            student = clone_init(clone_config, algorithm.head, key, handoff.policy).student
            handoff = handoff.replace(policy=student)
        return loop.start_seed(algorithm, config, spec, key, handoff)

    return jax.eval_shape(start, jax.random.key(0), seeds.take(handoff, 0))


def clone(
    handoff: Handoff,
    head: str,
    config: CloneConfig,
    dataset: Dataset,
    seed_list: range,
    mesh: Mesh,
    metric_log: log.MetricLog,
    out: Path,
    settings: dict[str, Any],
) -> Handoff:
    """The handoff with a cloned policy, seeds stacked [S]; from its checkpoint where there is one. Impure."""
    init_keys, update_keys = jax.vmap(jax.random.split, out_axes=1)(seeds.keys(seed_list, "clone"))
    state = phases.start_states(
        lambda key, teacher: clone_init(config, head, key, teacher), mesh, init_keys, handoff.policy
    )
    with Checkpoints(out / "clone", settings) as checkpoints:
        if checkpoints.latest_step() is not None:
            state, _ = checkpoints.restore(state)
        state = phases.run_phase(
            "clone",
            functools.partial(clone_update, config),
            state,
            dataset.rollout(),
            update_keys,
            config.updates,
            config.batch_size,
            mesh,
            metric_log,
            checkpoint=lambda state, done: checkpoints.save(done, state),
            checkpoint_every=CHECKPOINT_EVERY,
            prepare=clone_prepare,
        )
    return handoff.replace(policy=jax.device_get(state.student))


def copy_logs(source: str | Path, seed_list: range, metric_log: log.MetricLog) -> None:
    """Copies the seeds' rows of a run's phases before its first environment step. Impure: writes the log."""
    for phase in RECONSTRUCTION_LOGS:
        with contextlib.suppress(FileNotFoundError):  # phases that were left out, or don't stop by measures
            columns = log.read(source, phase)
            metric_log.rewind(phase, -1)
            for step in np.unique(columns["step"]):
                rows = (columns["step"] == step) & np.isin(columns["seed"], seed_list)
                terms = {name: values[rows] for name, values in columns.items() if name not in ("step", "seed")}
                metric_log.write(phase, int(step), terms)


def _reconstruct(
    algorithm: OnlineAlgorithm,
    config: Any,
    run: loop.Run,
    handoff: Handoff,
    teacher: Policy | SequencePolicy | None,
    task: Task,
    dataset: Dataset,
    seed_list: range,
    mesh: Mesh,
    metric_log: log.MetricLog,
    checkpoints: Checkpoints,
    stages: Checkpoints,
    evaluator: AnyEvaluator | None,
) -> loop.Run:
    """Re-evaluates, aligns, compares the aligned policy with the offline one, and begins fine-tuning."""

    def save(step: int, agent: Any, records: dict[str, Record], finished: bool) -> None:
        if finished:
            keep_stage(stages, step, agent, records)
        checkpoints.save(step, run.replace(agent=agent, records=records))

    agent, records = reconstruct(
        algorithm, config, run.agent, run.records, dataset, seed_list, mesh, metric_log, save
    )  # fmt: skip
    run = run.replace(agent=agent, records=records)
    if config.align_updates:
        columns = log.read(metric_log.directory, "align")
        share, distance = (_last(columns[name], len(seed_list)).mean() for name in COMPLETENESS)
        before = columns[COMPLETENESS[0]][: len(seed_list)].mean()
        complete = share <= config.stop_overestimated and distance <= config.stop_distance
        print(
            f"alignment: {share:.1%} of probes are valued above the policy's own action, {before:.1%} before; "
            f"mean squared distance to the offline policy {distance:.4f}"
            + ("" if complete else ": not complete, set align_updates or start_actor=offline")
        )

    scores: dict[str, np.ndarray] = {}
    returns: dict[str, np.ndarray] = {}  # [S, E]
    if evaluator is not None:
        run_episodes = mode_episodes(lambda policy: policy, mesh)
        policies = {"offline": handoff.policy}
        if config.align_updates:  # without them it is the offline policy that goes online
            policies["aligned"] = seeds.over_seeds(algorithm.policy, mesh)(run.agent)
        if teacher is not None:
            policies["teacher"] = teacher
        for name, policy in policies.items():
            returns[name], lengths = run_episodes(evaluator, seeds.place(policy, mesh))
            scores[f"{name}_score"] = evaluation_metrics(task, returns[name], lengths)["score"]
            run = loop.count_evaluation(run, lengths)
    closeness = _closeness(metric_log.directory, len(seed_list)) if teacher is not None else {}
    if closeness:
        # the clone counts as the offline policy
        both = {"teacher_score": scores["teacher_score"], "clone_score": scores["offline_score"]} if scores else {}
        measured = ", ".join(f"{name} {values.mean():.4g}" for name, values in (closeness | both).items())
        print(f"clone of {handoff.source} as {algorithm.head}: {measured}")
    if algorithm.cadence.source == "replay" and config.replay == "auto":
        regime = replay_regimes(algorithm, config, run.agent, handoff, returns, dataset, seed_list, mesh)
        run = run.replace(regime=regime)
    if not scores:  # `config` then says who goes online
        nothing = np.full(len(seed_list), -np.inf)
        return loop.begin_finetuning(algorithm, run, np.zeros(len(seed_list), bool), nothing, mesh)
    metric_log.rewind("start", -1)
    metric_log.write("start", 0, closeness | scores)
    for s, seed in enumerate(seed_list):
        measured = ", ".join(f"{name} policy {scores[f'{name}_score'][s]:.1f}" for name in policies)
        print(f"seed {seed}: {measured}")
    offline, aligned = start_scores(metric_log.directory)
    better = aligned > offline
    reference_returns = np.where(
        np.asarray(config.aligned_reference(better))[:, None],
        returns.get("aligned", returns["offline"]),
        returns["offline"],
    )
    return loop.begin_finetuning(algorithm, run, better, np.fmax(aligned, offline), mesh, reference_returns)


def _closeness(out: Path, num_seeds: int) -> dict[str, np.ndarray]:
    """How close a clone came, per seed [S], by its last updates: squared error, log-likelihood where there is one."""
    columns = log.read(out, "clone")
    return {f"clone_{name}": columns[name][-num_seeds:] for name in ("mse", "log_likelihood") if name in columns}


def delivered(config: Any, task: Task, run: loop.Run, seed_list: range, out: Path) -> list[str]:
    """Returns a line per seed on what a run that rolls back leaves, π_ref, against what it began with."""
    if run.standing is None:
        return []
    if run.standing.returns is None:  # it never was evaluated
        episodes = jax.device_get(run.returns.reference)
        return [
            f"seed {seed}: delivered policy {task.score(mean):.1f} in {count:.0f} training episodes"
            if count
            else f"seed {seed}: delivered policy without a score, no comparison was made"
            for seed, count, mean in zip(seed_list, episodes.count, episodes.mean, strict=True)
        ]
    offline, aligned = start_scores(out)
    first = np.where(config.aligned_reference(aligned > offline), aligned, offline)
    last = task.score(np.asarray(run.standing.returns).mean(axis=1))
    return [
        f"seed {seed}: delivered policy {score:.1f}, {before:.1f} at the start"
        for seed, score, before in zip(seed_list, last, first, strict=True)
    ]


def start_scores(out: Path) -> tuple[np.ndarray, np.ndarray]:
    """Scores [S] of the offline and the aligned policy of a run, the same ones where nothing was aligned."""
    start = log.read(out, "start")
    return start["offline_score"], start.get("aligned_score", start["offline_score"])


def reconstruct(
    algorithm: OnlineAlgorithm,
    config: Any,
    agent: Any,
    records: dict[str, Record],
    dataset: Dataset,
    seed_list: range,
    mesh: Mesh,
    metric_log: log.MetricLog,
    save: Callable[[int, Any, dict[str, Record], bool], None],
) -> tuple[Any, dict[str, Record]]:
    """Re-evaluates and aligns, or does what is left of it; takes no environment step. Impure: writes the log.

    Args:
      algorithm: pure functions of one seed.
      config: its settings.
      agent: the algorithm's state, seeds stacked [S]. Consumed.
      records: of the phases that stop by measures, of `loop.start_records`, seeds stacked [S]. Consumed.
      dataset: what both phases learn from, less the episodes held out for measures.
      seed_list: the run's seeds.
      mesh: devices.
      metric_log: gets `reevaluate.csv` and `align.csv`, and of each what `phases.run_phase` measures.
      save: (updates of both phases so far, agent, records, whether a phase has just finished), now and then and at
        their ends.

    Returns:
      The agent and the records.
    """
    held_out = None
    if algorithm.stops:
        dataset, aside = dataset.hold_out(max(1, round(config.held_out_share * len(dataset.episode_ends))))
        held_out = aside.rollout()

    def checkpoint(phase: str, first_step: int, updates: int, state: Any, done: int) -> None:
        save(first_step + done, *_parts(phase, state, records), done == updates)

    for phase, first_step, updates in (
        ("reevaluate", 0, config.reevaluate_updates),
        ("align", config.reevaluate_updates, config.align_updates),
    ):
        if not updates:
            continue
        stop = algorithm.stops.get(phase)
        state = phases.run_phase(
            phase,
            getattr(algorithm, phase),
            Watched(agent, records[phase]) if stop else agent,
            dataset.rollout(),
            seeds.keys(seed_list, phase),
            updates,
            config.batch_size,
            mesh,
            metric_log,
            first_step=first_step,
            checkpoint=functools.partial(checkpoint, phase, first_step, updates),
            checkpoint_every=CHECKPOINT_EVERY,
            show=COMPLETENESS if phase == "align" else (),
            measure_start=phase == "align",
            prepare=functools.partial(algorithm.prepare, phase) if algorithm.prepare else None,
            stop=stop,
            held_out=held_out,
        )
        agent, records = _parts(phase, state, records)
        if stop:
            for line in _verdicts(phase, updates, stop, records[phase], seed_list):
                print(line)
    return agent, records


def _parts(phase: str, state: Any, records: dict[str, Record]) -> tuple[Any, dict[str, Record]]:
    """What a phase has made of the agent, and the records with that of the phase where it stops by measures."""
    return (state.state, records | {phase: state.record}) if isinstance(state, Watched) else (state, records)


def _verdicts(phase: str, updates: int, stop: Stop, record: Record, seed_list: range) -> list[str]:
    """Why each seed stopped, where it may, and what there is to say of its report, a line each."""
    reasons = {0: "no verdict, all updates made", DIVERGED: "diverged", **dict(enumerate(stop.reasons, 1))}
    record = jax.device_get(record)
    lines = []
    for s, (seed, kept, verdict) in enumerate(zip(seed_list, record.updates, record.verdict, strict=True)):
        newest = {term: float(history[s, -1]) for term, history in record.history.items()}
        if stop.reasons:
            measures = ", ".join(f"{term} {newest[term]:.3g}" for term in stop.terms)
            lines.append(f"{phase}, seed {seed}: {kept:,} of {updates:,} updates: {reasons[int(verdict)]} ({measures})")
        if stop.report and (remark := stop.report.remark(newest)):
            lines.append(f"{phase}, seed {seed}: {remark}")
    return lines


def _last(column: np.ndarray, num_seeds: int) -> np.ndarray:
    """The last number [S] that each seed has in a column of a log; a seed that stopped early has none afterwards."""
    return np.array([values[np.isfinite(values)][-1:].mean() for values in column.reshape(-1, num_seeds).T])


def replay_data(mode: str, part_episodes: int, dataset: Dataset, mesh: Mesh) -> Transition | None:
    """What a replay mode may draw of the dataset, on every device: all of it, its best episodes, or nothing."""
    if mode == "none":
        return None
    chosen = dataset.best_episodes(part_episodes) if mode == "part" else dataset
    return seeds.replicate(chosen.transitions, mesh)


if __name__ == "__main__":
    flags.run(main, define, __doc__)
