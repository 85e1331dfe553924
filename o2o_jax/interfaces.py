"""Interfaces of algorithms and environment families."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from o2o_jax import registry
from o2o_jax.reading import brief
from o2o_jax.types import Array, Metrics, Rollout, Spec, expect


class Update(Protocol):
    """One update of one seed, pure: (state, batch [B], key) -> (state with `step` advanced, metrics)."""

    def __call__(self, state: Any, batch: Any, key: Array, /) -> tuple[Any, Metrics]:
        """Returns the state after the update, and its metrics, [] each."""


class Sample(Protocol):
    """Draws a batch of a dataset, pure: (dataset [N], key, batch_size) -> batch [B]."""

    def __call__(self, dataset: Any, key: Array, batch_size: int, /) -> Any:
        """Returns the batch [B]."""


class Prepare(Protocol):
    """Computes `types.Extras` for every row of a dataset [N], pure: (state, dataset) -> (state, extras).

    It sees the dataset whole and in order. What comes out may depend on the data and on parts of the state that the
    phase leaves alone: a resumed phase is prepared again.
    """

    def __call__(self, state: Any, dataset: Rollout, /) -> tuple[Any, Any]:
        """Returns the state and the extras [N, ...]."""


class Act(Protocol):
    """Chooses an action of one seed, pure, with exploration.

    (state, memory, observation [O], reward [], key) -> (action [A], memory). `reward` is that of the step before, 0 in
    an episode's first. `memory` is any pytree that `Online.memory` begins an episode with, () for most methods.
    """

    def __call__(self, state: Any, memory: Any, observation: Array, reward: Array, key: Array, /) -> tuple[Array, Any]:
        """Returns the action [A] in [-1, 1], and the memory after it."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Comparison with held-out episodes that a phase's checks make, beside the metrics of its update.

    Attributes:
      terms: names of what `measure` returns.
      prepare: (key, state, held_out) -> rows, pure, before the phase and before what is left of it. `held_out` is a
        `types.Rollout` [M] of whole episodes. What comes out may depend only on parts of the state that the phase
        leaves alone.
      measure: (state, rows) -> metrics, pure; NaN where the episodes say nothing, which is no sign of divergence.
      summary: (metrics of one seed) -> a line about them for when the phase ends; "" for none.
    """

    terms: tuple[str, ...]
    prepare: Callable
    measure: Callable
    summary: Callable[[Mapping[str, float]], str] = lambda metrics: ""


@dataclasses.dataclass(frozen=True)
class Stop:
    """Early stopping of a phase, by measures on rows that its batches never draw from.

    Attributes:
      terms: metrics of the phase's update that are measured at every check, without a step.
      decide: (history) -> [] int32, pure: 0 to continue, i to stop for `reasons[i - 1]`. `history` maps each term to
        its values [window_checks + 1] at the last checks, oldest first, NaN where there was none yet. The first check
        is made of the state as it comes.
      reasons: why to stop, for people; none where checks are made for their log alone.
      check_every_updates: updates between two checks.
      window_checks: how many checks `decide` looks back from the newest.
      min_updates: updates before which nothing stops.
      report: what else the checks measure; `history` has its terms too.
    """

    terms: tuple[str, ...]
    decide: Callable
    reasons: tuple[str, ...]
    check_every_updates: int
    window_checks: int
    min_updates: int = 0
    report: Report | None = None

    @property
    def measures(self) -> tuple[str, ...]:
        """All that a check measures: `terms`, and those of the report."""
        return self.terms + (self.report.terms if self.report else ())


class Phase(NamedTuple):
    """Updates on a dataset alone: offline training, cloning, re-evaluation, alignment.

    Attributes:
      name: of its CSV file and its progress bar.
      update: of one seed.
      updates: how many, per seed.
      batch_size: B.
      prepare: computes extras for every row first, so that batches are `types.Annotated`; None if rows alone will do.
      sample: draws batches that are no rows drawn uniformly; None for uniform rows.
      stop: when seeds are done before `updates`, or what is measured till then; None to make them all.
      show: metrics that the progress bar shows, and `summary` reads.
      measure_start: whether the log begins with the metrics of the state as it comes.
      chunk: the most updates of one compiled call, after which the log gets a row.
      summary: (first, last) -> a line for when the phase has ended. Both map the metrics of `show` to their
        first and last finite values in the log, one per seed [S]. None for nothing.
    """

    name: str
    update: Update
    updates: int
    batch_size: int
    prepare: Prepare | None = None
    sample: Sample | None = None
    stop: Stop | None = None
    show: tuple[str, ...] = ()
    measure_start: bool = False
    chunk: int = 1_000
    summary: Callable[[Mapping[str, Any], Mapping[str, Any]], str] | None = None


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Shares of an online method's time in the environment and in its updates.

    Attributes:
      env_steps: environment steps per seed between two rounds of updates; not of those that follow episodes.
      updates: updates in such a round, one compiled call.
      per_episode: whether a seed's rounds follow the ends of its own episodes. Its state's `step` then is
        `types.per_seed()`.
      warmup_env_steps: environment steps before the first update; the policy itself acts.
      random_env_steps: environment steps with uniform actions at the very start, for agents without a policy.
      overlap: whether the environment steps while a round of updates is computed, by an action that was chosen before.
      num_envs: E, environments per seed that step together; rounds that are due at one of their E steps follow all.
    """

    env_steps: int = 1
    updates: int = 1
    per_episode: bool = False
    warmup_env_steps: int = 0
    random_env_steps: int = 0
    overlap: bool = False
    num_envs: int = 1

    @property
    def env_axes(self) -> tuple[int, ...]:
        """Axes of what each environment of a seed has one of: none where there is one, else [E]."""
        return () if self.num_envs == 1 else (self.num_envs,)

    def due(self, env_steps: Any, ended: Any = False) -> Any:
        """Returns whether a round of updates follows environment step number `env_steps`, counted from 1.

        Args:
          env_steps: number of the step, or of several [...].
          ended: whether an episode of any seed ended with it, [...].
        """
        due = ended if self.per_episode else env_steps % self.env_steps == 0
        return (env_steps > self.warmup_env_steps) & due

    def rounds(self, env_steps: int, episode_steps: int) -> int:
        """Returns how many rounds a run of `env_steps` environment steps has.

        Args:
          env_steps: of the run.
          episode_steps: time limit of an episode; where rounds follow episodes that end before it there are more.
        """
        every = episode_steps if self.per_episode else self.env_steps
        return max(0, env_steps // every - self.warmup_env_steps // every)


class Replay(NamedTuple):
    """Rule for what an online update learns from, pure but for `choose`; `data.replay` has a file for each.

    Attributes:
      init: (spec, rows) -> buffer of one seed, before its first environment step; `rows` is N of the dataset.
      add: (buffer, step) -> buffer, with a `types.Rollout` step without a leading axis. Several environments of a seed
        take turns, always in the same order.
      sample: (buffer, dataset [N], key) -> batch [B], or [T] of a rollout, after at least one `add`.
      choose: (`data.dataset.Dataset`) -> the part of it that `sample` draws from, on the host; None where it draws of
        none, and is handed none.
      cut: (buffer) -> buffer, where the episodes under way were lost: the next steps begin others.
      feedback: (buffer, batch, state before the update on it) -> buffer, where updates say what is worth drawing; None
        where they don't.
    """

    init: Callable[..., Any]
    add: Callable[[Any, Rollout], Any]
    sample: Callable[[Any, Any, Array], Any]
    choose: Callable[[Any], Any] = lambda dataset: dataset
    cut: Callable[[Any], Any] = lambda buffer: buffer
    feedback: Callable[[Any, Any, Any], Any] | None = None


class Reference(NamedTuple):
    """The best policy so far, π_ref, of a method that is held to it.

    Attributes:
      accept: (state, accept) -> state; the actor becomes π_ref where `accept` [] bool.
      roll_back: (state, reject, divergence) -> state; where `reject` [] bool, the actor is π_ref again, bound to it
        more tightly. `divergence` [] is its mean distance since the last look, NaN where none was measured.
      policy: (state) -> `policy.Policy` of π_ref.
      divergence_term: the metric of `Online.update` that says how far the actor is from π_ref.
    """

    accept: Callable
    roll_back: Callable
    policy: Callable
    divergence_term: str = "divergence"


def no_memory() -> tuple[()]:
    """Returns the memory of a policy that has none."""
    return ()


class Online(NamedTuple):
    """The part of a method that acts and learns in the environment.

    Attributes:
      schedule: environment steps and updates per round.
      begin: (state, accept) -> state, once, before the first environment step. `accept` [] bool: did the aligned actor
        score better than the offline one?
      act: with exploration, an action [A] at an observation [O].
      update: on what `replay` samples.
      replay: rule for its batches.
      reference: None where there is no π_ref.
      memory: () -> pytree of arrays of any shape that `act` remembers where an episode begins.
      prepare: computes extras for the dataset's rows that `replay` draws from, whose own rows then need extras of the
        same structure; None where rows alone will do.
    """

    schedule: Schedule
    begin: Callable[[Any, Array], Any]
    act: Act
    update: Update
    replay: Replay
    reference: Reference | None = None
    memory: Callable[[], Any] = no_memory
    prepare: Prepare | None = None

    def memories(self) -> Any:
        """Returns `memory` of each environment of a seed, with `Schedule.env_axes` in front."""
        axes = self.schedule.env_axes
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*axes, *jnp.shape(leaf))), self.memory())


