"""Policies as folders of their own: `policy.json` and `arrays.npz`, read without the run. Impure: reads and writes."""

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax import networks, registry
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Task
from o2o_jax.networks import Critics, DecisionTransformer, HistogramCritics
from o2o_jax.policy import (
    OPTIMIZED_HEAD,
    SET_HEAD,
    ActionOptimization,
    AnyPolicy,
    OptimizedPolicy,
    Policy,
    PolicySet,
    SequencePolicy,
)
from o2o_jax.reading import Record, brief, read_json, read_npz
from o2o_jax.runtime import files
from o2o_jax.runtime.deployed import DeployedPolicy
from o2o_jax.types import Array, History, Spec, expect_32_bits

DESCRIPTION, ARRAYS = "policy.json", "arrays.npz"
FORMAT = "o2o_jax policy"
VERSION = 1  # of the format; a reader takes its own and earlier ones
NETWORKS: dict[str, type] = {
    **networks.HEADS,
    networks.MixtureActor.head: networks.MixtureActor,
    DecisionTransformer.head: DecisionTransformer,
}
WAY_OUT = "save the policy again"


def is_saved(folder: str | os.PathLike) -> bool:
    """Returns whether a folder is one of `save`."""
    return (Path(folder) / DESCRIPTION).is_file()


def save(policy: DeployedPolicy, folder: str | os.PathLike) -> Path:
    """Writes a policy to a folder of its own, which appears whole or not at all, once it has been read back.

    Args:
      policy: of one seed.
      folder: that does not exist.

    Returns:
      The folder.

    Raises:
      FileExistsError: there is something of that name.
      ValueError: the policy is of a network that this package doesn't know.
    """
    description, arrays = _describe(policy)
    with files.new_folder(folder) as draft:
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]
        description |= {"digest": _digest(description, content.getvalue())}
        files.write(draft / ARRAYS, content.getvalue())
        files.write(draft / DESCRIPTION, (json.dumps(description, indent=2, ensure_ascii=False) + "\n").encode())
        for name, array in _arrays(read(draft).policy).items():
            if not np.array_equal(array, arrays[name], equal_nan=True):
                raise OSError(f"{folder} can't be written: {name} is not what it was when it is read back")
    return Path(folder)


def read(folder: str | os.PathLike) -> DeployedPolicy:
    """Reads a policy that `save` wrote.

    Args:
      folder: of it.

    Raises:
      FileNotFoundError: the folder holds no policy.
      ValueError: it is damaged, of a newer version, or of a network that this one doesn't know; or JAX computes in 64
        bits.
    """
    expect_32_bits()
    path = Path(folder)
    values = describe(path)
    try:
        template = _template(values)
        task = Task.from_json(values["task"]) if values["task"] is not None else None
    except (KeyError, TypeError, AttributeError, OverflowError, ValueError) as error:
        raise ValueError(f"{path / DESCRIPTION} doesn't describe a policy ({brief(error)}): save it again") from None
    if task is not None and task.spec != Spec(template.normalizer.mean.shape[-1], template.actor.action_dim):
        raise ValueError(f"{path / DESCRIPTION} is of other sizes than its task {task.name}: save it again")
    if not (path / ARRAYS).is_file():
        raise FileNotFoundError(f"{path} lacks {ARRAYS}: save the policy again")
    content = (path / ARRAYS).read_bytes()
    found = read_npz(path / ARRAYS, WAY_OUT, content)
    leaves, structure = jax.tree.flatten(template)
    names = list(_arrays(template))
    wanted = {name: (leaf.shape, leaf.dtype) for name, leaf in zip(names, leaves, strict=True)}
    if {name: (array.shape, array.dtype) for name, array in found.items()} != wanted:
        raise ValueError(f"{path / ARRAYS} doesn't have the arrays that {DESCRIPTION} describes: save the policy again")
    if values.get("digest") != _digest(values, content):
        raise ValueError(f"{path}: {DESCRIPTION} or {ARRAYS} is not as it was written: save the policy again")
    return DeployedPolicy(structure.unflatten([found[name] for name in names]), task, dict(values.get("made") or {}))


