"""Workloads: the updates of all algorithms on transitions, on synthetic data of a task's sizes.

The decision transformer isn't among them: an update of it, at the published size, has as many operations as some
thousand of the others.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax import offline, online, operations, registry
from o2o_jax.cli.overrides import parse_overrides
from o2o_jax.data.dataset import Dataset
from o2o_jax.data.replay import uniform_batch
from o2o_jax.interfaces import Algorithm, Phase
from o2o_jax.jobs.handoffs import with_any_critics
from o2o_jax.operations import Count
from o2o_jax.runtime import phases
from o2o_jax.settings import paths
from o2o_jax.training import PhaseState
from o2o_jax.types import Array, Extras, Metrics, Rollout, Spec, Transition

SHAPES = {
    "hopper": Spec(observation_dim=11, action_dim=3),
    "halfcheetah": Spec(observation_dim=17, action_dim=6),
    "walker2d": Spec(observation_dim=17, action_dim=6),
    "antmaze": Spec(observation_dim=29, action_dim=8),
}
ROWS = 100_000  # of the dataset, where nothing else is said
EPISODE = 1_000  # rows; the synthetic data's episodes end by a time limit

# "<online algorithm>/<phase>" or "<offline algorithm>"
NAMES = (
    *(f"{algorithm}/{phase}" for algorithm in ("o2sac", "o2td3") for phase in ("reevaluate", "align", "finetune")),
    "o2ppo/reevaluate",
    "o2ppo/finetune",
    "rlpd/finetune",
    "wsrl/finetune",
    "pex/finetune",
    "pa_rl/critics",
    "pa_rl/finetune",
    "aca/finetune",
    "off2on/finetune",
    "proto/finetune",
    "proto_td3/finetune",
    *("td3_bc", "rebrac", "iql", "cql", "cql_ensemble", "sac_ml", "awac", "bc", "dt"),
)


@dataclasses.dataclass(frozen=True)
class Workload:
    """Updates of one phase, as pure functions of one seed.

    Attributes:
      name: one of `NAMES`.
      config: of the algorithm.
      count: floating-point operations of an update.
      init: (key) -> a train state at the start of the phase.
      run: (state, data, extras, key, num_updates) -> (state, metrics), of `PhaseState`s, as `phases.advance`.
      data: numpy arrays that all seeds share: a dataset [N], or the rollout [T] of an on-policy update.
      prepare: (train state, data) -> (train state, extras) before the phase, or None.
      on_rollout: whether an update is one of a whole rollout: seconds rather than milliseconds.
    """

    name: str
    config: Any
    count: Count
    init: Callable
    run: Callable
    data: Transition
    prepare: Callable | None = None
    on_rollout: bool = False


def make(name: str, config: Any = None, spec: Spec = SHAPES["hopper"], rows: int = ROWS) -> Workload:
    """A workload by its name.

    Args:
      name: one of `NAMES`.
      config: of its algorithm; None for the published settings on medium data.
      spec: sizes of observations and actions.
      rows: N of the dataset.

    Raises:
      ValueError: no such name.
    """
    if name not in NAMES:
        raise ValueError(registry.unknown("workload", name, NAMES))
    algorithm_name, _, phase = name.partition("/")
    module, config = _module(algorithm_name), config or settings(algorithm_name)
    algorithm = module.make(with_any_critics(config), spec)
    dataset = synthetic(spec, rows)
    count = module.operations(config, spec)[phase or "update"]
    if phase == "finetune":
        return _fine_tuning(name, config, count, algorithm, dataset)
    updates = algorithm.phase(phase or "offline")
    return Workload(
        name,
        config,
        count,
        init=lambda key: algorithm.init(key, None if phase else dataset.normalizer()),
        run=functools.partial(phases.advance, updates),
        data=dataset.rollout() if phase or updates.prepare else dataset.transitions,
        prepare=updates.prepare,
    )


def _fine_tuning(name: str, config: Any, count: Count, algorithm: Algorithm, dataset: Dataset) -> Workload:
    """Updates in the environment, on rows of the dataset in place of fresh ones, or on one made-up rollout."""
    online_part = algorithm.online
    assert online_part is not None
    on_rollout = online_part.schedule.env_steps > 1
    update = online_part.update
    run = (
        functools.partial(_on_rollout, update)
        if on_rollout
        else functools.partial(
            phases.advance,
            Phase(
                "finetune",
                update,
                1,
                operations.batch_size_of(config),
                sample=uniform_batch if online_part.replay.feedback else None,
            ),
        )
    )
    rows = synthetic(dataset.spec, online_part.schedule.env_steps) if on_rollout else dataset

    def init(key: Array) -> Any:
        return online_part.begin(algorithm.init(key, None), jnp.asarray(True))

    return Workload(name, config, count, init, run, rows.rollout(), on_rollout=on_rollout)


def matching(wanted: Sequence[str]) -> list[str]:
    """Names of the workloads asked for: by their own names, or all of an algorithm by its name alone.

    Raises:
      ValueError: nothing has such a name.
    """
    algorithms = [name.partition("/")[0] for name in NAMES]
    for name in wanted:
        if name not in NAMES and name not in algorithms:
            raise ValueError(registry.unknown("workload", name, dict.fromkeys([*algorithms, *NAMES])))
    found = [name for name, algorithm in zip(NAMES, algorithms, strict=True) if {name, algorithm} & set(wanted)]
    if not found:
        raise ValueError(f"no workload is asked for. Valid names: {', '.join(NAMES)}")
    return found


def settings(algorithm: str, overrides: Sequence[str] = ()) -> Any:
    """An algorithm's Config for medium data, with "field=value" replaced where it has the field."""
    config = _module(algorithm).Config()
    known = paths(config)
    return parse_overrides(config, [text for text in overrides if text.partition("=")[0].strip() in known])