class Requires(NamedTuple):
    """Demands of a method on the policy that it starts from.

    Attributes:
      head: distribution of the policy: "deterministic", "gaussian", "gaussian_free" or "tanh_gaussian", to which others
        are cloned; None where any will do.
      state: whether it reads what offline training left beside the policy too, its critics say.
      sources: offline methods that leave what it reads; () where any of them may do.
    """

    head: str | None
    state: bool = False
    sources: tuple[str, ...] = ()

    def takes(self, head: str) -> bool:
        """Returns whether a policy of that head is taken as it is, without a clone."""
        return self.head in (None, head)

    def check_source(self, name: str, source: str) -> None:
        """Refuses the policy of another offline method, for the method `name`.

        Raises:
          ValueError: `source` is none of `sources`.
        """
        if self.sources and source not in self.sources:
            theirs = " or ".join(self.sources)
            raise ValueError(
                f"{name} continues from {theirs}, with its whole state, and this policy comes from "
                f"{source or 'elsewhere'}: pass the policy of a run of {theirs}"
            )


class Algorithm(NamedTuple):
    """An offline or online method as pure functions of one seed, not yet jitted: phases, and perhaps an online part.

    Attributes:
      name: of its folder.
      init: (key, start) -> state. `start` is a `policy.Handoff` where there are `requires`, or None for random
        networks; elsewhere it is the `data.transform.Normalizer` of the dataset's observations.
      phases: on a dataset alone, in their order.
      policy: (state) -> one of `policy.AnyPolicy`: evaluate it, save it, or start from it again.
      critic: (state) -> `critic.QFunction`; None where the method has no values of actions.
      requires: what it starts from; None for a method that learns from data alone.
      online: None for an offline method.
      select: (`data.dataset.Dataset`) -> the part of it that normaliser and batches come from; by default all of it.
    """

    name: str
    init: Callable
    phases: tuple[Phase, ...]
    policy: Callable
    critic: Callable | None = None
    requires: Requires | None = None
    online: Online | None = None
    select: Callable = lambda dataset: dataset

    def phase(self, name: str) -> Phase:
        """Returns the phase of that name.

        Raises:
          ValueError: there is none.
        """
        phases = {phase.name: phase for phase in self.phases}
        if name not in phases:
            raise ValueError(registry.unknown(f"phase of {self.name}", name, phases))
        return phases[name]

    @property
    def offline_updates(self) -> int:
        """Updates of all phases together."""
        return sum(phase.updates for phase in self.phases)


