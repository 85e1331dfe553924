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
from o2o_jax.networks.critics import Critic, Critics, QNetwork, Value, append_inputs, critic_settings, shift_output
from o2o_jax.networks.transformer import DecisionTransformer

__all__ = [
    "HEADS",
    "Actor",
    "Critic",
    "Critics",
    "DecisionTransformer",
    "DeterministicActor",
    "FreeGaussianActor",
    "GaussianActor",
    "QNetwork",
    "TanhGaussianActor",
    "Value",
    "append_inputs",
    "cap_std",
    "critic_settings",
    "scale_output",
    "shift_output",
]
