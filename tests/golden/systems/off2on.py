"""Off2On, by the authors' code (github.com/shlee94/Off2OnRL): three updates of three agents, priorities among them."""

import contextlib
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np

OBSERVATIONS, ACTIONS, ROWS, WIDTH, AGENTS = 5, 3, 32, 32, 3
# imported by the code, and not used in an update
UNUSED = (
    "d4rl", "dateutil", "dateutil.tz", "gtimer", "gym", "gym.spaces", "gym.wrappers", "torchvision",
    "torchvision.models", "rlkit.data_management.env_replay_buffer",
    "rlkit.data_management.prioritized_replay_buffer", "rlkit.launchers.conf", "rlkit.launchers.launcher_util",
    "rlkit.samplers.data_collector", "rlkit.torch.torch_rl_algorithm",
)  # fmt: skip


def record(recording: Any) -> None:
    """Records the phase `update`: batches by priority, of the dataset and fresh, and the priorities that are found."""
    sys.path[:0] = [str(recording.checkout / "rlkit"), str(recording.checkout / "rlkit" / "examples")]
    stand_in()
    import ours  # of the checkout
    import rlkit.torch.pytorch_util as ptu
    from rlkit.torch.networks import ConcatMlp
    from rlkit.torch.sac.ours import OursTrainer
    from rlkit.torch.sac.policies import TanhGaussianPolicy

    ptu.set_gpu_mode(False)
    policies = [
        TanhGaussianPolicy(obs_dim=OBSERVATIONS, action_dim=ACTIONS, hidden_sizes=[WIDTH] * 2) for _ in range(AGENTS)
    ]
    values = [ours.ParallelMlp(OBSERVATIONS + ACTIONS, WIDTH, 2, 1, AGENTS) for _ in range(4)]
    ratio = ConcatMlp(input_size=OBSERVATIONS + ACTIONS, output_size=1, hidden_sizes=[WIDTH] * 2)
    learning = {f"actor_{k}": Plain(policy) for k, policy in enumerate(policies, 1)}
    learning |= {f"critic_{k}_{j}": OfAgent(values[j - 1], k - 1) for k in range(1, AGENTS + 1) for j in (1, 2)}
    learning |= {"ratio": Plain(ratio)}
    for module, network in learning.items():
        network.put(recording.weights(module, {name: value.shape for name, value in network.tensors().items()}))
    targets = {}
    for k in range(1, AGENTS + 1):
        for j in (1, 2):
            recording.copy(f"critic_{k}_{j}", f"target_{k}_{j}")
            targets[f"target_{k}_{j}"] = OfAgent(values[j + 1], k - 1)
    for j in (0, 1):
        values[j + 2].load_state_dict(values[j].state_dict())

    priorities = Priorities()
    env = types.SimpleNamespace(action_space=types.SimpleNamespace(shape=(ACTIONS,)))
    trainer = OursTrainer(
        env, ours.ParallelTanhGaussianPolicy(policies), *values, ratio, priorities, 1_000, policy_lr=3e-4, qf_lr=3e-4,
        soft_target_tau=5e-3, ensemble_size=AGENTS,
    )  # fmt: skip
    for step in range(3):
        batches = {name: recording.batch(ROWS, OBSERVATIONS, ACTIONS) for name in ("batch", "offline", "online")}
        noise = [0.3 * recording.normal(ROWS, ACTIONS) for _ in range(2)]
        with replayed(noise), kept(trainer) as losses:
            trainer.train_from_torch(of_parts(**batches))
        log = {name: float(value) for name, value in losses[0]._asdict().items()}
        recording.note("update", step, **batches, draw=noise, log=log, found={"priority": priorities.found})
        for module, network in (learning | targets).items():
            recording.note_after("update", step, module, network.tensors())
        recording.note_after("update", step, "log_alpha", {"constant": trainer.log_alpha.detach().numpy()})


class Priorities:
    """The code's replay, as far as an update writes into it."""

    found: np.ndarray

    def update_priorities(self, places: np.ndarray, priorities: np.ndarray) -> None:
        """Keeps what was written."""
        del places
        self.found = priorities


