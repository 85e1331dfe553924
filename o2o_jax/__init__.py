"""Offline-to-online reinforcement learning: optimistic critic reconstruction and constrained fine-tuning."""

from o2o_jax import envs, offline, online
from o2o_jax.critic import QFunction
from o2o_jax.data.dataset import Dataset
from o2o_jax.data.replay import RingBuffer, insert, make_buffer, sample
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.diagnosis import Diagnosis, DiagnosisConfig, diagnose
from o2o_jax.interfaces import Cadence, OfflineAlgorithm, OnlineAlgorithm, Task
from o2o_jax.policy import CloneConfig, Handoff, Policy, clone, with_head
from o2o_jax.training import run_updates
from o2o_jax.types import Annotated, Rollout, Spec, Transition

__all__ = [
    "Annotated",
    "Cadence",
    "CloneConfig",
    "Dataset",
    "Diagnosis",
    "DiagnosisConfig",
    "Handoff",
    "Normalizer",
    "OfflineAlgorithm",
    "OnlineAlgorithm",
    "Policy",
    "QFunction",
    "RingBuffer",
    "Rollout",
    "Spec",
    "Task",
    "Transform",
    "Transition",
    "clone",
    "diagnose",
    "envs",
    "insert",
    "make_buffer",
    "offline",
    "online",
    "run_updates",
    "sample",
    "with_head",
]
