"""WSRL: what offline training left goes on, without its data: RLPD's steps on O2SAC's state."""

import functools
from typing import Any

import jax

from o2o_jax import making
from o2o_jax.interfaces import Algorithm
from o2o_jax.losses import lowest_value
from o2o_jax.online import common, o2sac, rlpd
from o2o_jax.online.o2sac import State
from o2o_jax.online.rlpd.algorithm import Networks, actor_step, critic_step
from o2o_jax.online.wsrl.config import Config
from o2o_jax.policy import Handoff
from o2o_jax.types import Array, Metrics, Spec, Transition


def make_networks(config: Any, spec: Spec) -> Networks:
    """Makes O2SAC's networks and optimisers, as far as RLPD's steps need them, of settings with `of_o2sac`."""
    nets = o2sac.algorithm.make_networks(config.of_o2sac(), spec)
    return Networks(
        actor=nets.actor,
        critic=nets.critic,
        drawn_critics=nets.critic.clone(num_critics=config.networks.num_target_critics),
        actor_optimizer=nets.actor_optimizer,
        critic_optimizer=nets.critic_optimizer,
        alpha_optimizer=nets.alpha_optimizer,
        spec=spec,
    )


def init(start: Algorithm, config: Config, key: Array, handoff: Handoff | None = None) -> State:
    """Makes the state before the first phase, or the first environment step: that of offline training.

    Args:
      start: O2SAC, with the networks and phases of these settings.
      config: settings.
      key: initialises what the handoff doesn't bring.
      handoff: with a tanh-Gaussian policy and the critics of offline training; None for random networks.

    Returns:
      A `State`. Where critics are kept as they are, Adam's moments stay with them; those of actor and temperature too
      where the offline method trained the same.

    Raises:
      ValueError: as O2SAC, if the policy's head or sizes differ, or there are no such critics.
    """
    state = start.init(key, handoff)
    if handoff is None or config.networks.critic_source == "random" or start.phases:
        return state
    return state.replace(opt=common.carried(state.opt, handoff.state.opt))


def finetune(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """Steps the critics on one part of the batch after the other, then actor and temperature once on all of it.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B], B a multiple of `update.critic_steps`.
      key: draws the critics of the targets, and the actions at s' and s.

    Returns:
      The state, and metrics; those of the critics are means over their steps.

    Source: Zhou et al. (arXiv:2412.07762), and its authors' code.
    """
    batch = state.transform(batch)
    critic_key, actor_key = jax.random.split(key)
    steps = config.update.critic_steps
    parts = jax.tree.map(lambda leaf: leaf.reshape(steps, -1, *leaf.shape[1:]), batch)

    def step(state: State, part: tuple[Transition, Array]) -> tuple[State, Metrics]:
        return critic_step(nets, config, state, *part)

    state, metrics = jax.lax.scan(step, state, (parts, jax.random.split(critic_key, steps)))
    state, actor_metrics = actor_step(
        nets, state, batch.observation, actor_key, lowest_value, -float(nets.spec.action_dim)
    )
    return state.replace(step=state.step + 1), jax.tree.map(lambda values: values.mean(), metrics) | actor_metrics


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    start = o2sac.make(config.of_o2sac(), spec)
    assert start.online is not None
    return start._replace(
        name="wsrl",
        init=functools.partial(init, start, config),
        online=start.online._replace(
            begin=start.online.begin if start.phases else rlpd.algorithm.begin,
            update=functools.partial(finetune, make_networks(config, spec), config),
            replay=config.replay.rule(config.env_steps, config.update.batch_size),
        ),
    )
