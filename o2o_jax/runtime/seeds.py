"""Many seeds as one program: where this package jits, vmaps over seeds and spreads them over devices."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from o2o_jax.types import SHARED, Array

AXIS = "seed"
SUFFIX = "_for_all_seeds"  # of a program's name


def seed_axes(tree: Any) -> Any:
    """The axis of every leaf that counts seeds: 0, or None for what all share. A pytree shaped like `tree`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: None if _is_shared(tree, path) else 0, tree)


def over_seeds(function: Callable, mesh: Mesh, shared: Sequence[int] = (), donate: Sequence[int] = ()) -> Callable:
    """Compiles a function of one seed into one of all seeds [S], spread over the devices of a mesh.

    Args:
      function: pure, of one seed, with positional arguments that are pytrees of arrays.
      mesh: of axis "seed"; its size divides S. No device waits for another: there are no collectives.
      shared: positions of arguments without a seed axis, such as the dataset, which every seed reads.
      donate: positions of arguments whose memory the results may take.

    Returns:
      The compiled function; every other argument and every result has a leading axis S, except counters. Logs of JAX
      and profiles call it as the function is called, with `SUFFIX`.
    """

    def for_all_seeds(*arguments):
        in_axes = tuple(None if i in shared else seed_axes(a) for i, a in enumerate(arguments))
        structures = []

        def one_seed(*arguments):
            # which results all seeds share is known when the function has been traced, and it is traced only once
            result = function(*arguments)
            leaves, structure = jax.tree_util.tree_flatten_with_path(result)
            structures.append((structure, [jax.tree_util.keystr(path) for path, _ in leaves]))
            common: dict[str, Array] = {}
            own: dict[str, Array] = {}
            for path, leaf in leaves:
                (common if _is_shared(result, path) else own)[jax.tree_util.keystr(path)] = leaf
            return common, own

        mapped = jax.vmap(one_seed, in_axes, (None, 0))
        if mesh.size > 1:
            in_specs = tuple(PartitionSpec() if axes is None else _specs(axes) for axes in in_axes)
            out_specs = (PartitionSpec(), PartitionSpec(AXIS))
            mapped = jax.shard_map(mapped, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        common, own = mapped(*arguments)
        structure, names = structures[-1]
        return structure.unflatten((common | own)[name] for name in names)

    for_all_seeds.__name__ = _name(function) + SUFFIX
    return jax.jit(for_all_seeds, donate_argnums=tuple(donate), compiler_options=_compiler_options(mesh))


def _name(function: Callable) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def place(tree: Any, mesh: Mesh) -> Any:
    """Puts a pytree of all seeds onto the mesh: seed axes split over devices, counters on each."""
    return jax.device_put(tree, jax.tree.map(lambda spec: NamedSharding(mesh, spec), _specs(seed_axes(tree))))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts what all seeds share onto every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def take(tree: Any, index: int | slice) -> Any:
    """One seed of a pytree that has them stacked [S], or a slice of them; counters stay as they are."""
    return jax.tree.map(lambda leaf, axis: leaf if axis is None else leaf[index], tree, seed_axes(tree))


def keys(seeds: Sequence[int], stream: str) -> jax.Array:
    """One PRNG key per seed [S] for a named stream, the same for a seed alone as among others."""
    index = zlib.crc32(stream.encode())
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), index))(jnp.asarray(seeds))


def _is_shared(tree: Any, path: Sequence[Any]) -> bool:
    """Returns whether a field on the way to a leaf is declared as one that seeds share, such as `types.counter`."""
    node = tree
    for key in path:
        name = getattr(key, "name", None)
        if dataclasses.is_dataclass(node) and name is not None:
            declared = node.__dataclass_fields__[name].metadata.get(SHARED)
            if declared is not None:
                return declared
            node = getattr(node, name)
        elif isinstance(key, jax.tree_util.DictKey | jax.tree_util.SequenceKey):
            node = node[key.key if isinstance(key, jax.tree_util.DictKey) else key.idx]
        elif name is not None:  # of a named tuple
            node = getattr(node, name)
        else:  # a node of another make, which declares nothing
            return False
    return False


def _compiler_options(mesh: Mesh) -> dict[str, int | bool]:
    """On a processor, machine code that is as fast and is made in less time, and what several devices need there.

    Devices made of one processor's cores run one thread each: sharing one pool of threads, they deadlock.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return {}
    options: dict[str, int | bool] = {}
    if not jax.config.read("jax_disable_most_optimizations"):  # which asks for level 0
        options["xla_backend_optimization_level"] = 2
    if mesh.size > 1:
        options["xla_cpu_multi_thread_eigen"] = False
    return options


def _specs(axes: Any) -> Any:
    return jax.tree.map(
        lambda axis: PartitionSpec() if axis is None else PartitionSpec(AXIS), axes, is_leaf=lambda axis: axis is None
    )
