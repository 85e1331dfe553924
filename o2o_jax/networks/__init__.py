"""Actors and critics: the only folder that imports `flax.linen`."""

from o2o_jax.networks.actors import (
    HEADS,
    Actor,
    DeterministicActor,
    FreeGaussianActor,
    GaussianActor,
    MixtureActor,
    TanhGaussianActor,
    cap_std,
    scale_output,
)
from o2o_jax.networks.critics import (
    Critic,
    Critics,
    HistogramCritics,
    QNetwork,
    Value,
    append_inputs,
    critic_settings,
    near_constant,
    shift_output,
)
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
    "HistogramCritics",
    "MixtureActor",
    "QNetwork",
    "TanhGaussianActor",
    "Value",
    "append_inputs",
    "cap_std",
    "critic_settings",
    "near_constant",
    "scale_output",
    "shift_output",
]
