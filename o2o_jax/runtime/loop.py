"""The online loop: act, step, store, update, now and then evaluate. Impure: steps environments."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.envs.vector import failed_environments, last_observations
from o2o_jax.interfaces import Online
from o2o_jax.runtime import interrupt, snapshots
from o2o_jax.runtime.episodes import Episodes
from o2o_jax.runtime.evaluate import evaluation_metrics, policy_episodes
from o2o_jax.runtime.events import Event, Events
from o2o_jax.runtime.failures import Guard, blank
from o2o_jax.runtime.log import progress
from o2o_jax.runtime.run import Run, count_evaluation
from o2o_jax.runtime.seeds import over_seeds
from o2o_jax.runtime.selection import Selection, keep_best_score
from o2o_jax.runtime.setup import Setup
from o2o_jax.training import where
from o2o_jax.types import Annotated, Array, Extras, Metrics, Rollout, Transition

LOGS = ("finetune", "episode", "evaluation", "reference")


# Of one seed arrays have no axis of environments where it has one, and a leading axis [E] where it has several:
# `Schedule.env_axes`, [...] below.


def begin_episode(online: Online, run: Run, observation: Array) -> tuple[Run, Array]:
    """The actions [..., A] at the first observations [..., O] of a run, or of what is left of one; one seed."""
    # the episodes under way are not continued
    run = run.replace(buffer=online.replay.cut(run.buffer), memory=online.memories())
    return _act(online, run, observation, jnp.zeros(online.schedule.env_axes))


def advance(
    online: Online, run: Run, dataset: Transition | None, extras: Extras | None, step: Rollout, observation: Array
) -> tuple[Run, Array, Metrics]:
    """A step of one seed's environments that rounds of updates follow, compiled as one call.

    Args:
      online: pure functions of one seed.
      run: before the step.
      dataset: transitions [N], shared by all seeds; None where the replay rule doesn't need them.
      extras: of `online.prepare` on them, or None.
      step: what the environments just did [...].
      observation: [..., O] where the next actions are taken; after an episode's end, the next one's first.

    Returns:
      The run, the next actions [..., A], and metrics averaged over the step's updates.
    """
    run, update, metrics = _store(online, run, dataset, extras, step)

    def update_and_add(_: Array, carry: tuple[Any, Metrics, Metrics]) -> tuple[Any, Metrics, Metrics]:
        changing, total, count = carry
        changing, metrics = update(changing)
        total = jax.tree.map(lambda t, m: t + jnp.where(jnp.isnan(m), 0.0, m), total, metrics)
        count = jax.tree.map(lambda c, m: c + ~jnp.isnan(m), count, metrics)
        return changing, total, count

    # XLA, which would repeat the buffer's write in every reader and copy the buffer for it, writes in place before a
    # loop. It must not know how often the loop turns, or it would dissolve one that turns once.
    zeros = jax.tree.map(lambda m: jnp.zeros(m.shape), metrics)
    schedule = online.schedule
    numbers = run.env_steps - jnp.arange(schedule.num_envs)[::-1]
    # where rounds follow episodes, this may be for the end of another seed's, which leaves none here
    turns = schedule.updates * jnp.sum(schedule.due(numbers, step.ended > 0))
    changing, total, count = jax.lax.fori_loop(0, turns, update_and_add, (_changing(online, run), zeros, zeros))
    run, action = _go_on(online, run.replace(**changing), step, observation)
    return run, action, jax.tree.map(jnp.divide, total, count)


def record(online: Online, run: Run, step: Rollout, observation: Array) -> tuple[Run, Array]:
    """A step of one seed's environments without an update: a program of its own, which leaves the networks in place.

    The arguments are those of `advance`.

    Returns:
      The run and the next actions [..., A].
    """
    return _go_on(online, _stored(online, run, step), step, observation)


def _stored(online: Online, run: Run, step: Rollout) -> Run:
    """The run with the steps [...] of its environments in its buffer, one after the other."""
    num_envs = online.schedule.num_envs
    if num_envs == 1:
        buffer = online.replay.add(run.buffer, step)
    else:
        buffer, _ = jax.lax.scan(lambda buffer, one: (online.replay.add(buffer, one), None), run.buffer, step)
    return run.replace(buffer=buffer, env_steps=run.env_steps + num_envs)


def _store(
    online: Online, run: Run, dataset: Transition | None, extras: Extras | None, step: Rollout
) -> tuple[Run, Callable, Metrics]:
    """The run with the steps in its buffer; an update, (`_changing`) -> (`_changing`, metrics); the metrics' shapes."""
    run = _stored(online, run, step)
    rows = Annotated.of(dataset, extras) if dataset is not None and extras is not None else dataset
    update_key = jax.random.fold_in(run.key, 0)

    def update(changing: dict[str, Any]) -> tuple[dict[str, Any], Metrics]:
        sample_key, key = jax.random.split(jax.random.fold_in(update_key, changing["agent"].step))
        buffer = changing.get("buffer", run.buffer)
        batch = online.replay.sample(buffer, rows, sample_key)
        agent, metrics = online.update(changing["agent"], batch, key)
        changed = {"agent": agent}
        if online.replay.feedback is not None:
            changed["buffer"] = online.replay.feedback(buffer, batch, changing["agent"])
        return changed, metrics

    return run, update, jax.eval_shape(update, _changing(online, run))[1]


