"""The online loop: act, step, store, update, now and then evaluate. Impure: steps environments, writes metrics."""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from o2o_jax.data import replay
from o2o_jax.diagnosis import REGIMES
from o2o_jax.envs.vector import last_observations
from o2o_jax.interfaces import Cadence, OnlineAlgorithm, Task
from o2o_jax.policy import Handoff
from o2o_jax.runtime import interrupt
from o2o_jax.runtime.episodes import Episodes
from o2o_jax.runtime.evaluate import CONFIRMATION_STREAM, evaluation_metrics
from o2o_jax.runtime.log import MetricLog, progress
from o2o_jax.runtime.phases import start_states
from o2o_jax.runtime.reference import Comparison, Returns, Standing, Verdict
from o2o_jax.runtime.seeds import keys as seed_keys
from o2o_jax.runtime.seeds import over_seeds, place
from o2o_jax.training import Record, is_finite
from o2o_jax.types import Array, Metrics, Rollout, Spec, Transition


@flax.struct.dataclass
class Run:
    """All that a run is, as one value: saving it and the environments' states saves the run.

    Attributes:
      agent: the algorithm's state, seeds stacked [S].
      buffer: fresh transitions, seeds stacked [S]; of a rollout cadence the rollout under way.
      key: [S] PRNG keys; environment step t draws from `fold_in(key, t)`.
      best_score: [S] normalised score that a new reference must beat.
      env_steps: [] int32, environment steps per seed so far.
      evaluation_steps: [S] int32, environment steps that evaluations took.
      returns: of training's own episodes, where they settle the reference.
      standing: of π_ref; None in a run that doesn't roll back.
      records: of the phases that are checked by measures, seeds stacked [S].
      regime: [S] int32 of `diagnosis.REGIMES`, for `replay=auto`: the policy that went online beside its data.
    """

    agent: Any
    buffer: replay.RingBuffer
    key: Array
    best_score: Array
    env_steps: Array
    evaluation_steps: Array
    returns: Returns
    standing: Standing | None
    records: dict[str, Record]
    regime: Array


def start_run(
    algorithm: OnlineAlgorithm, config: Any, spec: Spec, handoff: Handoff | None, seeds: Sequence[int], mesh: Mesh
) -> Run:
    """A run before its first phase, placed on the mesh.

    Args:
      algorithm: pure functions of one seed.
      config: its settings.
      spec: sizes of the environment.
      handoff: what offline training left, seeds stacked [S]; None starts from scratch.
      seeds: S seeds; each draws the same numbers alone as among others.
      mesh: devices.
    """

    start = functools.partial(start_seed, algorithm, config, spec)
    keys = seed_keys(seeds, "online")
    return start_states(start, mesh, keys, handoff, shared=() if handoff is not None else (1,))


def start_seed(algorithm: OnlineAlgorithm, config: Any, spec: Spec, key: Array, handoff: Handoff | None) -> Run:
    """The part of `start_run` that is pure, of one seed."""
    init_key, run_key = jax.random.split(key)
    return Run(
        agent=algorithm.init(init_key, handoff),
        buffer=_make_buffer(algorithm.cadence, config, spec),
        key=run_key,
        best_score=jnp.asarray(-jnp.inf),
        env_steps=jnp.zeros((), jnp.int32),
        evaluation_steps=jnp.zeros((), jnp.int32),
        returns=Returns.empty(),
        standing=Standing.start(config.eval_episodes) if config.roll_back else None,
        records=start_records(algorithm),
        regime=jnp.zeros((), jnp.int32),
    )


def start_records(algorithm: OnlineAlgorithm) -> dict[str, Record]:
    """Records of the phases that stop by measures, before their first checks; of one seed."""
    return {phase: Record.start(stop) for phase, stop in algorithm.stops.items()}


def _make_buffer(cadence: Cadence, config: Any, spec: Spec) -> replay.RingBuffer:
    if cadence.source == "rollout":
        return replay.make_rollout(spec, cadence.env_steps)
    return replay.make_buffer(spec, max(1, min(config.buffer_size, config.env_steps)))