class Plain:
    """A network of linear layers, of which those of mean and log σ are one, in PyTorch's layout."""

    def __init__(self, network: Any):
        outputs = [network.last_fc]
        if hasattr(network, "last_fc_log_std"):
            outputs.append(network.last_fc_log_std)
        self._layers = {f"dense_{i}": [layer] for i, layer in enumerate(network.fcs)} | {"out": outputs}

    def tensors(self) -> dict[str, np.ndarray]:
        """All tensors, in their order."""
        return {
            f"{name}.{kind}": np.concatenate([getattr(layer, kind).detach().numpy() for layer in parts])
            for name, parts in self._layers.items()
            for kind in ("weight", "bias")
        }

    def put(self, weights: dict[str, np.ndarray]) -> None:
        """Takes weights in the place of its own."""
        import torch

        with torch.no_grad():
            for name, parts in self._layers.items():
                for kind in ("weight", "bias"):
                    for i, value in enumerate(np.split(weights[f"{name}.{kind}"], len(parts))):
                        getattr(parts[i], kind).copy_(torch.as_tensor(value))


class OfAgent:
    """One agent's critic among those that the code computes at once, in PyTorch's layout."""

    def __init__(self, network: Any, agent: int):
        self._layers = {"dense_0": network.h1, "dense_1": network.h2, "out": network.output}
        self._agent = agent

    def tensors(self) -> dict[str, np.ndarray]:
        """All tensors, in their order."""
        found = {}
        for name, layer in self._layers.items():
            found[f"{name}.weight"] = layer.weights.detach().numpy()[self._agent].T
            found[f"{name}.bias"] = layer.biases.detach().numpy()[self._agent, 0]
        return {name: value.copy() for name, value in found.items()}

    def put(self, weights: dict[str, np.ndarray]) -> None:
        """Takes weights in the place of its own."""
        import torch

        with torch.no_grad():
            for name, layer in self._layers.items():
                layer.weights[self._agent] = torch.as_tensor(weights[f"{name}.weight"].T.copy())
                layer.biases[self._agent, 0] = torch.as_tensor(weights[f"{name}.bias"])


def of_parts(**batches: dict[str, np.ndarray]) -> dict[str, Any]:
    """Batches as the code has them."""
    import torch

    names = {"observation": "observations", "action": "actions", "reward": "rewards",
             "next_observation": "next_observations", "terminal": "terminals"}  # fmt: skip
    found = {"tree_idxs": torch.arange(ROWS)}
    for part, batch in batches.items():
        prefix = "rl" if part == "batch" else part
        found |= {f"{prefix}_{names[name]}": torch.as_tensor(value) for name, value in batch.items()}
    return found


def stand_in() -> None:
    """Puts empty modules in the place of those that an update doesn't use."""
    for name in UNUSED:
        sys.modules[name] = mock.MagicMock(name=name)
    # a base class of the trainer
    sys.modules["rlkit.torch.torch_rl_algorithm"].TorchTrainer = type(
        "TorchTrainer", (), {"__init__": lambda self: None}
    )


@contextlib.contextmanager
def kept(trainer: Any) -> Iterator[list[Any]]:
    """Within it, the losses that a trainer computes are in the list."""
    compute, losses = trainer.compute_loss, []

    def computed(*arguments: Any, **options: Any) -> Any:
        found = compute(*arguments, **options)
        losses.append(found[0])
        return found

    with mock.patch.object(trainer, "compute_loss", computed):
        yield losses


@contextlib.contextmanager
def replayed(draws: Sequence[np.ndarray]) -> Iterator[None]:
    """Within it, the noise of the code's samples is this, in order."""
    import torch
    from rlkit.torch import distributions

    remaining = [torch.as_tensor(draw) for draw in draws]

    def sample(self: Any) -> Any:
        del self
        return remaining.pop(0)

    with mock.patch.object(distributions.MultivariateDiagonalNormal, "sample", sample):
        yield
    assert not remaining, "the code drew less than was foreseen"
