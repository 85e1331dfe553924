"""The parts of a run that never change while it lasts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from o2o_jax.interfaces import Algorithm, Online, Reference, Requires, Task
from o2o_jax.types import Spec


@dataclasses.dataclass(frozen=True)
class Setup:
    """A method with its settings, on a task, for some seeds, on some devices.

    Attributes:
      algorithm: pure functions of one seed.
      config: its settings.
      task: with the environment's sizes and the reference scores; or its sizes alone, where nothing is played.
      seeds: S seeds; each draws the same numbers alone as among others.
      mesh: devices.
      dataset_rows: N of the dataset, for replay that keeps something of every row; 0 without one.
    """

    algorithm: Algorithm
    config: Any
    task: Task | Spec
    seeds: Sequence[int]
    mesh: Mesh
    dataset_rows: int = 0

    @property
    def spec(self) -> Spec:
        """Sizes of observations and actions."""
        return self.task.spec if isinstance(self.task, Task) else self.task

    def score(self, returns: Any) -> Any:
        """Returns normalised scores of undiscounted returns [...], `Task.score`.

        Raises:
          ValueError: there is no task.
        """
        if not isinstance(self.task, Task):
            raise ValueError(f"{self.algorithm.name} needs a task to normalise scores")
        return self.task.score(returns)

    @property
    def online(self) -> Online:
        """Part of the method that acts in the environment.

        Raises:
          ValueError: nothing, it is an offline method.
        """
        if self.algorithm.online is None:
            raise ValueError(f"{self.algorithm.name} is an offline method, which takes no environment step")
        return self.algorithm.online

    @property
    def requires(self) -> Requires:
        """Demands of the method on the policy that it starts from.

        Raises:
          ValueError: none, it is an offline method.
        """
        if self.algorithm.requires is None:
            raise ValueError(f"{self.algorithm.name} is an offline method, which starts from no policy")
        return self.algorithm.requires

    def head_of(self, policy: Any) -> str:
        """Returns the head of the policy that goes online: that of `policy`, or of its clone."""
        return self.requires.head or policy.head

    @property
    def reference(self) -> Reference | None:
        """Part of the method that deals with π_ref; None where it has none."""
        return self.online.reference

    @property
    def rolls_back(self) -> bool:
        """True where a policy that is worse than π_ref goes back to it."""
        return self.reference is not None and self.config.roll_back.enabled

    def aligned_reference(self, accept: Any) -> Any:
        """Returns [S] bool, where the first π_ref is the aligned policy, which `accept` [S] says scored better."""
        return self.config.aligned_reference(accept) if self.reference is not None else accept
