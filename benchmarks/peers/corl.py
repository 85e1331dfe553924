"""github.com/tinkoff-ai/CORL as a worker; see `benchmarks.peers.worker`.

Its trainers are built as its own scripts build them, with the settings for locomotion.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.peers import checkout

REPOSITORY = "tinkoff-ai/CORL"


def prepare(work: dict[str, Any]) -> Callable[[int], int]:
    """Updates of TD3+BC, IQL or CQL."""
    import torch

    torch.set_num_threads(work["threads"])
    module = checkout.load(work["checkout"], "algorithms/offline", work["name"], REPOSITORY)
    trainer = {"td3_bc": _td3_bc, "iql": _iql, "cql": _cql}[work["name"]](
        module, work["observation_dim"], work["action_dim"]
    )
    buffer = module.ReplayBuffer(work["observation_dim"], work["action_dim"], work["rows"], "cpu")
    buffer.load_d4rl_dataset(checkout.arrays(work))

    def run(updates: int) -> int:
        for _ in range(updates):
            trainer.train(buffer.sample(work["batch_size"]))
        return updates

    return run


def _with_optimizer(network: Any, learning_rate: float = 3e-4) -> tuple[Any, Any]:
    import torch

    return network, torch.optim.Adam(network.parameters(), lr=learning_rate)


def _td3_bc(module: Any, observation_dim: int, action_dim: int) -> Any:
    networks = [module.Actor(observation_dim, action_dim, 1.0)]
    networks += [module.Critic(observation_dim, action_dim) for _ in range(2)]
    return module.TD3_BC(1.0, *(part for network in networks for part in _with_optimizer(network)))


def _iql(module: Any, observation_dim: int, action_dim: int) -> Any:
    return module.ImplicitQLearning(
        1.0,
        *_with_optimizer(module.GaussianPolicy(observation_dim, action_dim, 1.0)),
        *_with_optimizer(module.TwinQ(observation_dim, action_dim)),
        *_with_optimizer(module.ValueFunction(observation_dim)),
    )


def _cql(module: Any, observation_dim: int, action_dim: int) -> Any:
    critics = [module.FullyConnectedQFunction(observation_dim, action_dim, True) for _ in range(2)]
    return module.ContinuousCQL(
        *(part for critic in critics for part in _with_optimizer(critic)),
        *_with_optimizer(module.TanhGaussianPolicy(observation_dim, action_dim, 1.0, orthogonal_init=True), 3e-5),
        target_entropy=-float(action_dim),
        policy_lr=3e-5,
        bc_steps=0,
        cql_alpha=10.0,
    )
