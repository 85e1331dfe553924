"""Estimates of what a run will take, before it begins: operations by count, hours by a short measurement.

Memory is `runtime.limits`' business.
"""

import dataclasses
import time
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from o2o_jax import envs, networks, offline, online, operations
from o2o_jax.interfaces import Algorithm, Task
from o2o_jax.policy import CloneConfig
from o2o_jax.runtime import limits, seeds
from o2o_jax.runtime.plan import Plan
from o2o_jax.training import gradient_step
from o2o_jax.types import Array, Params, Spec

SECONDS = 1.0  # of the measurement, beside what compiling it takes
STEPS = 10  # gradient steps of a compiled call
CRITICS = 2
MOST_OPERATIONS = 1e12  # of such a call, whatever the settings: half a minute on a slow core
# Below these a run takes seconds, and measuring longer than it
WORTH_OPERATIONS = 1e12
WORTH_ENV_STEPS = 50_000


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


def describe(plan: Plan) -> list[str]:
    """Returns what a run takes, a line each. Impure: measures for some seconds.

    Args:
      plan: of the run; neither its dataset nor its environments need be there.

    Raises:
      ValueError: it takes more memory than is free.
    """
    memory = limits.size_text(sum(limits.check(plan).values()))
    work, setup, num_seeds = work_of(plan), plan.setup, len(plan.setup.seeds)
    lines: list[str] = []
    if not work:
        return [_memory_line(memory), "no update is due"]
    for part in work:
        if part.operations is None:
            uncounted = f"{part.phase}: {part.updates:,} updates, whose operations aren't counted: no time estimate"
            return [*lines, uncounted, _memory_line(memory)]
        lines.append(f"{part.phase}: {part.updates:,} updates of {_number(part.operations / 1e6)} MFLOP")
    total = operations_of(plan)
    rate = measure_rate(setup.config, setup.spec, num_seeds, setup.mesh)
    return [
        *lines,
        _memory_line(memory),
        f"operations: {_number(total / 1e12)} TFLOP per seed, {_number(num_seeds * total / 1e12)} in all",
        f"time: about {limits.span_text(num_seeds * total / rate)} of updates on this machine. That rests on "
        f"{SECONDS:g} s of gradient steps of {CRITICS} critics of this size and batch, all seeds together, just now: "
        f"{_number(rate / 1e9)} GFLOP/s. Simulators, evaluations and compilation come on top",
    ]


def _memory_line(memory: str) -> str:
    return f"memory: at least {memory}, beside the data, programs and simulators"


def announce(plan: Plan) -> str:
    """Returns a line on how long a run will take on this machine; "" for one of seconds. Impure: measures for some.

    Args:
      plan: of the run.

    Raises:
      ValueError: it would take more than a year.
    """
    work, (updates, simulators) = work_of(plan), seconds_of(plan)
    fewer = "updates" if updates > simulators else "environment steps, or evaluations and their episodes"
    limits.check_hours(updates + simulators, f"ask for fewer {fewer}, or lower --seeds")
    if any(part.operations is None for part in work):
        return f"how long this takes can't be said: the operations of {plan.setup.algorithm.name} aren't counted"
    if not updates + simulators:
        return ""
    return (
        f"about {limits.span_text(updates + simulators)} on this machine, by a measurement just now: "
        f"{limits.span_text(updates)} of updates, {limits.span_text(simulators)} of simulators at most"
    )


def seconds_of(plan: Plan) -> tuple[float, float]:
    """Returns the seconds of a run's updates and of its simulators, 0 of one that takes few. Impure: measures for some.

    Args:
      plan: of the run; neither its dataset nor its environments need be there.
    """
    setup, num_seeds = plan.setup, len(plan.setup.seeds)
    total, steps = num_seeds * operations_of(plan), num_seeds * simulated_steps(plan)
    if total < WORTH_OPERATIONS and steps < WORTH_ENV_STEPS:
        return 0.0, 0.0
    updates = total / measure_rate(setup.config, setup.spec, num_seeds, setup.mesh) if total else 0.0
    simulators = steps * measure_env_step(setup.task) if isinstance(setup.task, Task) and steps else 0.0
    return updates, simulators


def operations_of(plan: Plan) -> float:
    """Returns the floating-point operations of a seed's updates, of those that are counted."""
    return sum(part.updates * (part.operations or 0.0) for part in work_of(plan))


def check_simulators(task: Task, steps: int, way_out: str) -> None:
    """Refuses more environment steps, one after the other, than a year has time for. Impure: measures where it may be.

    Args:
      task: of the environment.
      steps: how many at most.
      way_out: what to do instead.

    Raises:
      ValueError: they take longer.
    """
    if steps >= WORTH_ENV_STEPS:
        limits.check_hours(steps * measure_env_step(task), way_out)


def work_of(plan: Plan) -> list[Work]:
    """Returns the updates that a run makes itself."""
    setup = plan.setup
    methods = offline if setup.algorithm.online is None else online
    module = methods.load(plan.settings["algorithm"])
    if setup.algorithm.online is None:
        return offline_work(module, setup.config, setup.spec)
    work = online_work(module, setup.algorithm, setup.config, setup.spec, plan.clone)
    return [part for part in work if part.phase == "finetune"] if plan.reconstruction else work


def simulated_steps(plan: Plan) -> int:
    """Returns the most environment steps that a seed takes in a run, evaluations included."""
    setup, config = plan.setup, plan.setup.config
    if not isinstance(setup.task, Task):  # sizes alone: nothing is played
        return 0
    every, own = plan.eval_every, 0
    looks = sum(phase.updates // every for phase in setup.algorithm.phases) if every else 0
    if setup.algorithm.online is None:
        looks = max(1, looks)
    looks *= 1 + plan.eval_sampled
    if setup.algorithm.online is not None:
        looks, own = looks + 2 + config.env_steps // config.evaluation.every_env_steps, config.env_steps
    return own + looks * plan.episodes * setup.task.max_episode_steps


def measure_env_step(task: Task) -> float:
    """Returns the seconds of an environment step under random actions. Impure: makes an environment, reads the clock.

    Args:
      task: of the environment.
    """
    env = envs.family(task.name).make_env(task)
    try:
        env.action_space.seed(0)
        env.reset(seed=0)
        steps, began = 0, time.perf_counter()
        while not steps or time.perf_counter() - began < SECONDS / 4:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
            steps += 1
        return (time.perf_counter() - began) / steps
    finally:
        env.close()


def measure_rate(config: Any, spec: Spec, num_seeds: int, mesh: Mesh) -> float:
    """Returns floating-point operations per second of all seeds together. Impure: compiles, runs, reads the clock.

    Args:
      config: settings, with the sizes of networks and batches.
      spec: sizes of observations and actions.
      num_seeds: S.
      mesh: devices that share the seeds.
    """
    sizes = getattr(config, "networks", config)  # offline settings have no parts
    hidden = getattr(sizes, "critic_hidden", sizes.hidden)
    network = operations.Network(spec.observation_dim + spec.action_dim, hidden, 1, CRITICS)
    # fewer rows where these alone would take long: the rate hardly depends on so many
    rows = max(1, min(operations.batch_size_of(config), int(MOST_OPERATIONS / (STEPS * num_seeds * network.step(1)))))
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
    return calls * STEPS * num_seeds * network.step(rows) / seconds


def _executed(module: ModuleType, config: Any, spec: Spec) -> dict[str, float]:
    """Operations of an update of each phase; none of an algorithm that doesn't say them."""
    if not hasattr(module, "operations"):
        return {}
    return {phase: count.executed for phase, count in module.operations(config, spec).items()}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.3g}"
