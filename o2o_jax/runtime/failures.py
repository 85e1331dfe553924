"""Seeds that fail while the others go on: each ends with its last good state."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from o2o_jax.runtime.run import Run
from o2o_jax.runtime.seeds import over_seeds
from o2o_jax.runtime.selection import rolled_back
from o2o_jax.runtime.setup import Setup
from o2o_jax.training import is_finite, where
from o2o_jax.types import Array

DIVERGED = "its networks have become NaN or infinite: lower the learning rates"


class Guard:
    """Keeps the last good state of every seed of a fine-tuning run, to which a seed that fails returns. Impure.

    A failed seed is computed along with the others, since all are one program, and what comes of it is thrown away.

    Args:
      setup: of the run.
      run: whose states are good.
    """

    def __init__(self, setup: Setup, run: Run) -> None:
        self._seeds = setup.seeds
        self._settle = over_seeds(functools.partial(_settled, setup), setup.mesh, donate=(0, 1))
        self._copy = over_seeds(lambda agent: jax.tree.map(jnp.copy, agent), setup.mesh)
        self.keep(run)

    def keep(self, run: Run) -> None:
        """Takes the states of a run as good."""
        self._good = self._copy(run.agent)

    def settle(self, run: Run, reasons: Mapping[int, str]) -> tuple[Run, tuple[str, ...]]:
        """Ends the seeds that have failed; one that only its actor has left goes back to π_ref, if its run rolls back.

        Args:
          run: amid fine-tuning. Consumed.
          reasons: place among the seeds -> why its environment has failed.

        Returns:
          The run, every state of which is finite, and a line on each seed that has failed or gone back since.

        Raises:
          ValueError: no seed is left.
        """
        before, env_steps = np.asarray(run.failed), int(run.env_steps)
        struck = np.isin(np.arange(len(before)), list(reasons))
        agent, memory, failed, back = self._settle(run.agent, run.memory, self._good, before | struck)
        run = run.replace(agent=agent, memory=memory, failed=failed)
        news = {self._seeds[s]: reasons.get(s, DIVERGED) for s in _places(np.asarray(failed) & ~before)}
        if np.asarray(failed).all():
            seed, reason = next(iter(news.items()))
            raise ValueError(f"no seed is left after {env_steps:,} environment steps: seed {seed} has failed: {reason}")
        lines = [ended(seed, f"{env_steps:,} environment steps", reason) for seed, reason in news.items()]
        lines += [
            f"seed {self._seeds[s]}: its actor has become NaN or infinite within {env_steps:,} environment steps, and "
            "goes back to the reference policy"
            for s in _places(back)
        ]
        return run, tuple(lines)


def ended(seed: int, after: str, reason: str) -> str:
    """Returns the line on a seed that has failed.

    Args:
      seed: its number.
      after: how far it came, "1,000 updates".
      reason: why.
    """
    return f"seed {seed} ends with its last good state after {after}, the others go on: {reason}"


def diverged(seed_list: Sequence[int], before: ArrayLike, failed: ArrayLike, after: str) -> tuple[str, ...]:
    """Returns a line on each seed that has failed in a phase.

    Args:
      seed_list: numbers of the seeds.
      before: [S] bool, which had failed before.
      failed: [S] bool, which have now.
      after: as of `ended`.
    """
    news = _places(np.asarray(failed) & ~np.asarray(before))
    return tuple(ended(seed_list[s], after, DIVERGED) for s in news)


def summary(seed_list: Sequence[int], failed: ArrayLike) -> tuple[str, ...]:
    """Returns a line on the seeds that have failed, for the end of a run; none where there are none."""
    numbers = [str(seed_list[s]) for s in _places(failed)]
    which = f"seed {numbers[0]} has" if len(numbers) == 1 else f"the seeds {', '.join(numbers)} have"
    return (f"note: {which} failed: their last good states are kept, and their rows are NaN since",) if numbers else ()


def blank(rows: Mapping[str, Mapping[str, Any]], failed: np.ndarray) -> dict[str, dict[str, Any]]:
    """Returns rows of logs with NaN in place of what is measured of failed seeds.

    Args:
      rows: log -> metric -> [S].
      failed: [S] bool.
    """
    if not failed.any():
        return {log: dict(metrics) for log, metrics in rows.items()}
    return {
        log: {name: np.where(failed, np.nan, np.asarray(values, np.float64)) for name, values in metrics.items()}
        for log, metrics in rows.items()
    }


def _places(which: ArrayLike) -> list[int]:
    return np.flatnonzero(np.asarray(which)).tolist()


def _settled(setup: Setup, agent: Any, memory: Any, good: Any, failed: Array) -> tuple[Any, Any, Array, Array]:
    """State and memory of one seed, whether it has failed, and whether its actor has just gone back to π_ref."""
    finite = is_finite(agent)
    mended, may_go_back = agent, jnp.zeros((), bool)
    if setup.reference is not None and setup.rolls_back:
        mended = rolled_back(setup.reference.roll_back, agent)
        may_go_back = is_finite(mended)
    failed = failed | ~(finite | may_go_back)
    settled = where(failed, good, where(finite, agent, mended)).replace(step=agent.step)
    assert setup.online is not None
    memory = where(failed | ~is_finite(memory), setup.online.memories(), memory)
    return settled, memory, failed, ~failed & ~finite
