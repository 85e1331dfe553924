"""Offline-to-online reinforcement learning: optimistic critic reconstruction and constrained fine-tuning."""

from o2o_jax import envs, offline, online
from o2o_jax.critic import QFunction
from o2o_jax.data import replay
from o2o_jax.data.dataset import Dataset
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.diagnosis import Diagnosis, DiagnosisConfig, diagnose
from o2o_jax.interfaces import Algorithm, Online, Phase, Replay, Schedule, Task
from o2o_jax.policy import CloneConfig, Handoff, Policy, SequencePolicy, clone, hand_over, with_head
from o2o_jax.settings import replaced
from o2o_jax.training import run_updates
from o2o_jax.types import Annotated, History, Rollout, Spec, Transition

__all__ = [
    "Algorithm",
    "Annotated",
    "CloneConfig",
    "Dataset",
    "Diagnosis",
    "DiagnosisConfig",
    "Handoff",
    "History",
    "Normalizer",
    "Online",
    "Phase",
    "Policy",
    "QFunction",
    "Replay",
    "Rollout",
    "Schedule",
    "SequencePolicy",
    "Spec",
    "Task",
    "Transform",
    "Transition",
    "clone",
    "diagnose",
    "envs",
    "hand_over",
    "offline",
    "online",
    "replaced",
    "replay",
    "run_updates",
    "with_head",
]
