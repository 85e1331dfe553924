"""Replays the recorded updates of `tests/golden/*.npz`, whose README says what they are.

A golden test builds the recorded initial weights, runs an algorithm's update on the recorded batches with the recorded
draws, and compares:

    golden = Golden("td3_bc")
    state = state.replace(actor=golden.params("actor"), critic=golden.ensemble("critic_1", "critic_2"), ...)
    update = golden.replay("update", algorithm.phase("offline").update)
    for step in golden.steps("update"):
        state, metrics = update(state, step)
        golden.check("update", step, actor=state.actor, critic_1=member(state.critic, 0), ...)
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.types import Params, Rollout, Spec, Transition
from tests.golden.record import initial_weight

FOLDER = Path(__file__).parent / "golden"
SPEC = Spec(observation_dim=5, action_dim=3)
SCALAR_RTOL = 1e-5
ENTRY_ATOL = 2e-5


class Golden:
    """The recorded numbers of one algorithm.

    Args:
      name: of the file.
      layers: places of the tensors in the flax tree of a network that is no multilayer perceptron, module -> name of a
        layer there -> its path: a kernel and a bias, or a scale and a bias.
    """

    def __init__(self, name: str, layers: Mapping[str, Mapping[str, Sequence[str]]] | None = None):
        self._layers = layers or {}
        with np.load(FOLDER / f"{name}.npz") as file:
            self._numbers = {key: file[key] for key in file.files}
        self._tensors: dict[str, dict[str, tuple[tuple[int, ...], int]]] = {}  # module -> name -> (shape, t)
        for line in self._numbers.pop("tensors"):
            module, tensor, shape, t = str(line).split("|")
            sizes = tuple(int(size) for size in shape.strip("(),").split(","))
            self._tensors.setdefault(_network(module, tensor), {})[tensor] = sizes, int(t)

    def params(self, module: str, **others: Any) -> Params:
        """Initial weights of a module as a flax tree; `others` are parameters without a formula: log σ, its m and b."""
        tree: dict[str, Any] = {name: jnp.asarray(value, jnp.float32) for name, value in others.items()}
        for path, name in self._paths(module).items():
            _insert(tree, path, _to_flax(initial_weight(*self._tensors[module][name], gain=path[-1] == "scale")))
        return {"params": tree}

    def ensemble(self, *modules: str) -> Params:
        """Initial weights of several modules, stacked along a leading axis E."""
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(self.params(module) for module in modules))

    def steps(self, phase: str) -> range:
        """Numbers of the recorded updates of a phase."""
        return range(1 + max(int(key.split("/")[1]) for key in self._numbers if key.startswith(f"{phase}/")))

    def batch(self, phase: str, step: int) -> Transition:
        """The batch of an update: raw, [B] rewards and terminal flags; of PPO the rollout [T]."""
        fields = self._under(f"{phase}/{step}/rollout")
        if fields:
            ended, terminated = fields["done"][:, 0], fields["dw"][:, 0]
            return Rollout(
                observation=jnp.asarray(fields["s"]),
                action=jnp.asarray(fields["a"]),
                reward=jnp.asarray(fields["r"][:, 0]),
                next_observation=jnp.asarray(fields["s_next"]),
                terminated=jnp.asarray(terminated),
                truncated=jnp.asarray(ended - terminated),
            )
        fields = self._under(f"{phase}/{step}/batch")
        return Transition(
            observation=jnp.asarray(fields["observation"]),
            action=jnp.asarray(fields["action"]),
            reward=jnp.asarray(fields["reward"][:, 0]),
            next_observation=jnp.asarray(fields["next_observation"]),
            terminated=jnp.asarray(fields["terminal"][:, 0]),
        )

    def log(self, phase: str, step: int) -> dict[str, float]:
        """The scalars that were logged before an update's step, by the names of the original."""
        return {name: float(value) for name, value in self._under(f"{phase}/{step}/log").items()}

    def recorded(self, phase: str, step: int, name: str) -> np.ndarray:
        """A further array of the record."""
        return self._numbers[f"{phase}/{step}/{name}"]

    def recorded_draws(self, phase: str, step: int) -> list[np.ndarray]:
        """The random numbers of an update in the order of their use."""
        draws = self._under(f"{phase}/{step}/draw")
        return [draws[str(index)] for index in range(len(draws))]

    def replay(self, phase: str, update: Callable, batch: Callable | None = None) -> Callable:
        """An update (state, batch, key) as (state, step) -> (state, metrics): on the batch and the draws of a step.

        Compiled once for all steps of the phase: one program takes seconds, its operations one by one a minute.
        `batch` (step) -> batch gives what the update gets in place of `Golden.batch`.
        """
        batch = batch or functools.partial(self.batch, phase)

        @jax.jit
        def replayed(state: Any, batch: Any, draws: list[jax.Array]) -> Any:
            with replayed_draws(draws):
                return update(state, batch, jax.random.key(0))

        return lambda state, step: replayed(state, batch(step), self.recorded_draws(phase, step))

    def check(self, phase: str, step: int, **modules: Any) -> None:
        """Compares parameters after an update with the recorded ones.

        Args:
          phase: of the record.
          step: of the phase.
          **modules: a flax tree or a scalar for every recorded module; leaving one out is an error.
        """
        recorded: dict[str, dict[str, np.ndarray]] = {}
        for key, value in self._under(f"{phase}/{step}/after").items():
            module, name = key.split("/")
            recorded.setdefault(_network(module, name), {})[name] = value
        assert set(recorded) == set(modules), f"recorded modules: {sorted(recorded)}"
        for module, expected in recorded.items():
            found = self._named(module, modules[module])
            assert set(found) == set(expected), f"recorded tensors of {module}: {sorted(expected)}"
            for name, (norm, *entries) in expected.items():
                flat = found[name].ravel()
                where = f"{phase}, step {step}, {module}, {name}"
                np.testing.assert_allclose(np.linalg.norm(flat), norm, rtol=SCALAR_RTOL, atol=ENTRY_ATOL, err_msg=where)
                rows = np.linspace(0, flat.size - 1, len(entries)).astype(int)
                np.testing.assert_allclose(flat[rows], entries, rtol=0, atol=ENTRY_ATOL, err_msg=where)

    def _under(self, prefix: str) -> dict[str, np.ndarray]:
        start = len(prefix) + 1
        return {key[start:]: value for key, value in self._numbers.items() if key.startswith(f"{prefix}/")}

    def _paths(self, module: str) -> dict[tuple[str, ...], str]:
        """Places of a module's tensors in the flax tree: the last matrix is the output layer."""
        if module in self._layers:
            weight = lambda name: "kernel" if len(self._tensors[module][f"{name}.weight"][0]) == 2 else "scale"
            layers = self._layers[module].items()
            return {(*path, weight(name)): f"{name}.weight" for name, path in layers} | {
                (*path, "bias"): f"{name}.bias" for name, path in layers
            }
        names = list(self._tensors[module])
        dense = [name for name in names if name.endswith("weight") and len(self._tensors[module][name][0]) == 2]
        norms = [name for name in names if name.endswith("weight") and len(self._tensors[module][name][0]) == 1]
        paths = {}
        for index, name in enumerate(dense):
            layer = ("Dense_0",) if name == dense[-1] else ("MLP_0", f"Dense_{index}")
            paths[(*layer, "kernel")] = name
            paths[(*layer, "bias")] = name.removesuffix("weight") + "bias"
        for index, name in enumerate(norms):
            paths[("MLP_0", f"LayerNorm_{index}", "scale")] = name
            paths[("MLP_0", f"LayerNorm_{index}", "bias")] = name.removesuffix("weight") + "bias"
        return paths

    def _named(self, module: str, params: Any) -> dict[str, np.ndarray]:
        """A module's parameters by the recorded names, in the recorded layout."""
        if module not in self._tensors:
            return {"constant": np.asarray(params, np.float64)}  # log_alpha, log_lagrange
        paths = self._paths(module)
        named = {}
        for key_path, leaf in jax.tree_util.tree_leaves_with_path(params["params"]):
            path = tuple(key.key for key in key_path)
            # log_std is a vector; log_std_multiplier and log_std_offset are modules of one number
            name = paths.get(path, path[-1] if leaf.ndim else f"{path[-1]}.constant")
            named[name] = np.asarray(leaf, np.float64).T
        return named


