"""Plan of a run: a job, read and checked."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from o2o_jax.data.dataset import Dataset
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Task
from o2o_jax.policy import CloneConfig, Handoff, clone_init
from o2o_jax.runtime import seeds
from o2o_jax.runtime.events import Event
from o2o_jax.runtime.run import Run, start_seed
from o2o_jax.runtime.setup import Setup
from o2o_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Phases that another run has made.

    Attributes:
      stage: `run.stage_of` after them, seeds stacked [S], as numpy arrays.
      events: rows of its logs, to be written again.
      clone: the run of its cloning at its end, as numpy arrays; None where nothing was cloned.
    """

    stage: dict[str, Any]
    events: tuple[Event, ...] = ()
    clone: Run | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that `train` needs.

    Attributes:
      setup: of the run.
      dataset: what phases learn from and replay draws from; None for a run without data.
      start: of an online method what offline training left, a `Handoff` with seeds stacked [S] as numpy arrays, or None
        from scratch; of an offline one nothing.
      clone: settings of cloning; None where the policy goes online as it is.
      reconstruction: () -> what another run has made, read when it is needed; None where the run makes its phases
        itself.
      envs: vector environment [S] to fine-tune in; None where it takes no step.
      evaluator: of `evaluate.make_evaluator`; None where nothing is evaluated.
      eval_every: updates of phases between evaluations; 0 for none but that of an offline method at its end.
      eval_sampled: evaluate samples of the policy too, beside its modes, while phases run.
      checkpoint_every: environment steps between checkpoints.
      settings: JSON-like, all that the run follows from, for its config.json.
      warnings: for people who read its numbers, a line each.
    """

    setup: Setup
    dataset: Dataset | None = None
    start: Handoff | None = None
    clone: CloneConfig | None = None
    reconstruction: Callable[[], Reconstruction] | None = None
    envs: Any = None
    evaluator: Any = None
    eval_every: int = 0
    eval_sampled: bool = False
    checkpoint_every: int = 1
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def work(self) -> dict[str, int]:
        """Updates by phase and environment steps, per seed; nothing that is left out."""
        work = {"updates of clone": self.clone.updates if self.clone else 0}
        work |= {f"updates of {phase.name}": phase.updates for phase in self.setup.algorithm.phases}
        work |= {"environment steps": self.setup.config.env_steps if self.setup.algorithm.online else 0}
        return {what: count for what, count in work.items() if count}

    @property
    def position(self) -> int:
        """`Run.position` of the run at its end."""
        online = self.setup.algorithm.online is not None
        return self.setup.algorithm.offline_updates + (1 + self.setup.config.env_steps if online else 0)

    @property
    def episodes(self) -> int:
        """Episodes of a seed in an evaluation; 0 for none."""
        if not isinstance(self.setup.task, Task):  # sizes alone: nothing is played
            return 0
        if self.setup.algorithm.online is None:
            return self.settings.get("eval_episodes", 0)
        return self.setup.config.evaluation.episodes

    def shapes(self) -> Run:
        """Returns the shapes of one seed's run.

        Raises:
          ValueError: a phase needs held-out episodes that aren't there, or the algorithm refuses the start.
        """
        algorithm, dataset = self.setup.algorithm, self.dataset
        if dataset is not None and any(phase.stop for phase in algorithm.phases) and len(dataset.episode_ends) < 2:
            raise ValueError(
                f"early_stopping holds out episodes, but {dataset.name} is a single one: set "
                "early_stopping.mode=updates and early_stopping.critic_report=false"
            )
        if algorithm.online is None:
            start = Normalizer.identity(self.setup.spec.observation_dim)
            return jax.eval_shape(lambda key: start_seed(self.setup, key, start), jax.random.key(0))
        if self.start is None:
            return jax.eval_shape(lambda key: start_seed(self.setup, key, None), jax.random.key(0))
        head = self.setup.head_of(self.start.policy)

        def begin(key: Array, handoff: Handoff) -> Run:
            if self.clone:
                handoff = handoff.replace(policy=clone_init(self.clone, head, key, handoff.policy).student)
            return start_seed(self.setup, key, handoff)

        return jax.eval_shape(begin, jax.random.key(0), seeds.take(self.start, 0))
