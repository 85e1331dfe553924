"""Behaviours that act while a dataset is made, and the files that their policies are kept in."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from importlib.resources.abc import Traversable
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike

from o2o_jax import networks
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Task
from o2o_jax.policy import Policy
from o2o_jax.reading import parse_json, read_npz
from o2o_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """One behaviour and its share of a dataset.

    Attributes:
      name: for the dataset's metadata: "uniform actions", "sampled policy", "waypoint controller".
      share: of the dataset's rows, > 0; the shares of a task sum to 1.
      act: (vector env, raw observations [N, O], key) -> actions [N, A] in [-1, 1]. It is called once per step of the
        vector env, so that a controller may read the simulators' state there.
    """

    name: str
    share: float
    act: Callable[[Any, np.ndarray, Array], Any]


def uniform(share: float = 1.0) -> Behaviour:
    """Returns the behaviour of uniform actions [N, A] in [-1, 1]."""
    return Behaviour("uniform actions", share, _uniform_actions)


def sampled(policy: Policy, task: Task, share: float = 1.0, name: str = "sampled policy") -> Behaviour:
    """Returns the behaviour of a policy that samples its actions [N, A] at raw observations [N, O].

    Raises:
      ValueError: the policy's sizes aren't the task's.
    """
    sizes = policy.normalizer.mean.size, policy.actor.action_dim
    if sizes != dataclasses.astuple(task.spec):
        raise ValueError(
            f"a behaviour policy maps {sizes[0]} observations to {sizes[1]} actions, which doesn't fit {task.name} "
            f"({task.spec})"
        )
    return Behaviour(name, share, lambda _, observations, key: sample_actions(policy, observations, key))


@jax.jit  # for all policies of equal shapes: the weights are arguments
def sample_actions(policy: Policy, observations: Array, key: Array) -> Array:
    """Draws actions [..., A] at raw observations [..., O]."""
    return policy.distribution(jnp.asarray(observations, jnp.float32)).sample(key)


def replay(snapshots: Policy, metadata: dict[str, Any], task: Task) -> list[Behaviour]:
    """Makes a training run's replay buffer again, from its beginning, with snapshots of the run for its agent.

    Args:
      snapshots: policies of one run, arrays with a leading axis K, the earliest first.
      metadata: with `shares`, [K] of the buffer, that each represents, and `random_share`, that of the uniform
        actions before them, perhaps 0; all together are 1.
      task: what the snapshots act in.

    Returns:
      K behaviours, after uniform actions where these have a share.

    Raises:
      ValueError: the policies' sizes aren't the task's.
    """
    acting = [uniform(metadata["random_share"])] if metadata["random_share"] else []
    for k, share in enumerate(metadata["shares"]):
        policy = jax.tree.map(lambda leaf, k=k: leaf[k], snapshots)
        acting.append(sampled(policy, task, share, "sampled snapshots of a training run"))
    return acting


def _uniform_actions(vector: Any, observations: np.ndarray, key: Array) -> Array:
    del observations
    return jax.random.uniform(key, vector.action_space.shape, minval=-1.0, maxval=1.0)


def save_behaviour(
    path: str | pathlib.Path, policy: Policy, metadata: dict[str, Any], dtype: DTypeLike = np.float32
) -> None:
    """Writes a policy to one npz file: weights, normalizer, and metadata as a JSON string.

    Args:
      path: the file, ending in .npz; an existing one is replaced.
      policy: of any head; the sizes needed to build its network again are stored along. Its arrays may have a leading
        axis [K], for snapshots of one run.
      metadata: JSON values that say where the policy comes from: env_id, return_mean, return_std, env_steps,
        algorithm, command.
      dtype: of the stored weights. float16 halves the file and moves an action by about a thousandth of its spread.

    Raises:
      ValueError: `path` doesn't end in .npz.
    """
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"a behaviour policy is an .npz file, got {path}")
    actor = policy.actor
    network = {"head": actor.head, "hidden": list(actor.hidden), "action_dim": actor.action_dim}
    weights = flax.traverse_util.flatten_dict(policy.params, sep="/")
    arrays: dict[str, Any] = {f"weights/{name}": np.asarray(value, dtype) for name, value in weights.items()}
    arrays |= {"mean": np.asarray(policy.normalizer.mean), "std": np.asarray(policy.normalizer.std)}
    arrays["metadata"] = np.asarray(json.dumps({**metadata, "network": network}))
    np.savez_compressed(path, **arrays)


def load_behaviour(path: str | pathlib.Path | Traversable) -> tuple[Policy, dict[str, Any]]:
    """Reads a policy, in float32 and with an axis [K] where it was saved with one, and its metadata.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a behaviour policy's file.
    """
    path = pathlib.Path(path) if isinstance(path, str) else path
    if not path.is_file():
        raise FileNotFoundError(f"no behaviour policy '{path}'; python -m experiments.behaviour trains one")
    way_out = "pass a file of experiments.behaviour"
    arrays = read_npz(str(path), way_out, path.read_bytes())
    metadata = parse_json(str(arrays.pop("metadata", "")), str(path), way_out, {"network": dict})
    with metadata.blamed():
        stored = {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}
        normalizer = Normalizer(stored.pop("mean"), stored.pop("std"))
        network = metadata["network"]
        actor = networks.HEADS[network["head"]](network["action_dim"], tuple(network["hidden"]))
        params = flax.traverse_util.unflatten_dict(stored, sep="/")["weights"]
    return Policy(params, normalizer, actor), metadata
