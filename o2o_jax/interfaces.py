"""What an algorithm and an environment family owe the rest of the package."""

import dataclasses
from collections.abc import Callable
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
    """

    env_steps: int = 1
    updates: int = 1
    source: Literal["replay", "rollout"] = "replay"
    warmup_env_steps: int = 0
    random_env_steps: int = 0


class OfflineAlgorithm(NamedTuple):
    """An offline method as pure functions, not yet jitted.

    Attributes:
      init: (key, normalizer) -> state.
      update: (state, batch, key) -> (state, metrics), one gradient step on a `Transition` batch [B].
      handoff: (state) -> `policy.Handoff`, the only way out.
    """

    init: Callable
    update: Callable
    handoff: Callable


class OnlineAlgorithm(NamedTuple):
    """An online method as pure functions, not yet jitted.

    Attributes:
      head: distribution that `init` expects of a policy: "deterministic", "gaussian" or "tanh_gaussian".
      cadence: environment steps and updates per round of fine-tuning.
      init: (key, handoff) -> state, the only way in. `handoff` None starts from random networks.
      reevaluate: (state, batch, key) -> (state, metrics), section 4.1.
      align: (state, batch, key) -> (state, metrics), section 4.2.
      begin_finetuning: (state, accept) -> state, once. `accept` [] bool: did the aligned actor score better?
      finetune: (state, batch, key) -> (state, metrics), section 4.3, on what `cadence.source` says.
      set_reference: (state, accept) -> state; the actor becomes π_ref where `accept` [] bool.
      act: (state, observation [O], key) -> action [A], with exploration.
      policy: (state) -> `policy.Policy`: evaluate it, save it, or start from it again.
      prepare: (phase, state, dataset) -> (state, notes), before the phase "reevaluate" or "align". It sees the dataset
        whole, as a `types.Rollout` [N], and writes `types.Notes` on every row; the phase's batches then are
        `types.Annotated`. A resumed phase is prepared again: what comes out may depend only on parts of the state that
        the phase leaves alone. None where an algorithm needs rows alone.
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
    act: Callable
    policy: Callable
    prepare: Callable | None = None
    reads_handoff_state: bool = False


@dataclasses.dataclass(frozen=True)
class Task:
    """Facts about one dataset and the environment that it came from. Algorithms read them in `Config.for_task`.

    Attributes:
      name: "<family>/<robot>-<quality>", as `--env` takes it: "mujoco/hopper-medium".
      env_id: gymnasium id of the environment, "Hopper-v5".
      spec: sizes of observation and action.
      max_episode_steps: time limit in environment steps; reaching it truncates, it never terminates.
      dataset_id: local Minari id that the family's `load_dataset` reads, "o2o/hopper/medium-v0".
      expert_data: whether the data is of expert quality (medium-expert and expert; LOCO-E of the paper).
      random_score: mean return of the random reference policy: 0 normalized points.
      expert_score: mean return of the expert reference policy: 100 normalized points.
    """

    name: str
    env_id: str
    spec: Spec
    max_episode_steps: int
    dataset_id: str
    expert_data: bool
    random_score: float
    expert_score: float

    def __post_init__(self) -> None:
        if self.expert_score <= self.random_score:
            raise ValueError(f"expert_score must exceed random_score, got {self}")

    def score(self, returns: Any) -> Any:
        """Normalized score 100 (return − random) / (expert − random) of undiscounted returns [...] (D4RL)."""
        return 100.0 * (returns - self.random_score) / (self.expert_score - self.random_score)