def batch_source(cadence: Cadence, config: Any) -> Callable[[Run, Transition | None, Array], Transition]:
    """Where updates get their batches: (run, dataset, key) -> batch, of one seed, in a round that is due."""
    if cadence.source == "rollout":
        return lambda run, dataset, key: run.buffer.storage  # just come round: it begins with the oldest step

    def draw(run: Run, dataset: Transition | None, key: Array) -> Transition:
        regime = run.regime
        if config.replay == "auto":  # a better policy's own steps have to be there before they replace the data
            warm = run.env_steps > config.auto_replay_warmup_env_steps
            regime = jnp.where((regime == REGIMES["better"]) & ~warm, REGIMES["like"], regime)
        return replay.sample(run.buffer, dataset, key, config.batch_size, config.replay, regime)

    return draw


def count_evaluation(run: Run, lengths: np.ndarray) -> Run:
    """The run with an evaluation's episodes, of lengths [S, E] in environment steps, among what it has spent."""
    spent = np.asarray(run.evaluation_steps) + lengths.sum(axis=1, dtype=np.int32)
    return run.replace(evaluation_steps=jax.device_put(spent, run.evaluation_steps.sharding))


def begin_finetuning(
    algorithm: OnlineAlgorithm,
    run: Run,
    accept: np.ndarray,
    best_score: np.ndarray,
    mesh: Mesh,
    reference_returns: np.ndarray | None = None,
) -> Run:
    """Makes a run ready for its first environment step.

    Args:
      algorithm: pure functions of one seed.
      run: after re-evaluation and alignment, or instead of them. Consumed.
      accept: [S] bool, whether the aligned policy scored better than the offline one.
      best_score: [S] normalised score of the better one.
      mesh: devices.
      reference_returns: [S, E] of the first π_ref from the evaluations' start states, for a run that rolls back; None
        where it wasn't evaluated.
    """
    begin = over_seeds(
        lambda run, accept, best: run.replace(
            agent=algorithm.begin_finetuning(run.agent, accept), best_score=jnp.asarray(best, jnp.float32)
        ),
        mesh,
        donate=(0,),
    )
    run = begin(run, np.asarray(accept, bool), np.asarray(best_score, np.float32))
    if run.standing is None or reference_returns is None:
        return run
    standing = run.standing.evaluated(np.ones(len(reference_returns), bool), reference_returns)
    return run.replace(standing=place(standing, mesh))


def begin_episode(algorithm: OnlineAlgorithm, run: Run, observation: Array) -> tuple[Run, Array]:
    """The action [A] at the first observation [O] of a run, or of what is left of one; one seed."""
    run = run.replace(buffer=replay.cut(run.buffer))  # the episode that was under way is not gone on with
    return run, _act(algorithm, run, observation)


def advance(
    algorithm: OnlineAlgorithm,
    draw: Callable[[Run, Transition | None, Array], Transition],
    run: Run,
    dataset: Transition | None,
    step: Rollout,
    observation: Array,
) -> tuple[Run, Array, Metrics]:
    """One environment step of one seed that a round of updates follows, compiled as one call.

    Args:
      algorithm: pure functions of one seed.
      draw: of `batch_source`.
      run: before the step.
      dataset: transitions [N], shared by all seeds; None where `draw` doesn't need them.
      step: what the environment just did, without a leading axis.
      observation: [O] where the next action is taken; after an episode's end, the next one's first.

    Returns:
      The run, the next action [A], and metrics averaged over the step's updates.
    """
    cadence = algorithm.cadence
    run, update, metrics = _store(algorithm, draw, run, dataset, step)

    def update_and_add(_: Array, carry: tuple[Any, Metrics, Metrics]) -> tuple[Any, Metrics, Metrics]:
        agent, total, count = carry
        agent, metrics = update(agent)
        total = jax.tree.map(lambda t, m: t + jnp.where(jnp.isnan(m), 0.0, m), total, metrics)
        count = jax.tree.map(lambda c, m: c + ~jnp.isnan(m), count, metrics)
        return agent, total, count

    # XLA, which would repeat the buffer's write in every reader and copy the buffer for it, writes in place before a
    # loop. It must not know how often the loop turns, or it would dissolve one that turns once.
    zeros = jax.tree.map(lambda m: jnp.zeros(m.shape), metrics)
    turns = jnp.where(run.env_steps > cadence.warmup_env_steps, cadence.updates, 0)
    agent, total, count = jax.lax.fori_loop(0, turns, update_and_add, (run.agent, zeros, zeros))
    run = run.replace(agent=agent)
    return run, _act(algorithm, run, observation), jax.tree.map(jnp.divide, total, count)