def all_settings(algorithms: Sequence[str], overrides: Sequence[str]) -> dict[str, Any]:
    """The Config of each algorithm.

    Raises:
      ValueError: a field that no algorithm has, or a value that one refuses.
    """
    configs = {algorithm: settings(algorithm, overrides) for algorithm in algorithms}
    for text in overrides:
        name = text.partition("=")[0].strip()
        if not any(name in paths(config) for config in configs.values()):
            parse_overrides(next(iter(configs.values())), [text])  # says what is wrong with it
    return configs


def synthetic(spec: Spec, rows: int) -> Dataset:
    """A dataset of independent numbers, on the host: nothing that is measured depends on their values."""
    random = np.random.default_rng(0)
    observation = random.standard_normal((rows, spec.observation_dim), np.float32)
    columns: dict[str, Any] = {
        "observation": observation,
        "action": random.uniform(-1.0, 1.0, (rows, spec.action_dim)).astype(np.float32),
        "reward": random.standard_normal(rows, np.float32),
        "next_observation": np.roll(observation, -1, axis=0),
        "terminated": np.zeros(rows, np.float32),
    }
    ends = np.append(np.arange(EPISODE, rows, EPISODE), rows)
    return Dataset(Transition(**columns), ends, "synthetic")


def _on_rollout(
    update: Callable, state: PhaseState, rollout: Rollout, extras: Extras | None, key: Array, num_updates: int
) -> tuple[PhaseState, Metrics]:
    """`num_updates` updates on the same rollout; signature and result as of `phases.advance`."""
    del extras

    def one_update(state: Any, _: None) -> tuple[Any, Metrics]:
        return update(state, rollout, jax.random.fold_in(key, state.step))

    moved, metrics = jax.lax.scan(one_update, state.state, length=num_updates)
    return state.settle(state.replace(state=moved), jax.tree.map(jnp.mean, metrics))


def _module(algorithm: str) -> Any:
    package = offline if algorithm in offline.names() else online
    return package.load(algorithm)
