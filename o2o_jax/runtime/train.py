"""The road of every run: cloning, phases on a dataset, fine-tuning. Impure: compiles, runs, steps environments."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from o2o_jax.data import replay
from o2o_jax.data.dataset import Dataset
from o2o_jax.envs.failure import EnvironmentFailure
from o2o_jax.interfaces import Phase
from o2o_jax.policy import Handoff, SampledPolicy, clone_phase
from o2o_jax.runtime import loop, phases, seeds
from o2o_jax.runtime.evaluate import evaluation_metrics, policy_episodes
from o2o_jax.runtime.events import Event, Events, through
from o2o_jax.runtime.failures import diverged, summary
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.regimes import replay_regimes
from o2o_jax.runtime.run import Run, begin_finetuning, count_evaluation, start_clone, start_run
from o2o_jax.runtime.setup import Setup
from o2o_jax.training import DIVERGED, PhaseState
from o2o_jax.types import Array, Transition, expect

CHECKPOINT_EVERY = 25_000  # updates of a phase, where no evaluation says otherwise
CLONE = "clone"  # the phase that comes before a run's own
CLOSENESS = ("mse", "log_likelihood")  # of a clone to its teacher, as its last updates have it


class Restore(Protocol):
    """Brings back what a stopped run has saved: (template, cloning) -> run."""

    def __call__(self, template: Run, cloning: bool = False, /) -> Run | None:
        """Returns the newest run that was saved, while `cloning` the newest one of that; None where there is none."""


def nothing(template: Run, cloning: bool = False) -> None:
    """Restores nothing: the run starts."""


def train(plan: Plan, restore: Restore = nothing) -> Events[Run]:
    """Runs a plan, or what is left of it.

        for event in train(plan, output.restore):
            output.take(event)

    Nothing happens but between two events: whoever asks for no further one has stopped the run. An offline method ends
    after its phases.

    Args:
      plan: of the run.
      restore: of what earlier processes have saved of the same plan.

    Returns:
      Events, which lead to the run at its end.

    Raises:
      ValueError: all seeds have failed.
      TypeError: `plan` is none.
      Interrupted: a signal has come, after an event that asks to be saved.
    """
    expect(plan, Plan, "plan", "pass what the plan of a job returns: job.plan(seed_mesh(job.seeds))")
    setup = plan.setup
    start, clone = plan.start, None
    if plan.clone:
        clone = yield from _clone(plan, restore)
        assert start is not None
        start = start.replace(policy=jax.device_get(clone.agent.student))
    run = _begin(plan, start)
    if clone is not None:
        run = run.replace(failed=clone.failed)
    saved = restore(run)
    if saved is not None:
        run = saved
    elif plan.reconstruction is not None:
        made = plan.reconstruction()
        stage = seeds.place(made.stage, setup.mesh)
        run = run.replace(**stage, updates=stage["agent"].step)
        yield from made.events
    if not int(run.begun):
        run = yield from _phases(plan, run)
        if setup.algorithm.online is None:
            yield Event(setup.algorithm.phases[-1].name, int(run.updates), lines=summary(setup.seeds, run.failed))
            return run
        run = yield from _first_evaluation(plan, run, start, clone)
    data = replay_data(setup, plan.dataset)
    run = yield from loop.fine_tune(setup, run, data, plan.envs, plan.evaluator, plan.checkpoint_every)
    yield Event("finetune", int(run.env_steps), lines=_delivered(setup, run) + summary(setup.seeds, run.failed))
    return run


def _begin(plan: Plan, start: Handoff | None) -> Run:
    """Returns the run before its first phase."""
    if plan.setup.algorithm.online is None:
        assert plan.dataset is not None
        return start_run(plan.setup, plan.dataset.normalizer())
    if start is not None and not plan.setup.requires.state:
        start = start.replace(state=None)
    return start_run(plan.setup, start)


def _clone(plan: Plan, restore: Restore) -> Events[Run]:
    """Clones the policy of all seeds, or what is left of that; leads to a run whose agent is the clone's state."""
    setup, config = plan.setup, plan.clone
    assert plan.start is not None
    assert plan.dataset is not None
    assert config is not None
    head = setup.head_of(plan.start.policy)
    keys = jax.vmap(jax.random.split, out_axes=1)(seeds.keys(setup.seeds, CLONE))
    run = phases.start_states(functools.partial(start_clone, config, head), setup.mesh, *keys, plan.start.policy)
    saved = restore(run, True)
    if saved is not None:
        run = saved
    elif plan.reconstruction is not None:
        run = seeds.place(plan.reconstruction().clone, setup.mesh)
        yield Event(CLONE, config.updates, run=run, save=True, ended=True)
    rows = plan.dataset.rollout()
    return (yield from _run_phase(setup, clone_phase(config, head), run, rows, run.key, 0, CHECKPOINT_EVERY))


