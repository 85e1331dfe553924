"""Behaviour policies: small files of weights, shipped with the package, whose samples make the datasets."""

import importlib.resources
import json
import pathlib
import zipfile
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from o2o_jax import networks
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Task
from o2o_jax.policy import Policy

SHIPPED = importlib.resources.files(__package__) / "policies"

# Quality of a dataset: qualities of the policies that made it, in equal shares; None acts uniformly.
SHARES: dict[str, tuple[str | None, ...]] = {
    "random": (None,),
    "medium": ("medium",),
    "medium-expert": ("medium", "expert"),
    "expert": ("expert",),
}


def behaviours(task: Task) -> list[Policy | None]:
    """The policies whose sampled actions make up the task's dataset, one after the other; None acts uniformly.

    Raises:
      ValueError: the task has no dataset that such policies could make.
      FileNotFoundError: a policy isn't shipped; the message lists those that are.
    """
    robot, _, quality = task.name.removeprefix("mujoco/").partition("-")
    if quality not in SHARES:
        reason = "the replay buffer of a training run, which isn't shipped" if quality else "no dataset of its own"
        raise ValueError(
            f"{task.name} is {reason}; datasets can be made for {', '.join(f'mujoco/{robot}-{q}' for q in SHARES)}"
        )
    return [None if share is None else load_behaviour(f"{robot}-{share}")[0] for share in SHARES[quality]]


def save_behaviour(path: str | pathlib.Path, policy: Policy, metadata: dict[str, Any]) -> None:
    """Writes a policy to one npz file: float32 weights, normalizer, and metadata as a JSON string.

    Args:
      path: the file, ending in .npz; an existing one is replaced.
      policy: of any head; the sizes needed to build its network again are stored along.
      metadata: JSON values that say where the policy comes from: env_id, return_mean, return_std, env_steps,
        algorithm, command.

    Raises:
      ValueError: `path` doesn't end in .npz.
    """
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"a behaviour policy is an .npz file, got {path}")
    actor = policy.actor
    network = {"head": actor.head, "hidden": list(actor.hidden), "action_dim": actor.action_dim}
    weights = flax.traverse_util.flatten_dict(policy.params, sep="/")
    arrays: dict[str, Any] = {f"weights/{name}": np.asarray(value, np.float32) for name, value in weights.items()}
    arrays |= {"mean": np.asarray(policy.normalizer.mean), "std": np.asarray(policy.normalizer.std)}
    arrays["metadata"] = np.asarray(json.dumps({**metadata, "network": network}))
    np.savez_compressed(path, **arrays)


def load_behaviour(source: str | pathlib.Path) -> tuple[Policy, dict[str, Any]]:
    """Reads a policy and its metadata.

    Args:
      source: name of a shipped policy, "hopper-medium", or the path of an .npz file.

    Raises:
      FileNotFoundError: no such policy; the message lists the shipped ones.
      ValueError: not a behaviour policy's file.
    """
    shipped = pathlib.Path(source).suffix != ".npz"
    resource = SHIPPED / f"{source}.npz" if shipped else pathlib.Path(source)
    if not resource.is_file():
        raise FileNotFoundError(
            f"no behaviour policy {str(source)!r}; shipped: {', '.join(shipped_behaviours()) or 'none'}; "
            "python -m experiments.behaviour trains one"
        )
    try:
        with resource.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            metadata = json.loads(str(file["metadata"]))
            stored = {name: jnp.asarray(file[name]) for name in file.files if name != "metadata"}
        normalizer = Normalizer(stored.pop("mean"), stored.pop("std"))
        network = metadata["network"]
        actor = networks.HEADS[network["head"]](network["action_dim"], tuple(network["hidden"]))
        params = flax.traverse_util.unflatten_dict(stored, sep="/")["weights"]
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{source} is damaged or no behaviour policy: {error}") from error
    return Policy(params, normalizer, actor), metadata


def shipped_behaviours() -> list[str]:
    """Names of the shipped policies, sorted."""
    if not SHIPPED.is_dir():
        return []
    return sorted(file.name.removesuffix(".npz") for file in SHIPPED.iterdir() if file.name.endswith(".npz"))
