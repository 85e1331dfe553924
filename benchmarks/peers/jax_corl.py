"""github.com/nissymori/JAX-CORL as a worker; see `benchmarks.peers.worker`.

Two hidden layers everywhere, and LayerNorm in the critics of TD3+BC and the values of IQL, as its settings have them.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.peers import checkout

REPOSITORY = "nissymori/JAX-CORL"
# workload: its file, its class, and how it makes a state
MODULES = {
    "td3_bc": ("td3bc", "TD3BC", "create_td3bc_train_state"),
    "iql": ("iql", "IQL", "create_iql_train_state"),
    "cql": ("cql", "CQL", "create_cql_train_state"),
}


def prepare(work: dict[str, Any]) -> Callable[[int], int]:
    """Updates of TD3+BC, IQL or CQL, as many to a compiled call as its settings say."""
    file, class_name, create = MODULES[work["name"]]
    module = checkout.load(work["checkout"], "algos", file, REPOSITORY)
    import jax
    import jax.numpy as jnp

    config = module.config  # networks read it too, so that a changed copy wouldn't do
    config.batch_size = work["batch_size"]
    if work["name"] == "cql":
        config.action_dim, config.target_entropy = work["action_dim"], -float(work["action_dim"])
    columns = checkout.arrays(work)
    names = {"dones": "terminals", "dones_float": "terminals"}
    data = module.Transition(
        **{name: jnp.asarray(columns[names.get(name, name)]) for name in module.Transition._fields}
    )
    state = getattr(module, create)(jax.random.PRNGKey(0), data.observations[0], data.actions[0], config)
    update = jax.jit(getattr(module, class_name)().update_n_times, static_argnums=(3,))
    key = jax.random.PRNGKey(1)

    def run(updates: int) -> int:
        nonlocal state, key
        calls = -(-updates // config.n_jitted_updates)
        for _ in range(calls):
            key, update_key = jax.random.split(key)
            state, _ = update(state, data, update_key, config)
        jax.block_until_ready(state)
        return calls * config.n_jitted_updates

    return run
