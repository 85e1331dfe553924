"""Estimates of what a run will take, before it begins: operations by count, hours by a short measurement."""

import dataclasses
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from o2o_jax import networks, operations
from o2o_jax.interfaces import Algorithm
from o2o_jax.policy import CloneConfig
from o2o_jax.runtime import seeds
from o2o_jax.training import gradient_step
from o2o_jax.types import Array, Params, Spec

SECONDS = 1.0  # of the measurement, beside what compiling it takes
STEPS = 10  # gradient steps of a compiled call
CRITICS = 2


@dataclasses.dataclass(frozen=True)
class Work:
    """Updates of a phase.

    Attributes:
      phase: its name.
      updates: of one seed.
      operations: floating-point operations of an update; None where they aren't counted.
    """

    phase: str
    updates: int
    operations: float | None


def offline_work(module: ModuleType, config: Any, spec: Spec) -> list[Work]:
    """Updates of an offline algorithm's module with its settings."""
    return [Work("offline", config.updates, _executed(module, config, spec).get("update"))]


def online_work(
    module: ModuleType, algorithm: Algorithm, config: Any, spec: Spec, clone_config: CloneConfig | None = None
) -> list[Work]:
    """Updates of an online algorithm's phases, those that are left out aside.

    Args:
      module: of the algorithm.
      algorithm: what it made of the settings.
      config: the settings.
      spec: sizes of observations and actions.
      clone_config: of cloning, where the policy has to be cloned.
    """
    assert algorithm.requires is not None
    assert algorithm.online is not None
    executed, schedule = _executed(module, config, spec), algorithm.online.schedule
    rounds = max(0, config.env_steps // schedule.env_steps - schedule.warmup_env_steps // schedule.env_steps)
    updates = {phase.name: phase.updates for phase in algorithm.phases} | {"finetune": rounds * schedule.updates}
    work = [Work(phase, count, executed.get(phase)) for phase, count in updates.items() if count]
    if clone_config is not None and algorithm.requires.head is not None:
        cloning = operations.cloning(clone_config, spec, algorithm.requires.head).executed
        work.insert(0, Work("clone", clone_config.updates, cloning))
    return work


def describe(work: Sequence[Work], config: Any, spec: Spec, num_seeds: int, mesh: Mesh) -> list[str]:
    """Returns what the updates of a run take, a line each. Impure: measures for some seconds.

    Args:
      work: updates of its phases.
      config: settings, with the sizes of networks and batches.
      spec: sizes of observations and actions.
      num_seeds: S.
      mesh: devices that share the seeds.
    """
    lines: list[str] = []
    if not work:
        return ["no update is due"]
    for part in work:
        if part.operations is None:
            return [
                *lines,
                f"{part.phase}: {part.updates:,} updates, whose operations aren't counted: no time estimate",
            ]
        lines.append(f"{part.phase}: {part.updates:,} updates of {_number(part.operations / 1e6)} MFLOP")
    total = sum(part.updates * (part.operations or 0.0) for part in work)
    rate = measure_rate(config, spec, num_seeds, mesh)
    return [
        *lines,
        f"operations: {_number(total / 1e12)} TFLOP per seed, {_number(num_seeds * total / 1e12)} in all",
        f"time: about {_span(num_seeds * total / rate)} of updates on this machine. That rests on {SECONDS:g} s of "
        f"gradient steps of {CRITICS} critics of this size and batch, all seeds together, just now: "
        f"{_number(rate / 1e9)} GFLOP/s. Simulators, evaluations and compilation come on top",
    ]


def measure_rate(config: Any, spec: Spec, num_seeds: int, mesh: Mesh) -> float:
    """Returns floating-point operations per second of all seeds together. Impure: compiles, runs, reads the clock.

    The arguments are those of `describe`.
    """
    sizes = getattr(config, "networks", config)  # offline settings have no parts
    hidden = getattr(sizes, "critic_hidden", sizes.hidden)
    rows = operations.batch_size_of(config)
    critics, optimizer = networks.Critics(hidden, False, CRITICS), optax.adam(1e-3)
    observation, action = jnp.ones((rows, spec.observation_dim)), jnp.ones((rows, spec.action_dim))

    def start(key: Array) -> tuple[Params, Any]:
        params = critics.init(key, observation, action)
        return params, optimizer.init(params)

    def run(state: tuple[Params, Any], observation: Array, action: Array) -> tuple[Params, Any]:
        def loss(params: Params) -> Array:
            return jnp.mean(jnp.square(critics.apply(params, observation, action) - 1.0))

        def step(state: tuple[Params, Any], _: None) -> tuple[tuple[Params, Any], None]:
            params, opt_state = state
            return gradient_step(optimizer, jax.grad(loss)(params), opt_state, params), None

        return jax.lax.scan(step, state, length=STEPS)[0]

    state = seeds.over_seeds(start, mesh)(seeds.place(seeds.keys(range(num_seeds), "estimate"), mesh))
    program = seeds.over_seeds(run, mesh, shared=(1, 2), donate=(0,))
    batch = seeds.replicate((observation, action), mesh)
    state = jax.block_until_ready(program(state, *batch))  # compiles
    calls, began = 0, time.perf_counter()
    while not calls or time.perf_counter() - began < SECONDS:
        state = jax.block_until_ready(program(state, *batch))
        calls += 1
    seconds = time.perf_counter() - began
    network = operations.Network(spec.observation_dim + spec.action_dim, hidden, 1, CRITICS)
    return calls * STEPS * num_seeds * network.step(rows) / seconds


def _executed(module: ModuleType, config: Any, spec: Spec) -> dict[str, float]:
    """Operations of an update of each phase; none of an algorithm that doesn't say them."""
    if not hasattr(module, "operations"):
        return {}
    return {phase: count.executed for phase, count in module.operations(config, spec).items()}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.3g}"


def _span(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:.2g} min"