def record(
    algorithm: OnlineAlgorithm,
    draw: Callable[[Run, Transition | None, Array], Transition],
    run: Run,
    dataset: Transition | None,
    step: Rollout,
    observation: Array,
) -> tuple[Run, Array, Metrics]:
    """One environment step of one seed without an update: a program of its own, which leaves the networks in place.

    Args: as `advance`.

    Returns:
      The run, the next action [A], and NaN for every metric.
    """
    run, _, metrics = _store(algorithm, draw, run, dataset, step)
    return run, _act(algorithm, run, observation), jax.tree.map(lambda m: jnp.full(m.shape, jnp.nan), metrics)


def _store(
    algorithm: OnlineAlgorithm,
    draw: Callable[[Run, Transition | None, Array], Transition],
    run: Run,
    dataset: Transition | None,
    step: Rollout,
) -> tuple[Run, Callable, Metrics]:
    """The run with the step in its buffer; an update on it, (agent) -> (agent, metrics); the metrics' shapes."""
    run = run.replace(buffer=replay.insert(run.buffer, step), env_steps=run.env_steps + 1)
    update_key = jax.random.fold_in(run.key, 0)

    def update(agent: Any) -> tuple[Any, Metrics]:
        sample_key, key = jax.random.split(jax.random.fold_in(update_key, agent.step))
        return algorithm.finetune(agent, draw(run, dataset, sample_key), key)

    return run, update, jax.eval_shape(update, run.agent)[1]


def _act(algorithm: OnlineAlgorithm, run: Run, observation: Array) -> Array:
    key = jax.random.fold_in(jax.random.fold_in(run.key, 1), run.env_steps)
    action = algorithm.act(run.agent, observation, key)
    if algorithm.cadence.random_env_steps:
        uniform = jax.random.uniform(key, action.shape, minval=-1.0, maxval=1.0)
        action = jnp.where(run.env_steps < algorithm.cadence.random_env_steps, uniform, action)
    return action


def next_action(algorithm: OnlineAlgorithm, run: Run, observation: Array) -> Array:
    """The action [A] after the step that comes next, chosen before that step's updates; one seed.

    It draws what it would draw after them: where nothing is updated, it is the same action.
    """
    return _act(algorithm, run.replace(env_steps=run.env_steps + 1), observation)


def mode_action(algorithm: OnlineAlgorithm, agent: Any, observation: Array) -> Array:
    """Deterministic actions [E, A] of one seed's policy at observations [E, O]: what evaluation measures."""
    return algorithm.policy(agent).distribution(observation).mode()


def reference_action(algorithm: OnlineAlgorithm, agent: Any, observation: Array) -> Array:
    """Deterministic actions [E, A] of one seed's π_ref at observations [E, O]."""
    return algorithm.reference_policy(agent).distribution(observation).mode()