def _changing(online: Online, run: Run) -> dict[str, Any]:
    """Parts of the run that updates change, by their names: the agent, and the buffer where they write into it."""
    return {"agent": run.agent} | ({"buffer": run.buffer} if online.replay.feedback is not None else {})


def _go_on(online: Online, run: Run, step: Rollout, observation: Array) -> tuple[Run, Array]:
    """The actions after steps that have been stored; an episode that ended takes its memory and reward with it."""
    ended = step.ended > 0
    forget = _in_each_env(online, where)
    memory = forget(ended, online.memories(), run.memory)
    return _act(online, run.replace(memory=memory), observation, jnp.where(ended, 0.0, step.reward))


def _act(online: Online, run: Run, observation: Array, reward: Array) -> tuple[Run, Array]:
    """The next actions [..., A]; that of environment e draws as the only one would e steps later."""
    schedule, action_key = online.schedule, jax.random.fold_in(run.key, 1)

    def act(env_steps: Array, memory: Any, observation: Array, reward: Array) -> tuple[Array, Any]:
        key = jax.random.fold_in(action_key, env_steps)
        action, memory = online.act(run.agent, memory, observation, reward, key)
        if schedule.random_env_steps:
            uniform = jax.random.uniform(key, action.shape, minval=-1.0, maxval=1.0)
            action = jnp.where(env_steps < schedule.random_env_steps, uniform, action)
        return action, memory

    env_steps = run.env_steps + jnp.arange(schedule.num_envs).reshape(schedule.env_axes)
    action, memory = _in_each_env(online, act)(env_steps, run.memory, observation, reward)
    return run.replace(memory=memory), action


def _in_each_env(online: Online, function: Callable) -> Callable:
    """A function of one environment as one of all of a seed, whose arguments and results have axes [...]."""
    return jax.vmap(function) if online.schedule.env_axes else function


def next_action(online: Online, run: Run, observation: Array) -> Array:
    """The actions [..., A] after the step that comes next, chosen before its updates; one seed, without a memory.

    They draw what they would draw after them: where nothing is updated, they are the same actions.
    """
    schedule = online.schedule
    run = run.replace(env_steps=run.env_steps + schedule.num_envs)
    return _act(online, run, observation, jnp.zeros(schedule.env_axes))[1]