def _phases(plan: Plan, run: Run) -> Events[Run]:
    """Runs the phases, or what is left of them; takes no environment step but an offline method's evaluations."""
    setup, algorithm = plan.setup, plan.setup.algorithm
    if not algorithm.phases:
        return run
    dataset, held_out = plan.dataset, None
    assert dataset is not None
    if any(phase.stop for phase in algorithm.phases):
        episodes = max(1, round(setup.config.early_stopping.held_out_share * len(dataset.episode_ends)))
        dataset, aside = dataset.hold_out(episodes)
        held_out = aside.rollout()
    first_step = 0
    for phase in algorithm.phases:
        evaluation = _Evaluation(plan, phase)
        if int(run.updates) - first_step < phase.updates:
            done = max(0, int(run.updates) - first_step)
            yield Event(phase.name, done, cut={evaluation.file: done})
        # an offline method's one phase draws from the run's own keys
        keys = run.key if algorithm.online is None else seeds.keys(setup.seeds, phase.name)
        every = plan.eval_every or CHECKPOINT_EVERY
        rows = dataset.rollout()
        run = yield from _run_phase(setup, phase, run, rows, keys, first_step, every, held_out, evaluation)
        first_step += phase.updates
    return run


def _run_phase(
    setup: Setup,
    phase: Phase,
    run: Run,
    rows: Transition,
    keys: Array,
    first_step: int,
    checkpoint_every: int,
    held_out: Transition | None = None,
    evaluation: "_Evaluation | None" = None,
) -> Events[Run]:
    """Runs a phase of a run, or what is left of it; arguments as of `phases.run_phase`."""
    progress = _Progress(setup, phase, run, evaluation)
    if int(run.agent.step) - first_step >= phase.updates:  # an earlier process has made it
        yield Event(phase.name, phase.updates, lines=_closing_lines(phase, run, setup.seeds))
        return run
    events = phases.run_phase(phase, progress.state, rows, keys, setup.mesh, first_step, checkpoint_every, held_out)
    return progress.of((yield from through(events, progress.whole)))


class _Evaluation:
    """Evaluation of the policy while a phase runs: of an offline method at least at the end, of others if asked for.

    Args:
      plan: of the run.
      phase: that is evaluated.

    Attributes:
      file: log of its rows.
    """

    def __init__(self, plan: Plan, phase: Phase) -> None:
        self._plan, algorithm = plan, plan.setup.algorithm
        offline = algorithm.online is None
        self.file = "evaluation" if offline else f"{phase.name}_evaluation"
        self._plays: dict[str, Callable] = {}  # by what stands before the names of its columns
        if plan.evaluator is not None and (offline or plan.eval_every):
            self._plays[""] = self._player(algorithm.policy)
            if plan.eval_sampled:
                self._plays["sampled_"] = self._player(lambda agent: SampledPolicy(algorithm.policy(agent)))

    def _player(self, policy_of: Callable) -> Callable:
        return policy_episodes(policy_of, self._plan.setup.seeds, self._plan.setup.mesh)

    def rows(self, agent: Any, done: int, ended: bool) -> dict[str, dict[str, np.ndarray]]:
        """Returns the log of an evaluation after `done` updates, empty where none is due. Impure: plays episodes."""
        every = self._plan.eval_every
        if not self._plays or not (ended or (every and done % every == 0)):
            return {}
        metrics: dict[str, np.ndarray] = {}
        for prefix, play in self._plays.items():
            played = self._played(play, agent, done)
            metrics |= {f"{prefix}{term}": values for term, values in played.items()}
        return {self.file: metrics}

    def _played(self, play: Callable, agent: Any, done: int) -> dict[str, np.ndarray]:
        """Terms of an evaluation [S] each, NaN where the environment fails."""
        try:
            played = play(self._plan.evaluator, agent)
        except EnvironmentFailure as failure:  # what was trained is worth more than its evaluation
            print(f"note: all seeds' evaluations after {done:,} updates count as NaN: {failure}")
            shape = (len(self._plan.setup.seeds), 1)
            played = np.full(shape, np.nan), np.zeros(shape, np.int64)
        return evaluation_metrics(self._plan.setup, *played)