def fine_tune(
    algorithm: OnlineAlgorithm,
    config: Any,
    run: Run,
    dataset: Transition | None,
    envs: Any,
    evaluator: Callable[[Callable], tuple[np.ndarray, np.ndarray]] | None,
    task: Task,
    seeds: Sequence[int],
    mesh: Mesh,
    log: MetricLog,
    on_pause: Callable[[Run, dict[str, np.ndarray], dict[str, Any], bool], None] = lambda *_: None,
    episodes: Mapping[str, Any] | None = None,
) -> Run:
    """Fine-tunes all seeds for `config.env_steps` environment steps each, or what is left of them.

    Args:
      algorithm: pure functions of one seed.
      config: its settings.
      run: where to go on from; `begin_finetuning` has been applied. Consumed: its memory is reused.
      dataset: transitions [N] on the device; None in replay mode `none` and for rollouts.
      envs: gymnasium vector environment, one environment per seed, in `SAME_STEP` autoreset mode: after an episode's
        end the true last observation is in `info["final_obs"]` and no reset row appears.
      evaluator: an `Evaluator`, or what else gives returns and lengths of a policy that it is handed, and where the run
        rolls back takes `stream` and `plays`; None where nothing is evaluated, which `reference_update` must allow.
      task: for the normalised score.
      seeds: S seeds, for the environments.
      mesh: devices.
      log: gets `finetune.csv`, `episode.csv`, `evaluation.csv`, and `reference.csv` where returns settle the reference
        or the run rolls back. `total_env_steps` counts the steps of evaluations too.
      on_pause: called every `eval_every_env_steps`, and where a signal ends the run, with the run, the evaluation's
        metrics per seed, if there was one, the episodes under way as JSON takes them, and whether the run ends: save,
        take a snapshot.
      episodes: under way when `run` was saved, as `on_pause` got them, to go on as if nothing had happened; None
        begins new ones.

    Returns:
      The run after the last step.

    Raises:
      ValueError: the states of all seeds have become NaN or infinite, in a run that rolls back beyond what going back
        to π_ref would mend. A seed that diverges among others stays: its numbers say so.
      Interrupted: a signal has come, and `on_pause` has been called.
    """
    start = int(run.env_steps)
    if start >= config.env_steps:
        return run
    draw = batch_source(algorithm.cadence, config)
    update, keep = (
        over_seeds(functools.partial(step, algorithm, draw), mesh, shared=(1,), donate=(0,))
        for step in (advance, record)
    )
    begin = over_seeds(functools.partial(begin_episode, algorithm), mesh, donate=(0,))
    choose = over_seeds(functools.partial(next_action, algorithm), mesh)
    evaluate = over_seeds(functools.partial(mode_action, algorithm), mesh)
    evaluate_reference = over_seeds(functools.partial(reference_action, algorithm), mesh)
    set_reference = over_seeds(algorithm.set_reference, mesh, donate=(0,))
    roll_back = over_seeds(algorithm.roll_back, mesh, donate=(0,))
    finite = over_seeds(functools.partial(_may_go_on, algorithm) if config.roll_back else is_finite, mesh)

    # starts that depend on where a run stopped: its seeds are not used up again where its episodes are lost
    reset_seeds = [int(np.random.SeedSequence([seed, 0, start]).generate_state(1)[0]) for seed in seeds]
    observation = np.asarray(envs.reset(seed=reset_seeds)[0], np.float32)
    under_way = Episodes.restore(envs, episodes)
    if under_way is None:
        if episodes is not None:
            observation = np.asarray(envs.reset(seed=reset_seeds)[0], np.float32)
        run, device_action = begin(run, observation)
        under_way = Episodes.begin(observation, np.asarray(device_action))
    observation, action, episode_return = under_way.observation, under_way.action, under_way.returns
    finished, pending = under_way.finished, under_way.pending

    with progress("finetune", config.env_steps, initial=start) as bar:
        for env_steps in range(start + 1, config.env_steps + 1):
            next_observation, reward, terminated, truncated, info = envs.step(action)
            next_observation = np.asarray(next_observation, np.float32)
            taken = Rollout(
                observation=observation,
                action=action,
                reward=np.asarray(reward, np.float32),
                next_observation=last_observations(next_observation, info),
                terminated=np.asarray(terminated, np.float32),
                truncated=np.asarray(truncated & ~terminated, np.float32),
            )
            due = algorithm.cadence.due(env_steps)
            early_action = choose(run, next_observation) if algorithm.cadence.overlap else None
            run, device_action, metrics = (update if due else keep)(run, dataset, taken, next_observation)
            # to fetch an action is to wait for the updates before it: of the early one, those of the step before
            action = np.asarray(device_action if early_action is None else early_action)
            observation = next_observation
            if due:
                pending.append(metrics)
            episode_return += reward
            for s in np.nonzero(terminated | truncated)[0]:
                finished[s].append(episode_return[s])
                episode_return[s] = 0.0
            bar.update(1)

            stopping = interrupt.requested() and env_steps < config.env_steps
            if env_steps % config.eval_every_env_steps and env_steps != config.env_steps:
                if stopping:
                    under_way = Episodes(observation, action, episode_return, finished, jax.device_get(pending))
                    on_pause(run, {}, under_way.save(envs), True)
                    interrupt.end()
                continue
            means = _mean_over_time(pending or [metrics])
            log.write("finetune", env_steps, means)
            pending.clear()
            if not np.asarray(finite(run.agent)).any():
                raise ValueError(
                    f"fine-tuning diverged: after {env_steps} environment steps the networks of all {len(seeds)} seeds "
                    "are NaN or infinite; lower the learning rates"
                )
            if any(finished):
                log.write("episode", env_steps, _episode_metrics(task, finished) | _total_env_steps(run))
            scores: dict[str, np.ndarray] = {}
            returns = None
            if evaluator is not None:
                returns, lengths = evaluator(functools.partial(evaluate, run.agent))
                run = count_evaluation(run, lengths)
                scores = evaluation_metrics(task, returns, lengths)
                bar.set_postfix(score=" ".join(f"{score:.0f}" for score in scores["score"]))
            play_again = functools.partial(_play_again, evaluator, evaluate, evaluate_reference)
            run, verdict = _consider_reference(
                config, run, returns, scores.get("score"), finished, play_again, mesh, log
            )
            if verdict.accept.any():
                run = run.replace(agent=set_reference(run.agent, verdict.accept))
            if verdict.roll_back.any():
                divergence = means.get(algorithm.divergence_term, np.full(len(seeds), np.nan))
                run = run.replace(agent=roll_back(run.agent, verdict.roll_back, divergence.astype(np.float32)))
            if evaluator is not None:
                log.write("evaluation", env_steps, scores | _reference_score(task, run) | _total_env_steps(run))
            finished = [[] for _ in seeds]
            on_pause(run, scores, Episodes(observation, action, episode_return, finished).save(envs), stopping)
            if stopping:
                interrupt.end()
    return run


