"""SAC+ML and ACA, by the authors' code (github.com/ZishunYu/Actor-Critic-Alignment): three updates of each, and what
it makes of the functions Z between them.
"""

import contextlib
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np

OBSERVATIONS, ACTIONS, ROWS = 5, 3, 32
HIDDEN = (32, 32)
EDGE = 0.999  # a little beyond it this package clips actions that are given, and the code does not


def record(recording: Any) -> None:
    """Records the phases `offline`, `transfer` and `finetune`, the last from an actor that isn't π_0."""
    sys.path.insert(0, str(recording.checkout))
    import copy

    from aca_agent.aca import ACA  # of the checkout
    from sacml_agent.sacml import SACML
    from utility import critic_init

    offline = make_agent(SACML, alpha=30)
    impl = offline.impl
    named = {"actor": impl._policy}
    named |= twins("critic", impl._q_func._q_funcs) | twins("baseline", impl._z_func._z_funcs)
    for module, network in named.items():
        put(recording, module, network)
    # a bound that counts, and a weight that falls twice, the second time as far as it may
    online = make_agent(ACA, beta=1, interpolation=(1, 1, 0.9985))
    online.impl._z_func.load_state_dict(impl._z_func.state_dict())
    critic_init(online, *stand_ins())
    for module, network in twins("critic", online.impl._q_func._q_funcs).items():
        recording.note_after("transfer", 0, module, tensors(network))

    followed = twins("target", impl._targ_q_func._q_funcs)
    impl._targ_q_func.load_state_dict(impl._q_func.state_dict())
    for i in ("1", "2"):
        recording.copy(f"critic_{i}", f"target_{i}")
    record_updates(recording, "offline", offline, 4, named | followed)

    impl = online.impl
    impl._reference_policy = copy.deepcopy(impl._policy)
    learning = {"policy": impl._policy, **twins("residual", impl._q_func._q_funcs)}
    for module, network in (learning | {"kept": impl._reference_policy}).items():
        put(recording, module, network)
    impl._targ_q_func.load_state_dict(impl._q_func.state_dict())
    for i in ("1", "2"):
        recording.copy(f"residual_{i}", f"residual_target_{i}")
    record_updates(recording, "finetune", online, 3, learning | twins("residual_target", impl._targ_q_func._q_funcs))


def make_agent(kind: Any, **settings: Any) -> Any:
    """An agent of the code, with small networks."""
    from d3rlpy.models.encoders import VectorEncoderFactory

    encoders = {
        f"{name}_encoder_factory": VectorEncoderFactory(hidden_units=list(HIDDEN))
        for name in ("actor", "critic", "baseline")
    }
    agent = kind(batch_size=ROWS, target_entropy=1.0 * ACTIONS, **encoders, **settings)
    agent.create_impl((OBSERVATIONS,), ACTIONS)
    return agent


def twins(name: str, networks: Sequence[Any]) -> dict[str, Any]:
    """Networks of an ensemble by their names here, "critic_1" and so on."""
    return {f"{name}_{i}": network for i, network in enumerate(networks, 1)}


def record_updates(recording: Any, phase: str, agent: Any, draws: int, noted: dict[str, Any]) -> None:
    """Records three updates of an agent, each with so many draws, and the networks `noted` after them."""
    for step in range(3):
        batch = recording.batch(ROWS, OBSERVATIONS, ACTIONS)
        noise = [0.3 * recording.normal(ROWS, ACTIONS) for _ in range(draws)]
        with replayed(noise):
            log = agent._update(of_transitions(batch))
        recording.note(phase, step, batch=batch, draw=noise, log=log)
        for module, network in noted.items():
            recording.note_after(phase, step, module, tensors(network))
        log_alpha = agent.impl._log_temp().detach().numpy()
        recording.note_after(phase, step, "log_alpha", {"constant": log_alpha})


def of_transitions(batch: dict[str, np.ndarray]) -> Any:
    """A batch as the code has it."""
    from d3rlpy.dataset import Transition, TransitionMiniBatch

    def transition(row: int) -> Any:
        columns = {name: batch[name][row] for name in ("observation", "action", "next_observation")}
        scalars = {name: float(batch[name][row, 0]) for name in ("reward", "terminal")}
        return Transition((OBSERVATIONS,), ACTIONS, **columns, **scalars)

    return TransitionMiniBatch([transition(row) for row in range(ROWS)])


def stand_ins() -> tuple[Any, Any]:
    """An environment of the right size, and a dataset of one transition, by which the code checks what it makes."""
    transition = types.SimpleNamespace(observation=np.ones(OBSERVATIONS), action=np.ones(ACTIONS))
    space = types.SimpleNamespace(_shape=(OBSERVATIONS,))
    return types.SimpleNamespace(observation_space=space), types.SimpleNamespace(episodes=[[transition]])


def layers(network: Any) -> dict[str, list[Any]]:
    """The linear layers of a network by their names here; those of mean and log σ are one."""
    outputs = [network._mu, network._logstd] if hasattr(network, "_mu") else [network._fc]
    return {f"dense_{i}": [layer] for i, layer in enumerate(network._encoder._fcs)} | {"out": outputs}


def tensors(network: Any) -> dict[str, np.ndarray]:
    """All tensors of a network, in their order."""
    return {
        f"{name}.{kind}": np.concatenate([getattr(layer, kind).detach().numpy() for layer in parts])
        for name, parts in layers(network).items()
        for kind in ("weight", "bias")
    }


def put(recording: Any, module: str, network: Any) -> None:
    """Puts the recording's weights in the place of a network's own."""
    import torch

    weights = recording.weights(module, {name: tensor.shape for name, tensor in tensors(network).items()})
    with torch.no_grad():
        for name, parts in layers(network).items():
            for kind in ("weight", "bias"):
                for part, value in enumerate(np.split(weights[f"{name}.{kind}"], len(parts))):
                    getattr(parts[part], kind).copy_(torch.as_tensor(value))


@contextlib.contextmanager
def replayed(draws: Sequence[np.ndarray]) -> Iterator[None]:
    """Within it, the noise of the code's samples is this, in order."""
    import torch

    remaining = [torch.as_tensor(draw) for draw in draws]

    def rsample(self: Any, sample_shape: Any = ()) -> Any:
        sample = self.loc + self.scale * remaining.pop(0)
        assert torch.tanh(sample).abs().max() < EDGE, "a sample lies too near the edge: take another --seed"
        return sample

    with mock.patch.object(torch.distributions.Normal, "rsample", rsample):
        yield
    assert not remaining, "the code drew less than was foreseen"