def describe(folder: str | os.PathLike) -> Record:
    """Returns what `policy.json` says.

    Args:
      folder: of a policy that `save` wrote.

    Raises:
      FileNotFoundError: the folder holds no policy.
      ValueError: it is damaged or of a newer version.
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no policy: {path} does not exist")
    values = read_json(path, WAY_OUT)
    if values.get("format") != FORMAT:
        raise ValueError(f"{path} doesn't describe a policy of this package: pass a folder of save_policy")
    version = values.get("version")
    if not isinstance(version, int) or version < 1:
        said = brief(repr(version))
        raise ValueError(f"{path} has the version {said}, expected a whole number: save the policy again")
    if version > VERSION:
        said = brief(version)
        raise ValueError(f"{path} is of version {said}, this o2o_jax reads up to {VERSION}: install a newer one")
    return values


def _describe(deployed: DeployedPolicy) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description of a policy, and its arrays by name."""
    policy = deployed.policy
    actor = getattr(policy, "actor", policy)
    if NETWORKS.get(getattr(actor, "head", "")) is not type(actor):
        raise ValueError(
            f"only policies of {registry.listed(NETWORKS)} can be saved, got one of {type(actor).__name__}: clone it "
            "first"
        )
    history, chosen, optimized = {}, {}, {}
    if isinstance(policy, SequencePolicy):
        history = {"return_scale": policy.return_scale, "context": policy.context}
    if isinstance(policy, PolicySet):
        chosen = {
            "head": policy.actor.head,
            "critic": _settings(policy.critic),
            "inverse_temperature": policy.inverse_temperature,
        }
    if isinstance(policy, OptimizedPolicy):
        critic = policy.critic
        histogram = isinstance(critic, HistogramCritics)
        optimized = {
            "head": policy.actor.head,
            "critic": _settings(critic.logits if histogram else critic),
            "histogram": [critic.low, critic.high] if histogram else None,
            "rule": policy.rule._asdict(),
        }
    arrays = _arrays(policy)
    description = {
        "format": FORMAT,
        "version": VERSION,
        "head": policy.head,
        "network": _settings(policy.actor),
        "history": history or None,
        "set": chosen or None,
        "optimized": optimized or None,
        "spec": dataclasses.asdict(deployed.spec),
        "action_low": deployed.bounds.low.tolist(),
        "action_high": deployed.bounds.high.tolist(),
        "task": deployed.task.to_json() if deployed.task else None,
        "arrays": {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()},
        "made": dict(deployed.made),
    }
    return description, arrays


def _settings(network: Any) -> dict[str, Any]:
    """The fields that a network is made of."""
    names = (field.name for field in dataclasses.fields(network) if field.name not in ("parent", "name"))
    return {name: getattr(network, name) for name in names}


def _arrays(policy: Any) -> dict[str, Any]:
    """Path -> leaf of a policy, as numpy arrays where they are arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(policy)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        if isinstance(leaf, jax.ShapeDtypeStruct)
        else np.asarray(leaf)
        for path, leaf in leaves
    }


def _template(values: Mapping[str, Any]) -> AnyPolicy:
    """Shapes and dtypes of the policy that a description is of."""
    spec, head = Spec(**values["spec"]), values["head"]
    chosen = values["set"] if head == SET_HEAD else None
    optimized = values["optimized"] if head == OPTIMIZED_HEAD else None
    head = (chosen or optimized or {"head": head})["head"]
    if head not in NETWORKS:
        raise ValueError(registry.unknown("head", str(head), NETWORKS))
    actor = NETWORKS[head](**_checked(values["network"]))
    if actor.action_dim != spec.action_dim:
        raise TypeError(f"network.action_dim is {actor.action_dim}, of the actions {spec.action_dim}")

    def begin(key: Array) -> AnyPolicy:
        normalizer, observation = Normalizer.identity(spec.observation_dim), jnp.zeros((1, spec.observation_dim))
        if chosen:
            critic, eta = Critics(**_checked(chosen["critic"])), float(chosen["inverse_temperature"])
            params = {name: actor.init(key, observation) for name in ("kept", "learning")}
            params |= {"critic": critic.init(key, observation, jnp.zeros((1, spec.action_dim)))}
            return PolicySet(params, normalizer, actor, critic, eta)
        if optimized:
            critic, rule = Critics(**_checked(optimized["critic"])), ActionOptimization(**_checked(optimized["rule"]))
            base = Policy(actor.init(key, observation), normalizer, actor)
            params = critic.init(key, observation, jnp.zeros((1, spec.action_dim)))
            bounds = optimized["histogram"]
            network = HistogramCritics(critic, *map(float, bounds)) if bounds else critic
            return OptimizedPolicy(base, params, network, rule)
        if head != DecisionTransformer.head:
            return Policy(actor.init(key, observation), normalizer, actor)
        context, scale = int(values["history"]["context"]), float(values["history"]["return_scale"])
        policy = SequencePolicy(None, normalizer, jnp.zeros(()), actor, scale, context)
        history: History = policy.begin(1)
        return policy.replace(params=actor.init(key, history))

    return jax.eval_shape(begin, jax.random.key(0))


def _checked(network: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a network as JSON gives them back.

    Raises:
      TypeError: one of them is no size.
    """
    network = {name: tuple(value) if isinstance(value, list) else value for name, value in network.items()}
    for name, value in network.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if name != "layer_init" and not all(isinstance(number, int | float) and number >= 0 for number in numbers):
            raise TypeError(f"network.{name} is {brief(repr(value))}")
    return dict(network)


def _digest(description: Mapping[str, Any], arrays: bytes) -> str:
    """Of both files of a policy, but for the digest itself."""
    said = {name: value for name, value in description.items() if name != "digest"}
    return hashlib.blake2b(json.dumps(said, sort_keys=True).encode() + arrays, digest_size=16).hexdigest()
