"""Takes the policies of an offline run online, all seeds side by side.

    python -m experiments.finetune --algorithm=o2td3 --policy=runs/td3_bc --seeds=5 --out=runs/o2td3

Phases: `clone` where the policy's head doesn't fit the algorithm, `reevaluate`, `align`, `finetune`. The output folder
gets a CSV file for each, `<phase>_measures.csv` where early_stopping.mode=measures ends a phase or critics are compared
with returns, `start.csv` with the scores of the offline and the aligned policy, `evaluation.csv` by environment steps,
checkpoints, and in `stages` what experiments.diagnose reads: the agent after re-evaluation and after alignment.
`handoffs.load_delivered` reads the policy that a finished run leaves: the last one, or with roll_back.enabled=true
π_ref, the best that evaluations confirmed. Runs that differ in what happens online alone need those phases once:
--reconstruction=<run> takes them from there. Where the policy was cloned the clone counts as the offline policy, and
`start.csv` also says how close it came: the score of its teacher, and the last row of `clone.csv`. A run that was
stopped goes on with --resume.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import absl.flags
import jax
import numpy as np
from absl.flags import FlagValues

from experiments import estimates, flags
from experiments.handoffs import STAGES, keep_stage, load_handoff, load_reconstruction
from experiments.regimes import replay_regimes
from o2o_jax import envs, online
from o2o_jax.data import replay
from o2o_jax.data.dataset import Dataset
from o2o_jax.interfaces import Phase, Requires
from o2o_jax.policy import CloneConfig, Handoff, Policy, SequencePolicy, clone_init, clone_phase
from o2o_jax.runtime import interrupt, log, loop, phases, provenance, seeds
from o2o_jax.runtime.checkpoint import Checkpoints, check_claim, claim, has_checkpoint, locked
from o2o_jax.runtime.evaluate import AnyEvaluator, evaluation_metrics, make_evaluator, policy_episodes
from o2o_jax.runtime.run import Run, begin_finetuning, count_evaluation, start_run, start_seed
from o2o_jax.runtime.setup import Setup
from o2o_jax.training import DIVERGED, Record, Watched
from o2o_jax.types import Array, Transition

CHECKPOINT_EVERY = 25_000  # updates, while the critics are reconstructed
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


@dataclasses.dataclass(frozen=True)
class Job:
    """Job of a command line, read and checked.

    Attributes:
      setup: of the run.
      handoff: of the offline run, seeds stacked [S], as numpy arrays.
      clone_config: settings of cloning; None where the policy goes online as it is.
      dataset: what the phases learn from.
      settings: all that the run follows from, for its config.json.
      envs: vector environment [S].
      evaluator: None where nothing is evaluated.
      reconstruction: states and records of the phases that another run has made; None where this one makes them.
      seed: shapes of one seed's run.
    """

    setup: Setup
    handoff: Handoff
    clone_config: CloneConfig | None
    dataset: Dataset
    settings: dict[str, Any]
    envs: Any
    evaluator: AnyEvaluator | None
    reconstruction: tuple[Any, dict[str, Record]] | None
    seed: Run


def main(args: FlagValues) -> None:
    """Clones if need be, reconstructs, fine-tunes, saves. Impure."""
    job = read_job(args)
    if args.dry_run:
        check_claim(args.out, job.settings, args.resume)
        updates = {"updates of clone": job.clone_config.updates if job.clone_config else 0}
        updates |= {f"updates of {phase.name}": phase.updates for phase in job.setup.algorithm.phases}
        updates |= {"environment steps": job.setup.config.env_steps}
        print(flags.preview(updates, job.dataset, job.seed, args.seeds, job.setup.mesh))
    else:
        out = claim(args.out, job.settings, args.resume)
        with locked(out), interrupt.deferred(), log.MetricLog(out, args.tensorboard, args.first_seed) as metric_log:
            run_job(job, out, metric_log, args.checkpoint_every)
    if job.evaluator is not None:
        job.evaluator.close()


def read_job(args: FlagValues) -> Job:
    """Reads and checks all that a run needs, before hours of work or a claimed folder. Impure: reads files, prints.

    Raises:
      FileNotFoundError: there is no such run or dataset.
      ValueError: something doesn't fit.
    """
    mesh = flags.setup_devices(args.seeds, args.devices)
    module = online.load(args.algorithm)
    seed_list = flags.seed_list(args)
    handoff, task, source = load_handoff(args.policy, seed_list, args.env)
    family = envs.family(task.name)

    def cloning(config: Any, requires: Requires) -> CloneConfig | None:
        return None if requires.takes(handoff.policy.head) else flags.clone_config(args, config.networks.hidden)

    def estimate(config: Any) -> list[str]:
        algorithm = module.make(config, task.spec)
        work = estimates.online_work(module, algorithm, config, task.spec, cloning(config, algorithm.requires))
        return estimates.describe(work, config, task.spec, args.seeds, mesh)

    default = module.Config.for_task(task, args.schedule).after(source["algorithm"], source["config"])
    module.make(default, task.spec).requires.check_source(args.algorithm, handoff.source)
    config = flags.settings(args, args.algorithm, default, estimate)
    for remark in task.remarks + config.remarks(handoff.source):
        print(f"note: {remark}")
    algorithm = module.make(config, task.spec)
    dataset = family.load_dataset(task, args.dataset or source["dataset"])
    setup = Setup(algorithm, config, task, seed_list, mesh)
    clone_config = cloning(config, setup.requires)
    seed = check(setup, handoff, clone_config, dataset, source["config"])
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
    reconstruction = None
    if args.reconstruction and not has_checkpoint(Path(args.out) / "checkpoints"):
        reconstruction = load_reconstruction(args.reconstruction, settings, config, task.spec)
    evaluator = None
    if config.evaluation.episodes:
        evaluator = make_evaluator(family, task, seed_list, config.evaluation.episodes, args.envpool)
    vector_env = family.make_vector_env(task, args.seeds)
    return Job(setup, handoff, clone_config, dataset, settings, vector_env, evaluator, reconstruction, seed)


def run_job(job: Job, out: Path, metric_log: log.MetricLog, checkpoint_every: int) -> None:
    """Runs a job, or what is left of it. Impure.

    Args:
      job: of `read_job`.
      out: the run's folder, which is this process's own.
      metric_log: in that folder.
      checkpoint_every: environment steps between checkpoints.
    """
    setup, handoff = job.setup, job.handoff
    algorithm, config = setup.algorithm, setup.config
    provenance.record(out, job.dataset)
    teacher = handoff.policy if job.clone_config else None
    if job.clone_config:
        handoff = clone(setup, handoff, job.clone_config, job.dataset, metric_log, out, job.settings)
    if not setup.requires.state:
        handoff = handoff.replace(state=None)
    run = start_run(setup, handoff)
    with (
        Checkpoints(out / "checkpoints", job.settings) as checkpoints,
        Checkpoints(out / STAGES, job.settings, keep=max(1, len(algorithm.phases))) as stages,
    ):
        saved = checkpoints.latest_step()
        extra: dict[str, Any] = {}
        if saved is not None:
            run, extra = checkpoints.restore(run)
        elif job.reconstruction is not None:
            agent, records = seeds.place(job.reconstruction, setup.mesh)
            run = run.replace(agent=agent, records=records)
            copy_logs(job.settings["reconstruction"], setup, metric_log)
        before = algorithm.offline_updates
        if saved == before + 1 + config.env_steps:
            print(f"the run in {out} is complete: nothing is left to do")
        if saved is None or saved <= before:
            evaluator = job.evaluator
            run = _reconstruct(setup, run, handoff, teacher, job.dataset, metric_log, checkpoints, stages, evaluator)

        for phase in ONLINE_LOGS:
            metric_log.rewind(phase, int(run.env_steps))

        def save(run: Run, scores: dict[str, np.ndarray], episodes: dict[str, Any], stopping: bool) -> None:
            del scores
            env_steps = int(run.env_steps)
            due = env_steps // checkpoint_every > (env_steps - config.evaluation.every_env_steps) // checkpoint_every
            if due or stopping or env_steps == config.env_steps:
                # 1: the checkpoint after alignment is `before`, ahead of the first environment step
                checkpoints.save(before + 1 + env_steps, run, {"episodes": episodes})

        data = replay_data(setup, job.dataset)
        run = loop.fine_tune(setup, run, data, job.envs, job.evaluator, metric_log, save, extra.get("episodes"))
        print("".join(f"{line}\n" for line in delivered(setup, run, out)), end="")


def check(
    setup: Setup,
    handoff: Handoff,
    clone_config: CloneConfig | None,
    dataset: Dataset,
    offline_config: dict[str, Any],
) -> Run:
    """Returns the shapes of one seed's run; raises what speaks against it, before hours of work or a claimed folder.

    Raises:
      ValueError: a phase needs held-out episodes that aren't there, or `algorithm.init` refuses the handoff or clone.
    """
    algorithm, config = setup.algorithm, setup.config
    if any(phase.stop for phase in algorithm.phases) and len(dataset.episode_ends) < 2:
        raise ValueError(
            f"early_stopping holds out episodes, but {dataset.name} is a single one: set early_stopping.mode=updates "
            "and early_stopping.critic_report=false"
        )
    discount = offline_config.get("discount", config.update.discount)
    if setup.requires.state and discount != config.update.discount:
        raise ValueError(
            f"the critics of {handoff.source} were trained with another discount: set update.discount={discount}"
        )
    head = setup.requires.head or handoff.policy.head

    def start(key: Array, handoff: Handoff) -> Run:
        if clone_config:
            student = clone_init(clone_config, head, key, handoff.policy).student
            handoff = handoff.replace(policy=student)
        return start_seed(setup, key, handoff)

    return jax.eval_shape(start, jax.random.key(0), seeds.take(handoff, 0))


def clone(
    setup: Setup,
    handoff: Handoff,
    config: CloneConfig,
    dataset: Dataset,
    metric_log: log.MetricLog,
    out: Path,
    settings: dict[str, Any],
) -> Handoff:
    """The handoff with a cloned policy, seeds stacked [S]; from its checkpoint where there is one. Impure."""
    head, mesh = setup.requires.head or handoff.policy.head, setup.mesh
    init_keys, update_keys = jax.vmap(jax.random.split, out_axes=1)(seeds.keys(setup.seeds, "clone"))
    state = phases.start_states(
        lambda key, teacher: clone_init(config, head, key, teacher), mesh, init_keys, handoff.policy
    )
    with Checkpoints(out / "clone", settings) as checkpoints:
        if checkpoints.latest_step() is not None:
            state, _ = checkpoints.restore(state)
        state = phases.run_phase(
            clone_phase(config),
            state,
            dataset.rollout(),
            update_keys,
            mesh,
            metric_log,
            checkpoint=lambda state, done: checkpoints.save(done, state),
            checkpoint_every=CHECKPOINT_EVERY,
        )
    return handoff.replace(policy=jax.device_get(state.student))


def copy_logs(source: str | Path, setup: Setup, metric_log: log.MetricLog) -> None:
    """Copies the seeds' rows of a run's phases before its first environment step. Impure: writes the log."""
    for phase in (f"{phase.name}{suffix}" for phase in setup.algorithm.phases for suffix in ("", "_measures")):
        with contextlib.suppress(FileNotFoundError):  # phases that were left out, or don't stop by measures
            columns = log.read(source, phase)
            metric_log.rewind(phase, -1)
            for step in np.unique(columns["step"]):
                rows = (columns["step"] == step) & np.isin(columns["seed"], setup.seeds)
                terms = {name: values[rows] for name, values in columns.items() if name not in ("step", "seed")}
                metric_log.write(phase, int(step), terms)


def _reconstruct(
    setup: Setup,
    run: Run,
    handoff: Handoff,
    teacher: Policy | SequencePolicy | None,
    dataset: Dataset,
    metric_log: log.MetricLog,
    checkpoints: Checkpoints,
    stages: Checkpoints,
    evaluator: AnyEvaluator | None,
) -> Run:
    """Runs the phases, compares the aligned policy with the offline one, and begins fine-tuning."""
    algorithm, config, mesh = setup.algorithm, setup.config, setup.mesh
    num_seeds = len(setup.seeds)

    def save(step: int, agent: Any, records: dict[str, Record], finished: bool) -> None:
        if finished:
            keep_stage(stages, step, agent, records)
        checkpoints.save(step, run.replace(agent=agent, records=records))

    agent, records = reconstruct(setup, run.agent, run.records, dataset, metric_log, save)
    run = run.replace(agent=agent, records=records)
    aligns = any(phase.name == "align" for phase in algorithm.phases)
    scores: dict[str, np.ndarray] = {}
    returns: dict[str, np.ndarray] = {}  # [S, E]
    if evaluator is not None:
        play = policy_episodes(lambda policy: policy, setup.seeds, mesh)
        policies = {"offline": handoff.policy}
        if aligns:  # without it it is the offline policy that goes online
            policies["aligned"] = seeds.over_seeds(algorithm.policy, mesh)(run.agent)
        if teacher is not None:
            policies["teacher"] = teacher
        for name, policy in policies.items():
            returns[name], lengths = play(evaluator, seeds.place(policy, mesh))
            scores[f"{name}_score"] = evaluation_metrics(setup, returns[name], lengths)["score"]
            run = count_evaluation(run, lengths)
    closeness = _closeness(metric_log.directory, num_seeds) if teacher is not None else {}
    if closeness:
        # the clone counts as the offline policy
        both = {"teacher_score": scores["teacher_score"], "clone_score": scores["offline_score"]} if scores else {}
        measured = ", ".join(f"{name} {values.mean():.4g}" for name, values in (closeness | both).items())
        print(f"clone of {handoff.source} as {handoff.policy.head}: {measured}")
    if isinstance(run.buffer, replay.RegimeBuffer):
        regime = replay_regimes(setup, run.agent, handoff, returns, dataset)
        run = run.replace(buffer=run.buffer.replace(regime=regime))
    if not scores:  # `config` then says who goes online
        nothing = np.full(num_seeds, -np.inf)
        return begin_finetuning(setup, run, np.zeros(num_seeds, bool), nothing)
    metric_log.rewind("start", -1)
    metric_log.write("start", 0, closeness | scores)
    for s, seed in enumerate(setup.seeds):
        measured = ", ".join(f"{name} policy {scores[f'{name}_score'][s]:.1f}" for name in policies)
        print(f"seed {seed}: {measured}")
    offline, aligned = start_scores(metric_log.directory)
    better = aligned > offline
    reference_returns = None
    if setup.rolls_back:
        reference_returns = np.where(
            np.asarray(config.aligned_reference(better))[:, None],
            returns.get("aligned", returns["offline"]),
            returns["offline"],
        )
    return begin_finetuning(setup, run, better, np.fmax(aligned, offline), reference_returns)


def _closeness(out: Path, num_seeds: int) -> dict[str, np.ndarray]:
    """Returns how close a clone came, [S] by its last updates: squared error, log-likelihood if it has one."""
    columns = log.read(out, "clone")
    return {f"clone_{name}": columns[name][-num_seeds:] for name in ("mse", "log_likelihood") if name in columns}


def delivered(setup: Setup, run: Run, out: Path) -> list[str]:
    """Returns a line per seed on what a run that rolls back leaves, π_ref, against what it began with."""
    if run.standing is None:
        return []
    if run.standing.returns is None:  # it never was evaluated
        episodes = jax.device_get(run.returns.reference)
        return [
            f"seed {seed}: delivered policy {setup.score(mean):.1f} in {count:.0f} training episodes"
            if count
            else f"seed {seed}: delivered policy without a score, no comparison was made"
            for seed, count, mean in zip(setup.seeds, episodes.count, episodes.mean, strict=True)
        ]
    offline, aligned = start_scores(out)
    first = np.where(setup.config.aligned_reference(aligned > offline), aligned, offline)
    last = setup.score(np.asarray(run.standing.returns).mean(axis=1))
    return [
        f"seed {seed}: delivered policy {score:.1f}, {before:.1f} at the start"
        for seed, score, before in zip(setup.seeds, last, first, strict=True)
    ]


def start_scores(out: Path) -> tuple[np.ndarray, np.ndarray]:
    """Scores [S] of the offline and the aligned policy of a run, the same ones where nothing was aligned."""
    start = log.read(out, "start")
    return start["offline_score"], start.get("aligned_score", start["offline_score"])


def reconstruct(
    setup: Setup,
    agent: Any,
    records: dict[str, Record],
    dataset: Dataset,
    metric_log: log.MetricLog,
    save: Callable[[int, Any, dict[str, Record], bool], None],
) -> tuple[Any, dict[str, Record]]:
    """Runs an algorithm's phases, or what is left of them; takes no environment step. Impure: writes the log.

    Args:
      setup: of the run.
      agent: the algorithm's state, seeds stacked [S]. Consumed.
      records: of the phases that stop by measures, of `run.start_records`, seeds stacked [S]. Consumed.
      dataset: what the phases learn from, less the episodes held out for measures.
      metric_log: gets a CSV file per phase, and of each what `phases.run_phase` measures.
      save: (updates of all phases so far, agent, records, whether a phase has just finished), now and then and at
        their ends.

    Returns:
      The agent and the records.
    """
    algorithm = setup.algorithm
    held_out = None
    if any(phase.stop for phase in algorithm.phases):
        episodes = max(1, round(setup.config.early_stopping.held_out_share * len(dataset.episode_ends)))
        dataset, aside = dataset.hold_out(episodes)
        held_out = aside.rollout()

    def checkpoint(phase: Phase, first_step: int, state: Any, done: int) -> None:
        save(first_step + done, *_parts(phase.name, state, records), done == phase.updates)

    first_step = 0
    for phase in algorithm.phases:
        state = phases.run_phase(
            phase,
            Watched(agent, records[phase.name]) if phase.stop else agent,
            dataset.rollout(),
            seeds.keys(setup.seeds, phase.name),
            setup.mesh,
            metric_log,
            first_step,
            functools.partial(checkpoint, phase, first_step),
            CHECKPOINT_EVERY,
            held_out,
        )
        agent, records = _parts(phase.name, state, records)
        for line in _verdicts(phase, records, setup.seeds):
            print(line)
        if phase.remark:
            print(phase.remark(*_ends_of(log.read(metric_log.directory, phase.name), len(setup.seeds))))
        first_step += phase.updates
    return agent, records


def _parts(phase: str, state: Any, records: dict[str, Record]) -> tuple[Any, dict[str, Record]]:
    """Returns the agent that a phase has made, and the records with that of the phase where it stops by measures."""
    return (state.state, records | {phase: state.record}) if isinstance(state, Watched) else (state, records)


def _verdicts(phase: Phase, records: dict[str, Record], seed_list: Sequence[int]) -> list[str]:
    """Returns why each seed stopped, where it may, and what there is to say of its report, a line each."""
    stop = phase.stop
    if stop is None:
        return []
    reasons = {0: "no verdict, all updates made", DIVERGED: "diverged", **dict(enumerate(stop.reasons, 1))}
    record = jax.device_get(records[phase.name])
    lines = []
    for s, (seed, kept, verdict) in enumerate(zip(seed_list, record.updates, record.verdict, strict=True)):
        newest = {term: float(history[s, -1]) for term, history in record.history.items()}
        if stop.reasons:
            measures = ", ".join(f"{term} {newest[term]:.3g}" for term in stop.terms)
            reason = reasons[int(verdict)]
            lines.append(f"{phase.name}, seed {seed}: {kept:,} of {phase.updates:,} updates: {reason} ({measures})")
        if stop.report and (remark := stop.report.remark(newest)):
            lines.append(f"{phase.name}, seed {seed}: {remark}")
    return lines


def _ends_of(columns: Mapping[str, np.ndarray], num_seeds: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the first and the last number [S] that each seed has in every column of a log.

    A seed that stopped early has none after that.
    """
    first, last = {}, {}
    for name, column in columns.items():
        finite = [values[np.isfinite(values)] for values in column.reshape(-1, num_seeds).T]
        first[name] = np.array([values[0] if len(values) else np.nan for values in finite])
        last[name] = np.array([values[-1] if len(values) else np.nan for values in finite])
    return first, last


def replay_data(setup: Setup, dataset: Dataset) -> Transition | None:
    """Returns what fine-tuning may draw of the dataset [N], on every device; None where it draws of none."""
    chosen = setup.online.replay.choose(dataset)
    if chosen is None:
        return None
    return seeds.replicate(chosen.rollout() if setup.online.prepare else chosen.transitions, setup.mesh)


if __name__ == "__main__":
    flags.run(main, define, __doc__)
