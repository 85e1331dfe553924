"""WSRL's online phase, by the authors' code (github.com/zhouzypaul/wsrl): three updates of four critic steps each."""

import sys
from typing import Any
from unittest import mock

import numpy as np
from systems.cal_ql import replayed_draws

OBSERVATIONS, ACTIONS, ROWS, STEPS, SAMPLES = 5, 3, 32, 4, 3
CRITICS, DRAWN = 4, 2
HIDDEN = (32, 32)
ALPHA = 0.5
CRITIC_NAMES = [f"critic_{number}" for number in range(1, CRITICS + 1)]


def record(recording: Any) -> None:
    """Records the phase `update`: the best of several actions in targets, a temperature that doesn't move."""
    sys.path.insert(0, str(recording.checkout))
    import functools

    import flax.linen as nn

    # this package's ε, PyTorch's
    with mock.patch.object(nn, "LayerNorm", functools.partial(nn.LayerNorm, epsilon=1e-5)):
        record_updates(recording)


def record_updates(recording: Any) -> None:
    """Records three updates."""
    import jax
    import jax.numpy as jnp

    agent = make_agent(recording)
    for step in range(3):
        batch = recording.batch(ROWS, OBSERVATIONS, ACTIONS)
        next_noise = recording.normal(STEPS, ROWS // STEPS, SAMPLES, ACTIONS)
        subsets = np.stack([recording.random.permutation(CRITICS)[:DRAWN] for _ in range(STEPS)])
        noise = recording.normal(ROWS, ACTIONS)
        theirs = {
            "observations": batch["observation"],
            "actions": batch["action"],
            "rewards": batch["reward"][:, 0],
            "next_observations": batch["next_observation"],
            "masks": 1.0 - batch["terminal"][:, 0],
        }
        of_temperature = recording.normal(SAMPLES, ROWS, ACTIONS)  # which doesn't move
        draws = [*np.swapaxes(next_noise, 1, 2), noise, of_temperature]
        with (
            replayed_draws(jax, draws),
            mock.patch.object(jax.random, "randint", side_effect=[jnp.asarray(subset) for subset in subsets]),
            jax.disable_jit(),
        ):
            columns = {name: jnp.asarray(column) for name, column in theirs.items()}
            agent, metrics = agent.update_high_utd(columns, utd_ratio=STEPS)
        recording.note("update", step, batch=batch, draw=[next_noise, subsets, noise])
        log = {name: metrics["critic"][name] for name in ("critic_loss", "predicted_qs", "target_qs")}
        log |= {name: metrics["actor"][name] for name in ("actor_loss", "temperature", "entropy")}
        recording.note("update", step, log=log)
        recording.note_after("update", step, "actor", of_actor(agent.state.params))
        for kind, params in (("critic", agent.state.params), ("target", agent.state.target_params)):
            for number in range(CRITICS):
                recording.note_after("update", step, f"{kind}_{number + 1}", of_critic(params, number))


def make_agent(recording: Any) -> Any:
    """The code's agent with the recording's weights; its critics share no layer."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax
    from wsrl.agents import sac

    class Critic(nn.Module):
        """The ensemble alone: the code's own module puts one output layer behind all of its members."""

        encoder: Any
        network: nn.Module

        @nn.compact
        def __call__(self, observations: Any, actions: Any, train: bool = False) -> Any:
            return self.network(jnp.concatenate([observations, actions], -1), train=train)[..., 0]

    sizes = {"activations": "relu", "use_layer_norm": True}
    with mock.patch.object(sac, "Critic", Critic):
        agent = sac.SACAgent.create(
            jax.random.PRNGKey(0),
            jnp.zeros((1, OBSERVATIONS)),
            jnp.zeros((1, ACTIONS)),
            encoder_def=None,
            shared_encoder=False,
            critic_network_kwargs={**sizes, "hidden_dims": [*HIDDEN, 1], "activate_final": False},
            policy_network_kwargs={**sizes, "hidden_dims": list(HIDDEN)},
            policy_kwargs={"tanh_squash_distribution": True, "std_parameterization": "exp"},
            critic_ensemble_size=CRITICS,
            critic_subsample_size=DRAWN,
            temperature_init=ALPHA,
            max_target_backup=True,
            n_actions=SAMPLES,
            actor_optimizer_kwargs={"learning_rate": 1e-4},
            temperature_optimizer_kwargs={"learning_rate": 0.0},
        )
    actor = recording.weights("actor", shapes(OBSERVATIONS, 2 * ACTIONS), ("norm_0.weight", "norm_1.weight"))
    critics = []
    for name in CRITIC_NAMES:
        critics.append(recording.weights(name, shapes(OBSERVATIONS + ACTIONS, 1), ("norm_0.weight", "norm_1.weight")))
        recording.copy(name, name.replace("critic", "target"))
    params = dict(agent.state.params)
    mean, log_std = np.split(actor["out.weight"], 2), np.split(actor["out.bias"], 2)
    params["modules_actor"] = {
        "Dense_0": dense(mean[0], log_std[0]),
        "Dense_1": dense(mean[1], log_std[1]),
        "network": hidden_layers(actor),
    }
    each = [{**hidden_layers(layers), "Dense_2": dense(layers["out.weight"], layers["out.bias"])} for layers in critics]
    params["modules_critic"] = {"network": jax.tree_util.tree_map(lambda *leaves: jnp.stack(leaves), *each)}
    same = jax.tree_util.tree_structure(params) == jax.tree_util.tree_structure(dict(agent.state.params))
    assert same, "the code's networks are other ones"

    def resting(optimizer: Any) -> Any:
        """The optimiser, at rest where nothing is to be learnt: the code's go on by their momentum."""

        def update(gradient: Any, state: Any, params: Any = None) -> Any:
            if any(bool(jnp.any(leaf)) for leaf in jax.tree_util.tree_leaves(gradient)):
                return optimizer.update(gradient, state, params)
            return jax.tree_util.tree_map(jnp.zeros_like, gradient), state

        return optax.GradientTransformation(optimizer.init, update)

    txs = {name: resting(optimizer) for name, optimizer in agent.state.txs.items()}
    return agent.replace(state=agent.state.replace(params=params, target_params=params, txs=txs))


def shapes(inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes (out, in) of a network's tensors, layer by layer."""
    found: dict[str, tuple[int, ...]] = {}
    for layer, width in enumerate(HIDDEN):
        fan_in = HIDDEN[layer - 1] if layer else inputs
        found |= {f"dense_{layer}.weight": (width, fan_in), f"dense_{layer}.bias": (width,)}
        found |= {f"norm_{layer}.weight": (width,), f"norm_{layer}.bias": (width,)}
    return found | {"out.weight": (outputs, HIDDEN[-1]), "out.bias": (outputs,)}


def dense(weight: np.ndarray, bias: np.ndarray) -> dict[str, Any]:
    """A linear layer's parameters as the code has them."""
    import jax.numpy as jnp

    return {"kernel": jnp.asarray(weight.T), "bias": jnp.asarray(bias)}


def hidden_layers(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """The hidden layers' parameters as the code has them."""
    import jax.numpy as jnp

    found: dict[str, Any] = {}
    for layer in range(len(HIDDEN)):
        found[f"Dense_{layer}"] = dense(tensors[f"dense_{layer}.weight"], tensors[f"dense_{layer}.bias"])
        scale, bias = tensors[f"norm_{layer}.weight"], tensors[f"norm_{layer}.bias"]
        found[f"LayerNorm_{layer}"] = {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}
    return found


def named(layers: Any, out: tuple[Any, Any]) -> dict[str, np.ndarray]:
    """A network's parameters by the recorded names, in PyTorch's layout."""
    found: dict[str, np.ndarray] = {}
    for layer in range(len(HIDDEN)):
        linear, norm = layers[f"Dense_{layer}"], layers[f"LayerNorm_{layer}"]
        found |= {f"dense_{layer}.weight": np.asarray(linear["kernel"]).T, f"dense_{layer}.bias": linear["bias"]}
        found |= {f"norm_{layer}.weight": norm["scale"], f"norm_{layer}.bias": norm["bias"]}
    return found | {"out.weight": np.asarray(out[0]).T, "out.bias": out[1]}


def of_actor(params: Any) -> dict[str, np.ndarray]:
    """The actor's tensors: mean and log σ are two layers there, one here."""
    actor = params["modules_actor"]
    both = [np.concatenate([actor["Dense_0"][name], actor["Dense_1"][name]], axis=-1) for name in ("kernel", "bias")]
    return named(actor["network"], (both[0], both[1]))


def of_critic(params: Any, number: int) -> dict[str, np.ndarray]:
    """The tensors of one critic of the ensemble."""
    layers = params["modules_critic"]["network"]
    one = {name: {kind: np.asarray(leaf)[number] for kind, leaf in layer.items()} for name, layer in layers.items()}
    return named(one, (one["Dense_2"]["kernel"], one["Dense_2"]["bias"]))