def _consider_reference(
    config: Any,
    run: Run,
    evaluated: np.ndarray | None,
    score: np.ndarray | None,
    finished: list[list[float]],
    play_again: Callable[[Run, np.ndarray], tuple[Run, Comparison]],
    mesh: Mesh,
    log: MetricLog,
) -> tuple[Run, Verdict]:
    """Looks at the current policy: does it become π_ref, or go back to it?

    Args:
      config: settings.
      run: after an evaluation, if there is one.
      evaluated: its returns [S, E], or None.
      score: [S] of them, or None.
      finished: returns of the training episodes since the last look, S lists.
      play_again: (run, passed [S] bool) -> the run with the steps counted, and the policies that passed against π_ref
        from fresh start states.
      mesh: devices.
      log: gets `reference.csv`.

    Returns:
      The run with what was found on the way, and the verdict.
    """
    env_steps, best_score = int(run.env_steps), np.asarray(run.best_score)
    look: dict[str, np.ndarray] = {}
    comparison = None
    if config.reference_update == "interval":
        evaluations = env_steps // config.eval_every_env_steps
        accept = np.full(best_score.shape, evaluations % config.reference_every_evaluations == 0)
    elif config.reference_update == "returns":
        returns = run.returns.replace(recent=run.returns.recent.add(finished))
        comparison = returns.compare(config.reference_min_episodes)
        accept, considered = returns.consider(config.reference_min_episodes, config.reference_standard_errors)
        look |= returns.metrics(accept)
        run = run.replace(returns=place(considered, mesh))
    elif run.standing is not None:
        assert evaluated is not None
        assert run.standing.returns is not None
        comparison = Comparison.paired(evaluated, run.standing.returns)
        accept = comparison.better(config.reference_standard_errors)
    else:
        accept = score > best_score
    verdict = Verdict(accept, *np.zeros((2, *accept.shape), bool))
    if run.standing is not None and comparison is not None:
        verdict, standing = run.standing.judge(config, comparison, accept)
        if config.reference_update == "best":
            run, verdict, confirmed = _confirm(config, run, verdict, play_again)
            look |= {"accepted": verdict.accept, "confirmed": confirmed}
        if evaluated is not None:
            standing = standing.evaluated(verdict.accept, evaluated)
        look |= {"rejected": verdict.reject, "rolled_back": verdict.roll_back}
        look |= {"difference": comparison.difference, "difference_error": comparison.error}
        run = run.replace(standing=place(standing, mesh))
    if look:
        log.write("reference", env_steps, look)
    if score is not None:
        best = np.fmax(best_score, score).astype(np.float32)
        run = run.replace(best_score=jax.device_put(best, run.best_score.sharding))
    return run, verdict


