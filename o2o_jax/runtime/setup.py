"""What a run is made of and never changes while it lasts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from o2o_jax.interfaces import Algorithm, Online, Reference, Task
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
    """

    algorithm: Algorithm
    config: Any
    task: Task | Spec
    seeds: Sequence[int]
    mesh: Mesh

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
            raise ValueError(f"{self.algorithm.name} has no task here, whose scores could be told")
        return self.task.score(returns)

    @property
    def online(self) -> Online:
        """What the method does in the environment.

        Raises:
          ValueError: nothing, it is an offline method.
        """
        if self.algorithm.online is None:
            raise ValueError(f"{self.algorithm.name} is an offline method, which takes no environment step")
        return self.algorithm.online

    @property
    def reference(self) -> Reference | None:
        """How the method deals with π_ref; None where it has none."""
        return self.online.reference

    @property
    def rolls_back(self) -> bool:
        """Whether a policy that is worse than π_ref goes back to it."""
        return self.reference is not None and self.config.roll_back