def expect_task(task: Any) -> None:
    """Refuses what is no task, before it fails deep inside.

    Raises:
      TypeError: it is none.
    """
    expect(task, Task, "task", "pass o2o_jax.envs.get_task(name)")


DEPLOYED = (
    "name", "env_id", "spec", "max_episode_steps", "random_score", "expert_score", "action_low", "action_high",
    "env_arguments",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Task:
    """Facts about one dataset and the environment that it came from. Algorithms read them in `Config.for_task`.

    Attributes:
      name: `<family>/<robot>-<quality>`, as `--env` takes it: "mujoco/hopper-medium".
      env_id: gymnasium id of the environment, "Hopper-v5".
      spec: sizes of observation and action.
      max_episode_steps: time limit in environment steps; reaching it truncates, it never terminates.
      dataset_id: Minari id that the family's `load_dataset` reads, "o2o/hopper/medium-v0"; "" for an environment alone.
      expert_data: whether the data is of expert quality (medium-expert and expert; LOCO-E of the paper).
      random_score: mean return of the random reference policy: 0 normalized points.
      expert_score: mean return of the expert reference policy: 100 normalized points. The default pair, 0 and 100,
        means no reference at all: scores are then raw returns.
      narrow_data: whether the data covers little beside its own paths (few demonstrations, clones of them), whatever
        their quality: the policy must stay near them.
      remote_ids: ids on Minari's remote that belong to the task too, "mujoco/hopper/medium-v0".
      same_dynamics: gymnasium ids of other environments whose transitions are those of `env_id`, so that their data
        fits: "Hopper-v4".
      transitions: rows that the dataset has where it is made here, unless other are asked for.
      published_settings: whether the paper or its code has settings for the task. Where not, those of
        `Config.for_task` are this package's choice.
      published_score: mean normalized return of the published dataset that this one follows; None where unknown.
      sparse_reward: whether the reward is 1 at a goal, where the episode ends, and 0 before.
      long_horizon: whether that goal is so far that data of the whole way is rare (medium and large mazes; AM-ML of
        the paper, where umaze is AM-U).
      eval_episodes: how many episodes settle a score; many where each has a goal of its own.
      action_low: [A] lower bounds of the environment's own actions; () where all of them are −1 and 1.
      action_high: [A] upper bounds, likewise.
      env_arguments: arguments of the environment beside its id, as JSON: '{"healthy_reward": 0.0}'.

    Raises:
      ValueError: `expert_score` doesn't exceed `random_score`, or bounds are not one pair per action.
    """

    name: str
    env_id: str
    spec: Spec
    max_episode_steps: int
    dataset_id: str = ""
    expert_data: bool = False
    random_score: float = 0.0
    expert_score: float = 100.0
    narrow_data: bool = False
    remote_ids: tuple[str, ...] = ()
    same_dynamics: tuple[str, ...] = ()
    transitions: int = 1_000_000
    published_settings: bool = True
    published_score: float | None = None
    sparse_reward: bool = False
    long_horizon: bool = False
    eval_episodes: int = 10
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    env_arguments: str = "{}"

    def __post_init__(self) -> None:
        if self.expert_score <= self.random_score:
            raise ValueError(f"expert_score must exceed random_score, got {self}")
        if not len(self.action_low) == len(self.action_high) in (0, self.spec.action_dim):
            raise ValueError(f"action_low and action_high must have one number per action, or none, got {self}")

    def to_json(self) -> dict[str, Any]:
        """Returns the facts that whoever deploys a policy needs, as JSON takes them: `DEPLOYED`."""
        return json.loads(json.dumps({name: dataclasses.asdict(self)[name] for name in DEPLOYED}))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Task":
        """Returns a task with those facts, and of all others the defaults.

        Raises:
          ValueError: the values are not those of `to_json`.
        """
        try:
            facts = {name: values[name] for name in DEPLOYED} | {"spec": Spec(**values["spec"])}
            bounds = {name: tuple(float(bound) for bound in facts[name]) for name in ("action_low", "action_high")}
            return cls(**facts | bounds)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the facts of a task must have {', '.join(DEPLOYED)}: {brief(error)}") from None

    @property
    def action_bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Lower and upper bounds [A] of the environment's own actions; None where all of them are −1 and 1."""
        return (self.action_low, self.action_high) if self.action_low else None

    def score(self, returns: Any) -> Any:
        """Normalizes undiscounted returns [...]: 100 (return − random) / (expert − random), D4RL's score [...]."""
        return 100.0 * (returns - self.random_score) / (self.expert_score - self.random_score)

    @property
    def family(self) -> str:
        """Environment family: "mujoco" of "mujoco/hopper-medium"."""
        return self.name.partition("/")[0]

    @property
    def robot(self) -> str:
        """Robot, or maze: "hopper" of "mujoco/hopper-v4-medium-expert"."""
        return self.name.partition("/")[2].partition("-")[0]

    @property
    def quality(self) -> str:
        """Of the data: "medium-expert" of "mujoco/hopper-v4-medium-expert"; "" where the name says none."""
        return self.name.partition("/")[2].partition("-")[2].removeprefix("v4-")

    @property
    def has_references(self) -> bool:
        """True where scores are normalized by reference policies, rather than raw returns."""
        return (self.random_score, self.expert_score) != (0.0, 100.0)

    @property
    def warnings(self) -> list[str]:
        """Warnings for people who read the task's numbers, a line each."""
        warnings = []
        if not self.has_references:
            warnings.append(f"{self.name} has no reference scores: every score is the raw return")
        if not self.published_settings:
            warnings.append(f"no settings are published for {self.name}: those of this run are this package's choice")
        return warnings
