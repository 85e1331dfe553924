"""ReBRAC: the update of TD3+BC, with a penalty in the targets too, and the lower of two critics for the actor."""

import functools
from typing import Any

import flax.struct
import jax.numpy as jnp

from o2o_jax import making
from o2o_jax.interfaces import Algorithm
from o2o_jax.losses import lowest_value
from o2o_jax.offline import td3_bc
from o2o_jax.offline.rebrac import losses
from o2o_jax.offline.rebrac.config import Config
from o2o_jax.offline.td3_bc import State
from o2o_jax.offline.td3_bc.algorithm import Networks, bind, make_networks
from o2o_jax.types import Annotated, Array, Extras, Metrics, Params, Rollout, Spec, Transition

__all__ = ["NextAction", "State", "actor_loss", "make", "penalty", "prepare"]


@flax.struct.dataclass
class NextAction:
    """Action of the dataset at every row's s'.

    Attributes:
      action: [..., A] a'; any where it isn't known.
      known: [...] float32, 1 where the next row goes on with the episode, else 0.
    """

    action: Array
    known: Array


def prepare(state: Any, dataset: Rollout) -> tuple[Any, Extras]:
    """Writes beside every row of a dataset [N] what was done next.

    Args:
      state: before or within the phase.
      dataset: rows [N] in their order.

    Returns:
      The same state, and a `NextAction` [N] as extras that all seeds share.
    """
    ended = dataset.ended.at[-1].set(1.0)
    return state, Extras(shared=NextAction(jnp.roll(dataset.action, -1, axis=0), 1.0 - ended))


def penalty(config: Config, batch: Transition, action: Array) -> Array:
    """Returns `losses.distance_penalty` [B] of target actions [B, A] at a batch's s'.

    Raises:
      ValueError: the batch is of rows that `prepare` has not annotated.
    """
    if not isinstance(batch, Annotated):
        raise ValueError(
            "rebrac learns from the data's next actions, which plain rows lack: annotate the dataset by the phase's "
            "prepare(state, dataset.rollout())"
        )
    following = batch.extras.shared
    return losses.distance_penalty(action, following.action, following.known, config.critic_penalty)


def actor_loss(
    actor_params: Params, nets: Networks, config: Config, critic_params: Params, batch: Transition
) -> tuple[Array, Metrics]:
    """Computes TD3+BC's loss by the lower critic, the distance summed over the dimensions.

        β₁ mean ‖π(s) − a‖²  −  mean min_i Q_i(s, π(s)) / mean |min_i Q_i(s, π(s))|

    Args:
      actor_params: differentiated.
      nets: of TD3+BC, with LayerNorm in the critics.
      config: settings.
      critic_params: parameters with a leading axis E = 2, constant.
      batch: transformed transitions [B].

    Returns:
      [] loss, and metrics.

    Source: Tarasov et al. (arXiv:2305.09836), and its authors' code, which scales Q so.
    """
    weight = config.actor_penalty * nets.spec.action_dim  # the sum over dimensions of what the loss takes the mean of
    value = functools.partial(lowest_value, critic_params, nets.critic)
    return td3_bc.losses.actor_loss(actor_params, nets.actor, value, batch.observation, batch.action, 1.0, weight)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets = make_networks(config, spec, layer_norm=True, layer_init="fan_in")
    return bind("rebrac", nets, config, actor_loss, penalty, prepare)
