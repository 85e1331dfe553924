"""The authors' released code, github.com/QinwenLuo/OCR-CFT, as a worker; see `benchmarks.peers.worker`.

Its agents are built as its own scripts build them, from random networks, with the settings for medium data.
"""

import copy
import functools
import math
import types
from collections.abc import Callable
from typing import Any

from benchmarks.peers import checkout

REPOSITORY = "QinwenLuo/OCR-CFT"
TARGET_STEPS = 100_000  # environment steps over which thresholds rise; no cost depends on them


def prepare(work: dict[str, Any]) -> Callable[[int], int]:
    """Updates of O2SAC, O2TD3 or O2PPO; one of PPO is a whole rollout."""
    import torch

    torch.set_num_threads(work["threads"])
    algorithm, _, phase = work["name"].partition("/")
    if algorithm == "o2ppo":
        return _ppo(work)
    net = checkout.load(work["checkout"], "", "net", REPOSITORY)
    agent = (_sac if algorithm == "o2sac" else _td3)(work, net)
    buffers = checkout.load(work["checkout"], "", "dataset_utils", REPOSITORY)
    buffer = buffers.ReplayBuffer(work["observation_dim"], work["action_dim"], work["rows"], "cpu")
    buffer.load_d4rl_dataset(checkout.arrays(work))
    update = {
        "reevaluate": agent.ope,
        "align": agent.align_value,
        "finetune": lambda batch: agent.update(batch, total_steps=1, grad_clip=False),
    }[phase]

    def run(updates: int) -> int:
        for _ in range(updates):
            update(buffer.sample(work["batch_size"]))
        return updates

    return run


def _critics(work: dict[str, Any], net: Any, hidden_layers: int) -> list[Any]:
    """Both critics, each followed by its optimiser."""
    import torch

    parts = []
    for _ in range(2):
        critic = net.CriticFunction(
            work["observation_dim"], work["action_dim"], layer_norm=True, n_hidden=hidden_layers
        )
        parts += [critic, torch.optim.Adam(critic.parameters(), lr=3e-4)]
    return parts


def _sac(work: dict[str, Any], net: Any) -> Any:
    import torch

    module = checkout.load(work["checkout"], "finetune", "online_agent.sac", REPOSITORY)
    actor = net.TanhGaussianPolicy(work["observation_dim"], work["action_dim"], 1.0, orthogonal_init=True)
    return module.SAC(
        *_critics(work, net, 3),
        actor,
        torch.optim.Adam(actor.parameters(), lr=1e-4),
        target_entropy=-float(work["action_dim"]),
        max_action=1.0,
        log_alpha=math.log(0.2),
        log_lmbda=0.0,
        threshold=0.125,
        end_threshold=2.0,
        max_timesteps=TARGET_STEPS,
    )


def _td3(work: dict[str, Any], net: Any) -> Any:
    import torch

    module = checkout.load(work["checkout"], "finetune", "online_agent.td3", REPOSITORY)
    actor = net.DeterministicPolicy(work["observation_dim"], work["action_dim"], 1.0)
    return module.TD3(
        1.0,
        actor,
        torch.optim.Adam(actor.parameters(), lr=1e-4),
        *_critics(work, net, 2),
        log_lmbda=0.0,
        threshold=0.0025,
        end_threshold=0.04,
        max_timesteps=TARGET_STEPS,
    )


def _ppo(work: dict[str, Any]) -> Callable[[int], int]:
    """Its settings are a namespace of flags; those that no update reads are left out."""
    settings = types.SimpleNamespace(
        state_dim=work["observation_dim"],
        action_dim=work["action_dim"],
        max_action=1.0,
        batch_size=2_048,
        mini_batch_size=128,
        max_train_steps=250_000,
        v_hidden_width=256,
        v_depth=3,
        lr_a=3e-5,
        lr_c=2e-4,
        gamma=0.99,
        lamda=0.95,
        epsilon=0.2,
        K_epochs=10,
        entropy_coef=0.01,
        set_adam_eps=True,
        use_grad_clip=True,
        use_lr_decay=True,
        use_adv_norm=True,
        is_decay_pi=False,
        is_clip_value=False,
        use_auxi=True,
        alpha=2.0,
        end_steps=250_000,
        device="cpu",
    )
    load = functools.partial(checkout.load, work["checkout"], "finetune", repository=REPOSITORY)
    columns = checkout.arrays(work)
    agent = load("online_agent.ppo.ppo").PPO(settings, "cpu")
    agent.reference_actor = copy.deepcopy(agent.actor)
    rollout = load("online_agent.ppo.online_buffer").ReplayBuffer(settings, "cpu")
    for t in range(settings.batch_size):
        row = {name: column[t % work["rows"]] for name, column in columns.items()}
        log_prob = -1.0  # per dimension; no cost depends on it
        rollout.store(row["observations"], row["actions"], log_prob, row["rewards"], row["next_observations"], 0.0, 0.0)

    def update() -> None:
        agent.update(rollout, total_steps=1)

    def run(updates: int) -> int:
        for _ in range(updates):
            update()
        return updates

    return run
