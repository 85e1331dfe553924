"""Actors and critics: the only folder that imports `flax.linen`."""

from o2o_jax.networks.actors import (
    HEADS,
    Actor,
    DeterministicActor,
    FreeGaussianActor,
    GaussianActor,
    TanhGaussianActor,
    cap_std,
    scale_output,
)
from o2o_jax.networks.critics import Critic, Value, critic_settings, make_critic
from o2o_jax.networks.transformer import DecisionTransformer

__all__ = [
    "HEADS",
    "Actor",
    "Critic",
    "DecisionTransformer",
    "DeterministicActor",
    "FreeGaussianActor",
    "GaussianActor",
    "TanhGaussianActor",
    "Value",
    "cap_std",
    "critic_settings",
    "make_critic",
    "scale_output",
]
