"""Offline-to-online reinforcement learning: optimistic critic reconstruction and constrained fine-tuning."""

import importlib
from typing import TYPE_CHECKING, Any

from o2o_jax import envs, offline, online
from o2o_jax.critic import QFunction
from o2o_jax.data import replay
from o2o_jax.data.dataset import Dataset
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.diagnosis import Diagnosis, DiagnosisConfig, diagnose
from o2o_jax.interfaces import Algorithm, Online, Phase, Replay, Schedule, Task
from o2o_jax.policy import CloneConfig, Handoff, Policy, SequencePolicy, clone, hand_over, with_head, wrap
from o2o_jax.settings import replaced
from o2o_jax.training import run_updates
from o2o_jax.types import Annotated, History, Rollout, Spec, Transition

if TYPE_CHECKING:
    from o2o_jax.jobs.policies import load_policy, save_policy
    from o2o_jax.runtime.deployed import DeployedPolicy

__all__ = [
    "Algorithm",
    "Annotated",
    "CloneConfig",
    "Dataset",
    "DeployedPolicy",
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
    "load_policy",
    "offline",
    "online",
    "replaced",
    "replay",
    "run_updates",
    "save_policy",
    "with_head",
    "wrap",
]

# name -> module that has it: what reads runs brings along what only runs need
_ON_DEMAND = {
    "DeployedPolicy": "o2o_jax.runtime.deployed",
    "load_policy": "o2o_jax.jobs.policies",
    "save_policy": "o2o_jax.jobs.policies",
}


def __getattr__(name: str) -> Any:
    """Imports what is used on demand.

    Raises:
      AttributeError: this package has no such name.
    """
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ON_DEMAND[name]), name)
