"""The decision transformer: an episode's last steps in, a distribution over the action at each of them out."""

import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from o2o_jax.networks.mlp import dense, zeros
from o2o_jax.ops.distributions import TanhGaussian
from o2o_jax.types import Array, History

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
LAYER_NORM_EPS = 1e-5  # PyTorch's
TOKENS = 3  # per step: what is still to come, what is seen, what is done


def _linear(width: int) -> nn.Dense:
    """A linear layer of a block, initialised as GPT-2's are."""
    return nn.Dense(width, kernel_init=nn.initializers.normal(0.02), bias_init=zeros)


class Block(nn.Module):
    """A GPT-2 block with its normalisation in front: tokens [..., L, W] to tokens [..., L, W].

        x ← x + attention(LN(x)),   x ← x + W₂ relu(W₁ LN(x)),   hidden width 4 W

    Attributes:
      heads: of the attention; they divide W.
      dropout: share of the attention's weights and of what either branch adds that is set to 0 in training.
    """

    heads: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, mask: Array, deterministic: bool) -> Array:
        """Maps tokens [..., L, W] to [..., L, W]; `mask` [..., L, L]: may the row's token look at the column's?"""
        drop = lambda values: nn.Dropout(self.dropout)(values, deterministic=deterministic)
        width = x.shape[-1]
        joint = _linear(3 * width)(
            nn.LayerNorm(epsilon=LAYER_NORM_EPS)(x)
        )  # one weight for all three, as LAMB scales by weight
        query, key, value = (
            part.reshape(*part.shape[:-1], self.heads, -1) for part in jnp.split(joint, 3, axis=-1)
        )  # [..., L, heads, W / heads]
        logits = jnp.einsum("...qhd,...khd->...hqk", query, key) / math.sqrt(query.shape[-1])
        # a finite number: padding in front of all else sees nothing, and would be NaN
        logits = jnp.where(mask[..., None, :, :], logits, jnp.finfo(logits.dtype).min)
        attended = jnp.einsum("...hqk,...khd->...qhd", drop(jax.nn.softmax(logits)), value)
        x = x + drop(_linear(width)(attended.reshape(x.shape)))
        hidden = nn.relu(_linear(4 * width)(nn.LayerNorm(epsilon=LAYER_NORM_EPS)(x)))
        return x + drop(_linear(width)(hidden))


class DecisionTransformer(nn.Module):
    """Squashed normal over the action at every step, given the returns to go, the observations and the actions before.

    Three tokens a step, in the order (R̂_t, s_t, a_t); the action is read off that of s_t, which sees neither a_t nor
    what follows, and no padding. Nothing tells a token its place: the causal mask alone orders them.

        log σ = −5 + 3.5 (tanh(raw) + 1), in [−5, 2]

    Attributes:
      action_dim: A.
      width: W of the tokens.
      layers: blocks.
      heads: of the attention, which divide W.
      dropout: of the embedded tokens and in the blocks.

    Source: Zheng et al., Online Decision Transformer (arXiv:2202.05607), and its code.
    """

    action_dim: int
    width: int = 512
    layers: int = 4
    heads: int = 4
    dropout: float = 0.1
    head: ClassVar[str] = "sequence"

    @nn.compact
    def __call__(self, history: History, deterministic: bool = True) -> TanhGaussian:
        """Maps normalised histories [..., K] to a distribution over actions [..., K, A].

        With `deterministic` off `apply` needs `rngs={"dropout": key}`.
        """
        parts = (history.return_to_go[..., None], history.observation, history.action)
        embedded = [dense(self.width, part.shape[-1], "fan_in")(part) for part in parts]
        *batch, steps, _ = embedded[0].shape
        length = TOKENS * steps
        x = jnp.stack(embedded, axis=-2).reshape(*batch, length, self.width)
        x = nn.Dropout(self.dropout)(nn.LayerNorm(epsilon=LAYER_NORM_EPS)(x), deterministic=deterministic)
        causal = jnp.tril(jnp.ones((length, length), bool))
        valid = jnp.repeat(history.valid > 0, TOKENS, axis=-1)  # [..., L]
        mask = causal.reshape((1,) * len(batch) + causal.shape) & valid[..., None, :]
        for _ in range(self.layers):
            x = Block(self.heads, self.dropout)(x, mask, deterministic)
        x = nn.LayerNorm(epsilon=LAYER_NORM_EPS)(x)
        seen = x.reshape(*batch, steps, TOKENS, self.width)[..., 1, :]  # [..., K, W]
        mean = dense(self.action_dim, self.width, "orthogonal")(seen)
        raw = dense(self.action_dim, self.width, "orthogonal")(seen)
        half_range = 0.5 * (LOG_STD_MAX - LOG_STD_MIN)
        return TanhGaussian(mean, LOG_STD_MIN + half_range * (jnp.tanh(raw) + 1.0))
