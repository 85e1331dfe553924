"""Methods to come, as far as the interface goes: their states and pieces in types, without their computations.

Mypy checks that each piece is what its field takes, `test_sketches.py` that they make algorithms which the runtime can
begin. CONTRIBUTING says which piece goes where, and why.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax.numpy as jnp

from o2o_jax.data import replay
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Algorithm, Online, Replay, Requires, Schedule
from o2o_jax.networks import HEADS
from o2o_jax.policy import Handoff, Policy
from o2o_jax.types import Array, History, Metrics, Params, Spec, Transition, counter

BATCH, CAPACITY, CONTEXT = 8, 100, 4


@flax.struct.dataclass
class State:
    """State of a sketch; a real one has optimisers and targets beside these."""

    actor: Params
    critic: Params
    normalizer: Normalizer
    step: Array = counter()


def fresh(spec: Spec, key: Array, start: Handoff | Normalizer | None) -> State:
    """Returns random networks, with the normaliser of what they start from."""
    normalizer = start if isinstance(start, Normalizer) else Normalizer.identity(spec.observation_dim)
    params = HEADS["tanh_gaussian"](spec.action_dim, (4,)).init(key, jnp.zeros((1, spec.observation_dim)))
    return State(params, {"w": jnp.zeros(3)}, normalizer, jnp.zeros((), jnp.int32))


def policy(spec: Spec, state: State) -> Policy:
    """Returns the actor as a policy."""
    return Policy(state.actor, state.normalizer, HEADS["tanh_gaussian"](spec.action_dim, (4,)))


def update(state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """Moves the networks."""
    del key
    return state.replace(step=state.step + 1), {"loss": jnp.mean(batch.reward)}  # type: ignore[attr-defined]


def begin(state: State, accept: Array) -> State:
    """Begins fine-tuning; no aligned actor is to be accepted."""
    del accept
    return state.replace(step=jnp.zeros((), jnp.int32))  # type: ignore[attr-defined]


def act(state: State, memory: Any, observation: Array, reward: Array, key: Array) -> tuple[Array, Any]:
    """Acts without a memory."""
    del reward, key
    return jnp.zeros(2) + 0.0 * observation[0] * state.step, memory


def whole_episodes() -> Replay:
    """Returns a rule that keeps whole episodes, here the latest rows."""
    return replay.make("none", CAPACITY, BATCH)


def online_dt(spec: Spec) -> Algorithm:
    """Returns Online DT (Zheng et al., arXiv:2202.05607): `memory` is the episode's history; updates come in rounds."""

    def memory() -> History:
        rows, numbers = jnp.zeros((CONTEXT, spec.observation_dim)), jnp.zeros(CONTEXT)
        return History(rows, jnp.zeros((CONTEXT, spec.action_dim)), numbers, numbers)

    def remember(
        state: State, history: History, observation: Array, reward: Array, key: Array
    ) -> tuple[Array, History]:
        action, _ = act(state, (), observation, reward, key)
        return action, History(
            jnp.roll(history.observation, -1, axis=0).at[-1].set(observation),
            jnp.roll(history.action, -1, axis=0).at[-1].set(action),
            jnp.roll(history.return_to_go, -1).at[-1].set(history.return_to_go[-1] - reward),
            jnp.roll(history.valid, -1).at[-1].set(1.0),
        )

    return Algorithm(
        "odt",
        lambda key, start: fresh(spec, key, start),
        (),
        lambda state: policy(spec, state),
        requires=Requires(None, state=True, sources=("dt",)),
        online=Online(Schedule(env_steps=6, updates=3), begin, remember, update, whole_episodes(), memory=memory),
    )


ONLINE: dict[str, Callable[[Spec], Algorithm]] = {
    "odt": online_dt,
}