class _Progress:
    """A run amid a phase: makes events of the phase's state into those of the run.

    Args:
      setup: of the run.
      phase: under way.
      run: before it, or what is left of it.
      evaluation: while an offline method trains.
    """

    def __init__(self, setup: Setup, phase: Phase, run: Run, evaluation: _Evaluation | None) -> None:
        self._setup, self._phase, self._run, self._evaluation = setup, phase, run, evaluation
        self._failed = np.array(run.failed)  # a copy: the phase reuses the memory of its state

    @property
    def state(self) -> PhaseState:
        """State that the phase continues from."""
        record = self._run.records[self._phase.name] if self._phase.stop else None
        return PhaseState(self._run.agent, self._run.failed, record)

    def of(self, state: PhaseState) -> Run:
        """Returns the run with the phase's state in it."""
        records = self._run.records if state.record is None else self._run.records | {self._phase.name: state.record}
        return self._run.replace(agent=state.state, failed=state.failed, records=records, updates=state.step)

    def whole(self, event: Event) -> Events[Event]:
        """Yields the evaluation that is due before an event, and leads to the event with the run."""
        name = self._phase.name
        if name in event.rows:
            ends = {term: _moved(ends, event.rows[name][term]) for term, ends in self._run.ends[name].items()}
            self._run = self._run.replace(ends=self._run.ends | {name: ends})
        if event.run is None:
            return event
        run = self.of(event.run)
        if event.save and self._evaluation is not None:
            rows = self._evaluation.rows(run.agent, event.step, event.ended)
            if rows:
                yield Event("evaluation", event.step, rows)
        before, self._failed = self._failed, np.array(run.failed)
        lines = diverged(self._setup.seeds, before, self._failed, f"{event.step:,} updates of {name}")
        if event.ended:
            lines += _closing_lines(self._phase, run, self._setup.seeds)
        return event._replace(run=run, lines=lines)


def _moved(ends: Any, newest: Any) -> np.ndarray:
    """First and last finite value [S, 2] of a metric with its newest [S]; a seed that stopped early has none."""
    ends, newest = np.array(ends), np.asarray(newest)
    finite = np.isfinite(newest)
    ends[:, 0] = np.where(np.isnan(ends[:, 0]) & finite, newest, ends[:, 0])
    ends[:, 1] = np.where(finite, newest, ends[:, 1])
    return ends


def _closing_lines(phase: Phase, run: Run, seed_list: Sequence[int]) -> tuple[str, ...]:
    """Returns what there is to say of a phase that has ended, a line each."""
    lines = _decisions(phase, run, seed_list) if phase.stop else []
    if phase.summary:
        ends = {term: np.asarray(values) for term, values in run.ends[phase.name].items()}
        first, last = ({term: values[:, i] for term, values in ends.items()} for i in (0, 1))
        lines.append(phase.summary(first, last))
    return tuple(lines)


def _decisions(phase: Phase, run: Run, seed_list: Sequence[int]) -> list[str]:
    """Returns why each seed stopped, where it may, and what there is to say of its report, a line each."""
    stop = phase.stop
    assert stop is not None
    reasons = {0: "not stopped early", DIVERGED: "diverged", **dict(enumerate(stop.reasons, 1))}
    record = jax.device_get(run.records[phase.name])
    lines = []
    for s, (seed, kept, decision) in enumerate(zip(seed_list, record.updates, record.decision, strict=True)):
        newest = {term: float(history[s, -1]) for term, history in record.history.items()}
        if stop.reasons:
            measures = ", ".join(f"{term} {newest[term]:.3g}" for term in stop.terms)
            reason = reasons[int(decision)]
            lines.append(f"{phase.name}, seed {seed}: {kept:,} of {phase.updates:,} updates: {reason} ({measures})")
        if stop.report and (summary := stop.report.summary(newest)):
            lines.append(f"{phase.name}, seed {seed}: {summary}")
    return lines


