"""What an algorithm and an environment family owe the rest of the package."""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from o2o_jax.types import Spec


@dataclasses.dataclass(frozen=True)
class Cadence:
    """How an online algorithm shares its time between the environment and its updates.

    Attributes:
      env_steps: environment steps per seed between two rounds of updates.
      updates: updates in such a round, one compiled call.
      source: where a round's batch comes from: "replay", fresh uniform samples for every update, or "rollout", the
        `env_steps` that were just taken, whole and in order: a `types.Rollout`.
      warmup_env_steps: environment steps before the first update; the policy itself acts.
      random_env_steps: environment steps with uniform actions at the very start, for agents without a policy.
      overlap: whether the environment steps while a round of updates is computed, by an action that was chosen before.
    """

    env_steps: int = 1
    updates: int = 1
    source: Literal["replay", "rollout"] = "replay"
    warmup_env_steps: int = 0
    random_env_steps: int = 0
    overlap: bool = False

    def due(self, env_steps: int) -> bool:
        """Whether a round of updates follows environment step number `env_steps`, counted from 1."""
        return env_steps > self.warmup_env_steps and env_steps % self.env_steps == 0


@dataclasses.dataclass(frozen=True)
class Report:
    """What the checks of a phase compare with held-out episodes, beside the metrics of the phase's update.

    Attributes:
      terms: names of what `measure` returns.
      prepare: (key, state, held_out) -> rows, pure, before the phase and before what is left of it. `held_out` is a
        `types.Rollout` [M] of whole episodes. What comes out may depend only on parts of the state that the phase
        leaves alone.
      measure: (state, rows) -> metrics, pure; NaN where the episodes say nothing, which is no sign of divergence.
      remark: (metrics of one seed) -> what people have to know of them when the phase ends, one line; "" for nothing.
    """

    terms: tuple[str, ...]
    prepare: Callable
    measure: Callable
    remark: Callable[[Mapping[str, float]], str] = lambda metrics: ""


@dataclasses.dataclass(frozen=True)
class Stop:
    """When a phase of updates on a dataset is done, by measures on rows that its batches never draw from.

    Attributes:
      terms: metrics of the phase's update that are measured at every check, without a step.
      verdict: (history) -> [] int32, pure: 0 to go on, i to stop for `reasons[i - 1]`. `history` maps each term to
        its values [window_checks + 1] at the last checks, oldest first, NaN where there was none yet. The first check
        is made of the state as it comes.
      reasons: why to stop, for people; none where checks are made for their log alone.
      check_every_updates: updates between two checks.
      window_checks: how many checks `verdict` looks back from the newest.
      min_updates: updates before which nothing stops.
      report: what else the checks measure; `history` has its terms too.
    """

    terms: tuple[str, ...]
    verdict: Callable
    reasons: tuple[str, ...]
    check_every_updates: int
    window_checks: int
    min_updates: int = 0
    report: Report | None = None

    @property
    def measures(self) -> tuple[str, ...]:
        """All that a check measures: `terms`, and those of the report."""
        return self.terms + (self.report.terms if self.report else ())


class OfflineAlgorithm(NamedTuple):
    """An offline method as pure functions, not yet jitted.

    Attributes:
      init: (key, normalizer) -> state.
      update: (state, batch, key) -> (state, metrics), one gradient step on a `Transition` batch [B], or on what `draw`
        makes of it.
      handoff: (state) -> `policy.Handoff`, the only way out.
      select: (`data.dataset.Dataset`) -> the part of it that `init`'s normaliser and `update`'s batches come from; by
        default all of it.
      prepare: (state, dataset) -> (state, notes), before training. It sees the dataset whole, as a `types.Rollout` [N],
        and writes `types.Notes` on every row; what updates are drawn from then is `types.Annotated`. Training that goes
        on is prepared again: what comes out may depend on the data alone. None where an algorithm needs rows alone.
      draw: (dataset, key, batch_size) -> batch, pure, where batches are no rows drawn uniformly: stretches of episodes,
        say. None for uniform rows.
      critic: (state) -> `critic.QFunction`; None where the method learns no values of actions.
    """

    init: Callable
    update: Callable
    handoff: Callable
    select: Callable = lambda dataset: dataset
    prepare: Callable | None = None
    draw: Callable | None = None
    critic: Callable | None = None