def fine_tune(
    setup: Setup,
    run: Run,
    dataset: Transition | None,
    envs: Any,
    evaluator: Callable | None,
    checkpoint_every: int = 1,
) -> Events[Run]:
    """Fine-tunes all seeds for `config.env_steps` environment steps each, or what is left of them.

    Args:
      setup: of the run.
      run: where to continue from; `begin_finetuning` has been applied. Consumed: its memory is reused.
      dataset: transitions [N] on the device that the replay rule chose; None if it uses no rows of the dataset.
      envs: gymnasium vector environment [S·E], the E of `Schedule.num_envs` of a seed side by side, in `SAME_STEP`
        autoreset mode: after an episode's end the true last observation is in `info["final_obs"]` and no reset row
        appears.
      evaluator: an `Evaluator`, or what else gives returns and lengths of a policy that it is handed, takes `plays`
        where a seed has failed, and `stream` too where the run rolls back; None where nothing is evaluated, which
        `reference.update` must allow.
      checkpoint_every: environment steps between events that ask to be saved, all of them at evaluations.

    Returns:
      Events, which lead to the run after the last step. There are two every `evaluation.every_env_steps`: "finetune"
      with the logs `finetune` and `episode`, then "evaluation" ("finetune" without an evaluator) with the run, the log
      `evaluation`, and `reference` where returns settle the reference or the run rolls back. `total_env_steps` counts
      the steps of evaluations too. A signal makes one more, with the run, and so does a seed that fails, with a line.

      A seed fails when its environment does, or when its state becomes NaN or infinite, in a run that rolls back
      beyond what going back to π_ref would mend. It ends with the state of the look before, and its rows are NaN.

    Raises:
      ValueError: all seeds have failed.
      Interrupted: a signal has come, after an event that asks to be saved.
    """
    config, start, num_envs = setup.config, int(run.env_steps), setup.online.schedule.num_envs
    yield Event("finetune", start, cut=dict.fromkeys(LOGS, start))
    if start >= config.env_steps:
        return run
    loop = _Loop(setup, run, dataset, envs, evaluator)
    with progress("finetune", config.env_steps, initial=start) as bar:
        for env_steps in range(start + num_envs, config.env_steps + 1, num_envs):
            loop.step(env_steps)
            bar.update(num_envs)
            if loop.is_doubtful:
                yield Event("finetune", env_steps, lines=loop.settle())
            ended = env_steps == config.env_steps
            stopping = interrupt.requested() and not ended
            due = env_steps // checkpoint_every > (env_steps - config.evaluation.every_env_steps) // checkpoint_every
            if env_steps % config.evaluation.every_env_steps == 0 or ended:
                yield Event("finetune", env_steps, loop.logged())
                lines = loop.settle()
                rows = loop.look()
                scores = rows.get("evaluation", {}).get("score", ())
                bar.set_postfix({"score": " ".join(f"{score:.0f}" for score in scores)} if len(scores) else {})
                phase = "evaluation" if evaluator is not None else "finetune"
                save = due or ended or stopping
                yield Event(phase, env_steps, rows, loop.whole_run(), save, lines=lines)
            elif stopping:
                yield Event("finetune", env_steps, lines=loop.settle(), run=loop.whole_run(), save=True)
            if stopping:
                interrupt.end()
    return loop.run.replace(snapshots=loop.snapshots)


