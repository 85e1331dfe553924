"""PEX, by the authors' code (github.com/Haichao-Zhang/PEX): three updates, with both policies' actions chosen."""

import contextlib
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np

OBSERVATIONS, ACTIONS, ROWS, HIDDEN = 5, 3, 32, (32, 32)
EXPECTILE, INVERSE_TEMPERATURE, CHOICE, DISCOUNT, POLYAK, RATE = 0.7, 10.0, 10.0, 0.99, 0.005, 3e-4
LOG_STD = -2.0  # of both policies at the start
OBJECTS = {"actor": "policy", "critic": "critic", "target": "target_critic", "value": "vf"}


def record(recording: Any) -> None:
    """Records the phase `update`."""
    sys.path.insert(0, str(recording.checkout))
    for name in ("d4rl", "gym"):  # its helpers ask for them, its updates don't
        sys.modules.setdefault(name, types.ModuleType(name))
    import torch
    from pex.algorithms.pex import PEX
    from pex.networks.policy import GaussianPolicy
    from pex.networks.value_functions import DoubleCriticNetwork, ValueNetwork

    sizes: dict[str, Any] = {"hidden_dim": HIDDEN[0], "n_hidden": len(HIDDEN)}
    agent = PEX(
        critic=DoubleCriticNetwork(OBSERVATIONS, ACTIONS, **sizes),
        vf=ValueNetwork(OBSERVATIONS, **sizes),
        policy=GaussianPolicy(OBSERVATIONS, ACTIONS, **sizes),
        optimizer_ctor=lambda params: torch.optim.Adam(params, lr=RATE),
        tau=EXPECTILE,
        beta=INVERSE_TEMPERATURE,
        discount=DISCOUNT,
        target_update_rate=POLYAK,
        ckpt_path=None,
        inv_temperature=CHOICE,
    )
    networks = {"kept": agent.policy_offline, "actor": agent.policy, "critic": agent.critic, "value": agent.vf}
    for module, network in networks.items():
        _load(network, _weights(recording, module, network))
    agent.target_critic.load_state_dict(agent.critic.state_dict())

    for step in range(3):
        batch = recording.batch(ROWS, OBSERVATIONS, ACTIONS)
        # small noise: samples beyond ±1, which the code leaves to the environment, are clipped here before Q sees them
        draws = [0.5 * recording.normal(ROWS, ACTIONS), recording.random.gumbel(size=(2, ROWS)).astype(np.float32)]
        columns = [
            torch.as_tensor(batch[name]) for name in ("observation", "action", "next_observation", "reward", "terminal")
        ]
        *vectors, reward, terminal = columns
        with _replayed(draws):
            agent.update(*vectors, reward[:, 0], terminal[:, 0])
        recording.note("update", step, batch=batch, draw=draws)
        for module, name in OBJECTS.items():
            for part, tensors in _parts(module, getattr(agent, name).state_dict()).items():
                recording.note_after("update", step, part, tensors)


def _parts(module: str, tensors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Tensors of a module as the recording names them: those of twin critics apart, by "critic_1" and "critic_2"."""
    if module not in ("critic", "target"):
        return {module: {name: tensor.detach().numpy() for name, tensor in tensors.items()}}
    return {
        f"{module}_{i}": {
            name.removeprefix(f"q{i}."): tensor.detach().numpy()
            for name, tensor in tensors.items()
            if name.startswith(f"q{i}.")
        }
        for i in (1, 2)
    }


def _weights(recording: Any, module: str, network: Any) -> dict[str, np.ndarray]:
    """Initial weights of a network by its own names."""
    found = {}
    for part, tensors in _parts(module, network.state_dict()).items():
        shapes = {name: tensor.shape for name, tensor in tensors.items() if name != "log_std"}
        prefix = f"q{part[-1]}." if module == "critic" else ""
        found |= {prefix + name: value for name, value in recording.weights(part, shapes).items()}
        if "log_std" in tensors:
            found["log_std"] = np.full(ACTIONS, LOG_STD, np.float32)
        if module == "critic":
            recording.copy(part, part.replace("critic", "target"))
    return found


def _load(network: Any, weights: Mapping[str, np.ndarray]) -> None:
    """Puts weights in the place of a network's own."""
    import torch

    tensors = {name: torch.as_tensor(np.array(value)) for name, value in weights.items()}
    network.load_state_dict(network.state_dict() | tensors)


@contextlib.contextmanager
def _replayed(draws: Sequence[np.ndarray]) -> Iterator[None]:
    """Within it, the code's draws are these: the new policy's noise, and the Gumbel noise of the choice [2, B].

    A draw of i with probability softmax(l)_i is the largest of l_i + g_i.
    """
    import torch
    import torch.distributions as td

    remaining = [torch.as_tensor(draw) for draw in draws]

    def normal(self: Any, sample_shape: Any = ()) -> Any:
        sample = self.loc + self.scale * remaining.pop(0).reshape(self.loc.shape)
        assert sample.abs().max() <= 1, "a sample lies beyond ±1: take another --seed"
        return sample

    def categorical(self: Any, sample_shape: Any = ()) -> Any:
        noise = remaining.pop(0).T.reshape(self.logits.shape)
        return torch.argmax(self.logits + noise, dim=-1)

    with mock.patch.object(td.Normal, "sample", normal), mock.patch.object(td.Categorical, "sample", categorical):
        yield
    assert not remaining, "the code drew less than was foreseen"