def _first_evaluation(plan: Plan, run: Run, start: Handoff | None, clone: Run | None) -> Events[Run]:
    """Compares the aligned policy with the offline one; leads to the run that fine-tuning begins with."""
    setup, num_seeds = plan.setup, len(plan.setup.seeds)
    scores: dict[str, np.ndarray] = {}
    returns: dict[str, np.ndarray] = {}  # [S, E]
    lines: list[str] = []
    if plan.evaluator is not None and start is not None:
        play = policy_episodes(lambda policy: policy, setup.seeds, setup.mesh)
        for name, policy in _policies(plan, run, start).items():
            returns[name], lengths = play(plan.evaluator, seeds.place(policy, setup.mesh))
            scores[f"{name}_score"] = evaluation_metrics(setup, returns[name], lengths)["score"]
            run = count_evaluation(run, lengths)
    if isinstance(run.buffer, replay.RegimeBuffer):
        assert start is not None
        assert plan.dataset is not None
        regime, lines = replay_regimes(setup, run.agent, start, returns, plan.dataset)
        run = run.replace(buffer=run.buffer.replace(regime=regime))
    ends = clone.ends[CLONE] if clone else {}
    closeness = {f"clone_{term}": np.asarray(ends[term])[:, 1] for term in CLOSENESS if term in ends}
    rows = {"start": closeness | scores} if scores else {}
    lines = [*_clone_lines(start, closeness, scores), *lines, *_score_lines(scores, setup.seeds)]
    yield Event("evaluation", 0, rows, lines=tuple(lines), cut={"start": -1})
    if not scores:  # `config` then says who goes online
        return begin_finetuning(setup, run, np.zeros(num_seeds, bool), np.full(num_seeds, -np.inf))
    offline = scores["offline_score"]
    aligned = scores.get("aligned_score", offline)
    better = aligned > offline
    first = np.asarray(setup.aligned_reference(better))[:, None]
    reference_returns = np.where(first, returns.get("aligned", returns["offline"]), returns["offline"])
    return begin_finetuning(setup, run, better, np.fmax(aligned, offline), reference_returns)


def _policies(plan: Plan, run: Run, start: Handoff) -> dict[str, Any]:
    """Returns the policies that are evaluated before fine-tuning, seeds stacked [S]."""
    setup, policies = plan.setup, {"offline": start.policy}
    if any(phase.name == "align" for phase in setup.algorithm.phases):  # else it is the offline one that goes online
        policies["aligned"] = seeds.over_seeds(setup.algorithm.policy, setup.mesh)(run.agent)
    if plan.clone and plan.start is not None:
        policies["teacher"] = plan.start.policy
    return policies


def _clone_lines(
    start: Handoff | None, closeness: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray]
) -> list[str]:
    """Returns a line on how close a clone came, none where nothing was cloned."""
    if start is None or not closeness:
        return []
    # the clone counts as the offline policy
    both = {"teacher_score": scores["teacher_score"], "clone_score": scores["offline_score"]} if scores else {}
    measured = ", ".join(f"{name} {values.mean():.4g}" for name, values in ({**closeness} | both).items())
    return [f"clone of {start.source} as {start.policy.head}: {measured}"]


def _score_lines(scores: Mapping[str, np.ndarray], seed_list: Sequence[int]) -> list[str]:
    """Returns the scores of each seed, a line each."""
    if not scores:
        return []
    named = {name.removesuffix("_score"): values for name, values in scores.items()}
    return [
        f"seed {seed}: " + ", ".join(f"{name} policy {values[s]:.1f}" for name, values in named.items())
        for s, seed in enumerate(seed_list)
    ]


def _delivered(setup: Setup, run: Run) -> tuple[str, ...]:
    """Returns a line per seed on what a run that rolls back leaves, π_ref, against what it began with."""
    if run.standing is None:
        return ()
    if run.standing.returns is None:  # it never was evaluated
        episodes = jax.device_get(run.returns.reference)
        return tuple(
            f"seed {seed}: delivered policy {setup.score(mean):.1f} in {count:.0f} training episodes"
            if count
            else f"seed {seed}: delivered policy without a score, no comparison was made"
            for seed, count, mean in zip(setup.seeds, episodes.count, episodes.mean, strict=True)
        )
    last = setup.score(np.asarray(run.standing.returns).mean(axis=1))
    return tuple(
        f"seed {seed}: delivered policy {score:.1f}, {before:.1f} at the start"
        for seed, score, before in zip(setup.seeds, last, np.asarray(run.start_score), strict=True)
    )


def replay_data(setup: Setup, dataset: Dataset | None) -> Transition | None:
    """Returns what fine-tuning may draw of the dataset [N], on every device; None if it uses no rows of the dataset."""
    chosen = None if dataset is None else setup.online.replay.choose(dataset)
    if chosen is None:
        return None
    return seeds.replicate(chosen.rollout() if setup.online.prepare else chosen.transitions, setup.mesh)