class _Loop:
    """A run under way: its programs, compiled once, and its episodes; arguments as of `fine_tune`.

    Attributes:
      run: all but the episodes and the snapshots, which no environment step changes.
      episodes: under way.
      snapshots: of the run.
      is_doubtful: whether a seed has failed, or may have, since they were last settled.
    """

    def __init__(
        self, setup: Setup, run: Run, dataset: Transition | None, envs: Any, evaluator: Callable | None
    ) -> None:
        online, mesh = setup.online, setup.mesh
        self._setup, self._dataset, self._envs, self._evaluator = setup, dataset, envs, evaluator
        self._update = over_seeds(functools.partial(advance, online), mesh, shared=(1,), donate=(0,))
        self._keep = over_seeds(functools.partial(record, online), mesh, donate=(0,))
        self._choose = over_seeds(functools.partial(next_action, online), mesh)
        self._play = policy_episodes(setup.algorithm.policy, setup.seeds, mesh)
        self._selection = Selection(setup, evaluator, self._play) if setup.reference else None
        self._step: tuple[Rollout, np.ndarray] | None = None  # the newest one, and what was observed after it
        self._means: dict[str, np.ndarray] = {}  # of the updates since the look before
        self._extras: Extras | None = None
        if online.prepare is not None and dataset is not None:
            agent, self._extras = over_seeds(online.prepare, mesh, shared=(1,), donate=(0,))(run.agent, dataset)
            run = run.replace(agent=agent)
        self._keep_extremes = over_seeds(
            functools.partial(snapshots.evaluated, setup.algorithm.policy), mesh, shared=(3,), donate=(0,)
        )
        self.snapshots, self.is_doubtful = run.snapshots, False
        self._failures: dict[int, str] = {}  # place among the seeds -> how its environment has failed
        self.run, self.episodes = _take_up(setup, run.replace(snapshots=None), envs)
        self._guard = Guard(setup, self.run)
        self._failed = np.asarray(self.run.failed)

    def step(self, env_steps: int) -> None:
        """Steps all environments, each seed's up to step number `env_steps`; stores, and updates where that is due."""
        schedule, episodes = self._setup.online.schedule, self.episodes
        actions = episodes.action.reshape(-1, episodes.action.shape[-1])
        flat_observation, *outcome, info = self._envs.step(actions)
        flat_observation = np.asarray(flat_observation, np.float32)
        next_observation = flat_observation.reshape(episodes.observation.shape)
        reward, terminated, truncated = (np.asarray(part).reshape(episodes.returns.shape) for part in outcome)
        taken = Rollout(
            observation=episodes.observation,
            action=episodes.action,
            reward=np.asarray(reward, np.float32),
            next_observation=last_observations(flat_observation, info).reshape(episodes.observation.shape),
            terminated=np.asarray(terminated, np.float32),
            truncated=np.asarray(truncated & ~terminated, np.float32),
        )
        ended = terminated | truncated
        due = np.any(schedule.due(env_steps - np.arange(schedule.num_envs)[::-1], ended))
        early_action = self._choose(self.run, next_observation) if schedule.overlap else None
        if due:
            self.run, action, metrics = self._update(self.run, self._dataset, self._extras, taken, next_observation)
            episodes.measure(metrics)
        else:
            self.run, action = self._keep(self.run, taken, next_observation)
        # to fetch an action is to wait for the updates before it: of the early one, those of the step before
        action = np.asarray(action if early_action is None else early_action)
        finite = np.isfinite(action)  # an environment shall not have to bear what else a policy that diverges asks for
        episodes.action = action if finite.all() else np.where(finite, action, np.float32(0.0))
        episodes.observation = next_observation
        self._failures |= {env // schedule.num_envs: how for env, how in failed_environments(info).items()}
        diverged = ~finite.reshape(len(finite), -1).all(axis=1)
        doubtful = np.isin(np.arange(len(finite)), list(self._failures)) | diverged
        self.is_doubtful = bool((doubtful & ~self._failed).any())
        self._step = taken, next_observation
        episodes.add(reward, ended)

    def whole_run(self) -> Run:
        """Returns the run with its episodes and snapshots."""
        return self.run.replace(episodes=self.episodes.save(self._envs), snapshots=self.snapshots)

    def logged(self) -> dict[str, dict[str, np.ndarray]]:
        """Returns rows of what has happened since the last look, before this one's evaluation."""
        finished = self.episodes.finished
        self._means = _mean_over_time(self.episodes.pending or [self._no_metrics()])
        rows = {"finetune": self._means}
        if any(finished):
            rows["episode"] = _episode_metrics(self._setup, finished) | _total_env_steps(self.run)
        return blank(rows, self._failed)

    def _no_metrics(self) -> Metrics:
        """NaN for every metric of an update, of which there was none since the last look."""
        assert self._step is not None
        shapes = self._update.eval_shape(self.run, self._dataset, self._extras, *self._step)[2]
        return jax.tree.map(lambda metric: np.full(metric.shape, np.nan, np.float32), shapes)

    def settle(self) -> tuple[str, ...]:
        """Ends the seeds that have failed; returns a line on each.

        Raises:
          ValueError: no seed is left.
        """
        self.run, lines = self._guard.settle(self.run, self._failures)
        self.is_doubtful, self._failed = False, np.asarray(self.run.failed)
        return lines

    def look(self) -> dict[str, dict[str, np.ndarray]]:
        """Evaluates, and lets returns settle π_ref; returns rows of both. The states must be settled."""
        setup = self._setup
        rows: dict[str, dict[str, np.ndarray]] = {}
        scores: dict[str, np.ndarray] = {}
        returns = None
        if self._evaluator is not None:
            those = {"plays": ~self._failed} if self._failed.any() else {}
            returns, lengths = self._play(self._evaluator, self.run.agent, **those)
            self.run = count_evaluation(self.run, lengths)
            scores = evaluation_metrics(setup, returns, lengths)
            env_steps = np.asarray(self.run.env_steps)
            self.snapshots = self._keep_extremes(self.snapshots, self.run.agent, scores["score"], env_steps)
        if self._selection is not None:
            finished = self.episodes.finished
            self.run, row = self._selection.look(self.run, returns, scores.get("score"), finished, self._means)
            if row:
                rows["reference"] = row
        self.run = keep_best_score(self.run, scores.get("score"))
        if scores:
            rows["evaluation"] = scores | _reference_score(setup, self.run) | _total_env_steps(self.run)
        self.episodes.forget()
        self._guard.keep(self.run)
        return blank(rows, self._failed)


def _take_up(setup: Setup, run: Run, envs: Any) -> tuple[Run, Episodes]:
    """The run and its episodes under way: those that it was saved with, or new ones at their first observations."""
    # starts that depend on where a run stopped: its seeds are not used up again where its episodes are lost
    start, schedule = int(run.env_steps), setup.online.schedule
    states = [np.random.SeedSequence([seed, 0, start]).generate_state(schedule.num_envs) for seed in setup.seeds]
    seeds = np.concatenate(states).tolist()

    def reset() -> np.ndarray:
        return np.asarray(envs.reset(seed=seeds)[0], np.float32).reshape(len(states), *schedule.env_axes, -1)

    observation = reset()
    under_way = Episodes.restore(envs, run.episodes, np.asarray(run.failed))
    if under_way is not None:
        return run.replace(episodes=None), under_way
    if run.episodes is not None:  # whatever has been played of them since
        observation = reset()
    begin = over_seeds(functools.partial(begin_episode, setup.online), setup.mesh, donate=(0,))
    run, device_action = begin(run.replace(episodes=None), observation)
    return run, Episodes.begin(observation, np.asarray(device_action))


def _reference_score(setup: Setup, run: Run) -> dict[str, np.ndarray]:
    """Normalised score of π_ref from the evaluations' start states, where the run rolls back."""
    if run.standing is None or run.standing.returns is None:
        return {}
    return {"reference_score": setup.score(np.asarray(run.standing.returns).mean(axis=1))}


def _total_env_steps(run: Run) -> dict[str, np.ndarray]:
    """Environment steps that each seed has spent so far, on training and on evaluations."""
    return {"total_env_steps": int(run.env_steps) + np.asarray(run.evaluation_steps)}


def _mean_over_time(metrics: list[Metrics]) -> dict[str, np.ndarray]:
    """Mean of every term per seed [S]; NaN where nothing was measured, as in the warm-up or within a rollout."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing but NaN
        return jax.tree.map(lambda *values: np.nanmean(np.stack(values), axis=0), *jax.device_get(metrics))


def _episode_metrics(setup: Setup, finished: list[list[float]]) -> dict[str, np.ndarray]:
    """Mean return of the training episodes since the last row, with exploration; NaN for a seed that finished none."""
    returns = np.array([np.mean(values) if values else np.nan for values in finished])
    return {"return": returns, "score": setup.score(returns), "episodes": np.array([len(v) for v in finished])}
