"""The advantage of AWAC; the losses themselves are `o2o_jax.losses.td_loss` and `weighted_likelihood_loss`."""

from o2o_jax import networks
from o2o_jax.losses import lowest_value
from o2o_jax.types import Array, Params


def advantage(
    critic_params: Params, critic: networks.Critic, observation: Array, action: Array, own_action: Array
) -> Array:
    """Returns the advantage of the data's action over one of the policy's own.

        A(s, a) = min_i Q_i(s, a) − min_i Q_i(s, a_π),   a_π ~ π(·|s)

    Args:
      critic_params: parameters with a leading axis E.
      critic: ensemble network.
      observation: [B, O] normalised.
      action: [B, A] of the batch.
      own_action: [B, A] a sample of the policy: the one by which V(s) is estimated.

    Returns:
      [B] advantages, in return units.

    Source: Nair et al. (arXiv:2006.09359), which leave open how V(s) is estimated; one sample is CORL's way.
    """
    value = lowest_value(critic_params, critic, observation, own_action)
    return lowest_value(critic_params, critic, observation, action) - value