def _network(module: str, tensor: str) -> str:
    """The network that a recorded tensor belongs to: its module, or one of twin critics recorded as one module."""
    first = tensor.split(".")[0]
    return first if first in ("q1", "q2") else module


def member(params: Params, index: int) -> Params:
    """One critic of an ensemble, without the leading axis E."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[index], params)


@contextlib.contextmanager
def replayed_draws(draws: Sequence[Any]) -> Iterator[None]:
    """Within it, `jax.random.normal` and `uniform` return given draws, in order, and all of them must be used.

    Each must be asked for in its own shape, of which axes of length one don't count. Under `jit` draws may be traced.
    `permutation` of rows of indices [E, T] returns E draws [T].
    """
    remaining = list(draws)
    originals = {name: getattr(jax.random, name) for name in ("normal", "uniform")}
    eval_shape = jax.eval_shape

    def replay(key, shape=(), *args, **kwargs):
        del key, args, kwargs
        assert remaining, f"a draw of shape {shape} that was not recorded"
        draw = remaining.pop(0)
        assert _without_ones(draw.shape) == _without_ones(shape), f"recorded shape {draw.shape}, asked for {shape}"
        return jnp.asarray(draw).reshape(shape)

    def permute(key, rows, **kwargs):
        del key, kwargs
        draws, remaining[:] = remaining[: len(rows)], remaining[len(rows) :]
        assert [draw.shape for draw in draws] == [row.shape for row in rows], "orders that were not recorded"
        return jnp.stack(draws)

    def original_eval_shape(*args, **kwargs):
        # flax asks the initialisers of a network that it applies for their shapes: no draws of the update
        with mock.patch.multiple(jax.random, **originals):
            return eval_shape(*args, **kwargs)

    with (
        mock.patch.multiple(jax.random, **dict.fromkeys(originals, replay), permutation=permute),
        mock.patch.object(jax, "eval_shape", original_eval_shape),
    ):
        yield
    assert not remaining, f"{len(remaining)} recorded draws were not used"


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _insert(tree: dict[str, Any], path: tuple[str, ...], leaf: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = leaf


def _to_flax(tensor: np.ndarray) -> jax.Array:
    return jnp.asarray(tensor.T)  # a linear layer's (out, in) becomes a kernel's (in, out)