def _confirm(
    config: Any, run: Run, verdict: Verdict, play_again: Callable[[Run, np.ndarray], tuple[Run, Comparison]]
) -> tuple[Run, Verdict, np.ndarray]:
    """Lets fresh start states agree to what makes a policy π_ref or sends it back.

    The luckiest of many looks from the same start states would pass. And a π_ref that was lucky there would send all
    others back: where episodes are chaotic, a policy that hardly differs lacks its luck. Fresh ones know of neither.

    Args: of `_consider_reference`, and `verdict` by the usual start states.

    Returns:
      The run with the steps counted, the verdict that stands, and [S] 1 or 0 where it was confirmed or not, else NaN.
    """
    asked = verdict.accept | verdict.roll_back
    if not asked.any():
        return run, verdict, np.full(asked.shape, np.nan)
    run, again = play_again(run, asked)
    better = again.better(config.reference_standard_errors)
    worse = again.worse(config.reference_standard_errors, config.reject_share)
    verdict = verdict._replace(accept=verdict.accept & better, roll_back=verdict.roll_back & worse)
    return run, verdict, np.where(asked, verdict.accept | verdict.roll_back, np.nan)


def _play_again(
    evaluator: Callable, evaluate: Callable, evaluate_reference: Callable, run: Run, plays: np.ndarray
) -> tuple[Run, Comparison]:
    """Policy against π_ref from fresh start states, for the seeds that play [S] bool; the steps are counted."""
    stream = CONFIRMATION_STREAM + int(run.env_steps)  # so that a resumed run starts from the same
    returns = []
    for act in (evaluate, evaluate_reference):
        played, lengths = evaluator(functools.partial(act, run.agent), stream=stream, plays=plays)
        run = count_evaluation(run, lengths)
        returns.append(played)
    return run, Comparison.paired(*returns)


def _may_go_on(algorithm: OnlineAlgorithm, agent: Any) -> Array:
    """Returns [] bool, if one seed's state is finite once its policy is that of π_ref."""
    return is_finite(algorithm.roll_back(agent, jnp.asarray(True), jnp.asarray(jnp.nan)))


def _reference_score(task: Task, run: Run) -> dict[str, np.ndarray]:
    """Normalised score of π_ref from the evaluations' start states, where the run rolls back."""
    if run.standing is None or run.standing.returns is None:
        return {}
    return {"reference_score": task.score(np.asarray(run.standing.returns).mean(axis=1))}


def _total_env_steps(run: Run) -> dict[str, np.ndarray]:
    """Environment steps that each seed has spent so far, on training and on evaluations."""
    return {"total_env_steps": int(run.env_steps) + np.asarray(run.evaluation_steps)}


def _mean_over_time(metrics: list[Metrics]) -> dict[str, np.ndarray]:
    """Mean of every term per seed [S]; NaN where nothing was measured, as in the warm-up or within a rollout."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing but NaN
        return jax.tree.map(lambda *values: np.nanmean(np.stack(values), axis=0), *jax.device_get(metrics))


def _episode_metrics(task: Task, finished: list[list[float]]) -> dict[str, np.ndarray]:
    """Mean return of the training episodes since the last row, with exploration; NaN for a seed that finished none."""
    returns = np.array([np.mean(values) if values else np.nan for values in finished])
    return {"return": returns, "score": task.score(returns), "episodes": np.array([len(v) for v in finished])}
