"""Offline-to-online reinforcement learning: optimistic critic reconstruction and constrained fine-tuning."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from o2o_jax import envs, offline, online
    from o2o_jax.critic import QFunction
    from o2o_jax.data import replay
    from o2o_jax.data.dataset import Dataset
    from o2o_jax.data.transform import Normalizer, Transform
    from o2o_jax.diagnosis import Diagnosis, DiagnosisConfig, diagnose
    from o2o_jax.interfaces import Algorithm, Online, Phase, Replay, Schedule, Task
    from o2o_jax.jobs.policies import load_policy, save_policy
    from o2o_jax.policy import CloneConfig, Handoff, Policy, SequencePolicy, clone, hand_over, with_head, wrap
    from o2o_jax.runtime.deployed import DeployedPolicy
    from o2o_jax.settings import replaced
    from o2o_jax.training import run_updates
    from o2o_jax.types import Annotated, History, Rollout, Spec, Transition

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

# module -> names that it has, imported where they are used: a command answers a signal before JAX is there, and what
# reads runs brings along what only runs need
_ON_DEMAND = {
    "critic": ("QFunction",),
    "data.dataset": ("Dataset",),
    "data.transform": ("Normalizer", "Transform"),
    "diagnosis": ("Diagnosis", "DiagnosisConfig", "diagnose"),
    "interfaces": ("Algorithm", "Online", "Phase", "Replay", "Schedule", "Task"),
    "jobs.policies": ("load_policy", "save_policy"),
    "policy": ("CloneConfig", "Handoff", "Policy", "SequencePolicy", "clone", "hand_over", "with_head", "wrap"),
    "runtime.deployed": ("DeployedPolicy",),
    "settings": ("replaced",),
    "training": ("run_updates",),
    "types": ("Annotated", "History", "Rollout", "Spec", "Transition"),
}
_MODULES = {"envs": "envs", "offline": "offline", "online": "online", "replay": "data.replay"}


def __getattr__(name: str) -> Any:
    """Imports what is used on demand.

    Raises:
      AttributeError: this package has no such name.
    """
    if name in _MODULES:
        found: Any = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    else:
        module = next((module for module, names in _ON_DEMAND.items() if name in names), None)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = found  # the next time it is there
    return found


def __dir__() -> list[str]:
    """Lists the public names, imported or not."""
    return sorted({*globals(), *__all__})
