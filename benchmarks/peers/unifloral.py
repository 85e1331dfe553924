"""github.com/EmptyJackson/unifloral as a worker; see `benchmarks.peers.worker`.

A step of its TD3+BC moves the critics twice and the actor once, on one batch: it counts as two updates.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.peers import checkout

REPOSITORY = "EmptyJackson/unifloral"


def prepare(work: dict[str, Any]) -> Callable[[int], int]:
    """Updates of TD3+BC or IQL, `work["chunk"]` to a compiled scan."""
    module = checkout.load(work["checkout"], "algorithms", work["name"], REPOSITORY)
    import jax
    import jax.numpy as jnp

    args = module.Args(batch_size=work["batch_size"])
    columns = checkout.arrays(work)
    names = {"obs": "observations", "action": "actions", "reward": "rewards", "next_obs": "next_observations"}
    names["done"] = "terminals"
    data = module.Transition(**{name: jnp.asarray(columns[column]) for name, column in names.items()})
    mean, std = data.obs.mean(axis=0), data.obs.std(axis=0)
    observation, action = jnp.zeros(work["observation_dim"]), jnp.zeros(work["action_dim"])
    critic = module.DualQNetwork(mean, std)
    actor_key, critic_key, value_key, key = jax.random.split(jax.random.PRNGKey(0), 4)

    def state_of(key: Any, network: Any, *inputs: Any) -> Any:
        return module.create_train_state(args, key, network, inputs)

    states = {name: state_of(critic_key, critic, observation, action) for name in ("dual_q", "dual_q_target")}
    if work["name"] == "td3_bc":
        actor = module.DeterministicTanhActor(work["action_dim"], mean, std)
        states |= {name: state_of(actor_key, actor, observation) for name in ("actor", "actor_target")}
        step = module.make_train_step(args, actor.apply, critic.apply, data)
        updates_per_step = args.num_critic_updates_per_step
    else:
        actor = module.TanhGaussianActor(work["action_dim"], mean, std)
        value = module.StateValueFunction(mean, std)
        states |= {"actor": state_of(actor_key, actor, observation), "value": state_of(value_key, value, observation)}
        step = module.make_train_step(args, actor.apply, critic.apply, value.apply, data)
        updates_per_step = 1
    carry = key, module.AgentTrainState(**states)
    steps = max(1, work["chunk"] // updates_per_step)
    program = jax.jit(lambda carry: jax.lax.scan(step, carry, None, steps))

    def run(updates: int) -> int:
        nonlocal carry
        calls = -(-updates // (steps * updates_per_step))
        for _ in range(calls):
            carry, _ = program(carry)
        jax.block_until_ready(carry)
        return calls * steps * updates_per_step

    return run