class OnlineAlgorithm(NamedTuple):
    """An online method as pure functions, not yet jitted.

    Attributes:
      head: distribution that `init` expects of a policy: "deterministic", "gaussian", "gaussian_free" or
        "tanh_gaussian".
      cadence: environment steps and updates per round of fine-tuning.
      init: (key, handoff) -> state, the only way in. `handoff` None starts from random networks.
      reevaluate: (state, batch, key) -> (state, metrics), section 4.1.
      align: (state, batch, key) -> (state, metrics), section 4.2.
      begin_finetuning: (state, accept) -> state, once. `accept` [] bool: did the aligned actor score better?
      finetune: (state, batch, key) -> (state, metrics), section 4.3, on what `cadence.source` says.
      set_reference: (state, accept) -> state; the actor becomes π_ref where `accept` [] bool.
      roll_back: (state, reject, divergence) -> state; where `reject` [] bool, the actor is π_ref again, bound to it
        more tightly. `divergence` [] is its mean distance since the last look, NaN where none was measured.
      act: (state, observation [O], key) -> action [A], with exploration.
      policy: (state) -> `policy.Policy`: evaluate it, save it, or start from it again.
      reference_policy: (state) -> `policy.Policy` of π_ref.
      prepare: (phase, state, dataset) -> (state, notes), before the phase "reevaluate" or "align". It sees the dataset
        whole, as a `types.Rollout` [N], and writes `types.Notes` on every row; the phase's batches then are
        `types.Annotated`. A resumed phase is prepared again: what comes out may depend only on parts of the state that
        the phase leaves alone. None where an algorithm needs rows alone.
      stops: for the phases "reevaluate" and "align", when they are done before their number of updates is reached. A
        phase that isn't in it takes them all.
      critic: (state) -> `critic.QFunction`; None where the method has no values of actions.
      divergence_term: the metric of `finetune` that says how far the actor is from π_ref.
      reads_handoff_state: whether `init` reads the offline algorithm's whole state (direct fine-tuning) or its
        policy alone.
    """

    head: str
    cadence: Cadence
    init: Callable
    reevaluate: Callable
    align: Callable
    begin_finetuning: Callable
    finetune: Callable
    set_reference: Callable
    roll_back: Callable
    act: Callable
    policy: Callable
    reference_policy: Callable
    prepare: Callable | None = None
    stops: Mapping[str, Stop] = types.MappingProxyType({})
    critic: Callable | None = None
    divergence_term: str = "divergence"
    reads_handoff_state: bool = False


@dataclasses.dataclass(frozen=True)
class Task:
    """Facts about one dataset and the environment that it came from. Algorithms read them in `Config.for_task`.

    Attributes:
      name: "<family>/<robot>-<quality>", as `--env` takes it: "mujoco/hopper-medium".
      env_id: gymnasium id of the environment, "Hopper-v5".
      spec: sizes of observation and action.
      max_episode_steps: time limit in environment steps; reaching it truncates, it never terminates.
      dataset_id: Minari id that the family's `load_dataset` reads, "o2o/hopper/medium-v0"; "" for an environment alone.
      expert_data: whether the data is of expert quality (medium-expert and expert; LOCO-E of the paper).
      random_score: mean return of the random reference policy: 0 normalized points.
      expert_score: mean return of the expert reference policy: 100 normalized points. The default pair, 0 and 100,
        stands for no reference at all: scores are then raw returns.
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

    def __post_init__(self) -> None:
        if self.expert_score <= self.random_score:
            raise ValueError(f"expert_score must exceed random_score, got {self}")

    def score(self, returns: Any) -> Any:
        """Normalized score 100 (return − random) / (expert − random) of undiscounted returns [...] (D4RL)."""
        return 100.0 * (returns - self.random_score) / (self.expert_score - self.random_score)

    @property
    def robot(self) -> str:
        """Who acts, or in which maze: "hopper" of "mujoco/hopper-v4-medium-expert"."""
        return self.name.partition("/")[2].partition("-")[0]

    @property
    def quality(self) -> str:
        """Of the data: "medium-expert" of "mujoco/hopper-v4-medium-expert"; "" where the name says none."""
        return self.name.partition("/")[2].partition("-")[2].removeprefix("v4-")

    @property
    def has_references(self) -> bool:
        """Whether scores are normalized by reference policies, rather than raw returns."""
        return (self.random_score, self.expert_score) != (0.0, 100.0)

    @property
    def remarks(self) -> list[str]:
        """What readers of the task's numbers have to know, a line each."""
        remarks = []
        if not self.has_references:
            remarks.append(f"{self.name} has no reference scores: every score is the raw return")
        if not self.published_settings:
            remarks.append(f"no settings are published for {self.name}: those of this run are this package's choice")
        return remarks
