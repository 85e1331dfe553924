"""Loss of IQL's values; that of its critics is `o2o_jax.losses.td_loss`, of its actor `weighted_likelihood_loss`."""

from o2o_jax import networks
from o2o_jax.ops.regression import expectile_loss
from o2o_jax.types import Array, Params


def value_loss(
    value_params: Params, value: networks.Value, observation: Array, q: Array, expectile: float
) -> tuple[Array, Array]:
    """Regresses the value on those of the data's actions, by their expectile.

        mean |κ − 𝟙(u < 0)| u²,   u = min_i Q̄_i(s, a) − V(s)

    Args:
      value_params: differentiated.
      value: network.
      observation: [B, O] normalised.
      q: [B] target-critic values of the batch's actions, constant.
      expectile: κ in (0, 1).

    Returns:
      [] loss, and the values [B] that it was taken at.

    Source: Kostrikov et al. (arXiv:2110.06169), Eq. (5).
    """
    v = value.apply(value_params, observation)
    return expectile_loss(v, q, expectile), v
