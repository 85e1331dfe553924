"""Looks at the policy now and then: it becomes π_ref, or goes back to it. Impure: evaluates."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.runtime.evaluate import CONFIRMATION_STREAM, policy_episodes
from o2o_jax.runtime.reference import Comparison, Decision
from o2o_jax.runtime.run import Run, count_evaluation
from o2o_jax.runtime.seeds import over_seeds, place
from o2o_jax.runtime.setup import Setup

Play = Callable[..., tuple[np.ndarray, np.ndarray]]  # as of `evaluate.policy_episodes`


class Selection:
    """The rule of a run by which policies become π_ref or go back to it, compiled once.

    Args:
      setup: with a method that has a π_ref.
      evaluator: as of `loop.fine_tune`.
      play: plays the current policy's episodes.
    """

    def __init__(self, setup: Setup, evaluator: Callable | None, play: Play) -> None:
        reference = setup.reference
        assert reference is not None
        self._setup, self._evaluator, self._play = setup, evaluator, play
        self._divergence_term = reference.divergence_term
        self._play_reference = policy_episodes(reference.policy, setup.seeds, setup.mesh)
        self._accept = over_seeds(reference.accept, setup.mesh, donate=(0,))
        self._roll_back = over_seeds(reference.roll_back, setup.mesh, donate=(0,))

    def look(
        self,
        run: Run,
        evaluated: np.ndarray | None,
        score: np.ndarray | None,
        finished: list[list[float]],
        means: Mapping[str, np.ndarray],
    ) -> tuple[Run, dict[str, np.ndarray]]:
        """Looks at the current policy.

        Args:
          run: after an evaluation, if there is one. Consumed.
          evaluated: its returns [S, E], or None.
          score: [S] of them, or None.
          finished: returns of the training episodes since the last look, S lists.
          means: [S] metrics of the updates since then.

        Returns:
          The run with what was found, and with π_ref and actor where they now are; a row of the log `reference`, empty
          where returns don't settle it.
        """
        run, decision, row = self._consider(run, evaluated, score, finished)
        if decision.accept.any():
            run = run.replace(agent=self._accept(run.agent, decision.accept))
        if decision.roll_back.any():
            unknown = np.full(len(decision.roll_back), np.nan)
            divergence = means.get(self._divergence_term, unknown).astype(np.float32)
            run = run.replace(agent=self._roll_back(run.agent, decision.roll_back, divergence))
        return run, row

    def _consider(
        self,
        run: Run,
        evaluated: np.ndarray | None,
        score: np.ndarray | None,
        finished: list[list[float]],
    ) -> tuple[Run, Decision, dict[str, np.ndarray]]:
        """The run with what was found on the way, the decision, and a row of the log; arguments as of `look`."""
        config, mesh, alive = self._setup.config, self._setup.mesh, ~np.asarray(run.failed)
        env_steps, best_score = int(run.env_steps), np.asarray(run.best_score)
        row: dict[str, np.ndarray] = {}
        comparison = None
        if config.reference.update == "interval":
            evaluations = env_steps // config.evaluation.every_env_steps
            accept = np.full(best_score.shape, evaluations % config.reference.every_evaluations == 0)
        elif config.reference.update == "returns":
            returns = run.returns.replace(recent=run.returns.recent.add(finished))
            comparison = returns.compare(config.reference.min_episodes)
            accept, considered = returns.consider(config.reference.min_episodes, config.reference.standard_errors)
            row |= returns.metrics(accept)
            run = run.replace(returns=place(considered, mesh))
        elif run.standing is not None:
            assert evaluated is not None
            assert run.standing.returns is not None
            comparison = Comparison.paired(evaluated, run.standing.returns)
            accept = comparison.better(config.reference.standard_errors)
        else:
            accept = score > best_score
        accept &= alive
        decision = Decision(accept, *np.zeros((2, *accept.shape), bool))
        if run.standing is not None and comparison is not None:
            comparison = comparison._replace(made=comparison.made & alive)
            decision, standing = run.standing.judge(config, comparison, accept)
            if config.reference.update == "best":
                run, decision, confirmed = self._confirm(run, decision)
                row |= {"accepted": decision.accept, "confirmed": confirmed}
            if evaluated is not None:
                standing = standing.evaluated(decision.accept, evaluated)
            row |= {"rejected": decision.reject, "rolled_back": decision.roll_back}
            row |= {"difference": comparison.difference, "difference_error": comparison.error}
            run = run.replace(standing=place(standing, mesh))
        return run, decision, row

    def _confirm(self, run: Run, decision: Decision) -> tuple[Run, Decision, np.ndarray]:
        """Lets fresh start states agree to what makes a policy π_ref or sends it back.

        The luckiest of many looks from the same start states would pass. And a π_ref that was lucky there would send
        all others back: where episodes are chaotic, a policy that hardly differs lacks its luck. Fresh ones know of
        neither.

        Args:
          run: after the look from the usual start states.
          decision: of that look.

        Returns:
          The run with the steps counted, the final decision, and [S] 1 or 0 where it was confirmed or not, else
          NaN.
        """
        asked = decision.accept | decision.roll_back
        if not asked.any():
            return run, decision, np.full(asked.shape, np.nan)
        run, again = self._play_again(run, asked)
        config = self._setup.config
        better = again.better(config.reference.standard_errors)
        worse = again.worse(config.reference.standard_errors, config.roll_back.share)
        decision = decision._replace(accept=decision.accept & better, roll_back=decision.roll_back & worse)
        return run, decision, np.where(asked, decision.accept | decision.roll_back, np.nan)

    def _play_again(self, run: Run, plays: np.ndarray) -> tuple[Run, Comparison]:
        """Policy against π_ref from fresh start states, for the seeds that play [S] bool; the steps are counted."""
        stream = CONFIRMATION_STREAM + int(run.env_steps)  # so that a resumed run starts from the same
        returns = []
        for play in (self._play, self._play_reference):
            played, lengths = play(self._evaluator, run.agent, stream=stream, plays=plays)
            run = count_evaluation(run, lengths)
            returns.append(played)
        return run, Comparison.paired(*returns)


def keep_best_score(run: Run, score: np.ndarray | None) -> Run:
    """Returns the run with the best score [S] that an evaluation has found."""
    if score is None:
        return run
    best = np.fmax(np.asarray(run.best_score), score).astype(np.float32)
    return run.replace(best_score=jax.device_put(best, run.best_score.sharding))


def rolled_back(roll_back: Callable, agent: Any) -> Any:
    """Returns one seed's state as if its policy had just been sent back to π_ref."""
    return roll_back(agent, jnp.asarray(True), jnp.asarray(jnp.nan))
