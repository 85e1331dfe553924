"""PROTO's online phase, by the authors' code: three updates of a squashed-Gaussian policy and two critics."""

import contextlib
import functools
import itertools
import sys
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
from systems.cal_ql import replayed_draws

OBSERVATIONS, ACTIONS, ROWS = 5, 3, 32
HIDDEN = (32, 32)
CRITIC_NAMES = ("critic_1", "critic_2")


def record(recording: Any) -> None:
    """Records the phase `update`: entropy and divergence in targets of the lower critic."""
    with running(recording) as (jax, jnp):
        import actor  # of the checkout
        import learner

        agent = make_agent(recording, learner.Learner, squashed=True)
        for step in range(3):
            batch = recording.batch(ROWS, OBSERVATIONS, ACTIONS)
            next_noise, noise = (0.5 * recording.normal(ROWS, ACTIONS) for _ in range(2))
            unused = [np.zeros((ACTIONS, ROWS), np.float32)]  # what the code draws for its logs
            with replayed_draws(jax, [next_noise.T, noise.T, *unused]), jax.disable_jit():
                info = agent.update(columns(recording, jnp, batch), offline=False)
            agent.loss_temp_online = np.maximum(agent.loss_temp_online - 2.0 / (1e6 / 0.9), 0.0)  # as its script does
            recording.note("update", step, batch=batch, draw=[next_noise, noise])
            log = {
                name: info[name] for name in ("critic_loss", "q1", "q2", "actor_loss", "entropy", "alpha", "alpha_loss")
            }
            recording.note("update", step, log=log)
            note_networks(recording, step, agent)
            recording.note_after("update", step, "log_alpha", {"constant": agent.log_alpha.params["log_temp"]})
        assert actor.__file__.startswith(str(recording.checkout))


@contextlib.contextmanager
def running(recording: Any) -> Iterator[tuple[Any, Any]]:
    """Within it the checkout can be imported by versions of JAX and Flax that are newer than its own."""
    sys.path.insert(0, str(recording.checkout))
    import flax
    import jax
    import jax.numpy as jnp

    jit = jax.jit

    def lenient(function: Any, *, static_argnames: Any = (), **others: Any) -> Any:
        """Compiles without the names of arguments that the function doesn't have, which older versions let pass."""
        known = function.__code__.co_varnames
        return jit(function, static_argnames=[name for name in static_argnames if name in known], **others)

    flax.config.update("flax_return_frozendict", True)
    with mock.patch.object(jax, "jit", lenient):
        yield jax, jnp


def make_agent(recording: Any, learner: Any, squashed: bool) -> Any:
    """The code's agent with the recording's weights, c = 2.

    Args:
      recording: of the seed.
      learner: class of the code.
      squashed: whether the policy is a squashed normal whose σ depends on the state, rather than the code's own.
    """
    import policy  # of the checkout

    arguments = types.SimpleNamespace(utd=1, sac=True, auto_alpha=True, entropy_backup=True)
    kind = policy.NormalTanhPolicy
    if squashed:
        kind = functools.partial(squashed_policy, kind)
    with mock.patch.object(policy, "NormalTanhPolicy", kind):
        agent = learner(
            0, np.zeros((1, OBSERVATIONS), np.float32), np.zeros((1, ACTIONS), np.float32), hidden_dims=HIDDEN,
            loss_temp=2.0, opt_decay_schedule="", args=Hashable(arguments),
        )  # fmt: skip
    policies = []  # two that differ: as they start online, nothing would be at a price
    for name in ("actor", "followed"):
        weights = recording.weights(name, shapes(OBSERVATIONS, (2 if squashed else 1) * ACTIONS))
        policies.append(of_actor(agent.online_actor.params, weights))
    agent.online_actor = agent.online_actor.replace(params=policies[0])
    agent.target_online_actor = agent.target_online_actor.replace(params=policies[1])
    critics = []
    for name in CRITIC_NAMES:
        critics.append(recording.weights(name, shapes(OBSERVATIONS + ACTIONS, 1)))
        recording.copy(name, name.replace("critic", "target"))
    params = of_critics(agent.critic.params, critics)
    agent.critic, agent.target_critic = (model.replace(params=params) for model in (agent.critic, agent.target_critic))
    return agent


def squashed_policy(kind: Any, *others: Any, **named: Any) -> Any:
    """The code's policy, squashed, where its learner asks for another, with this package's bounds of σ."""
    own = {"state_dependent_std": True, "tanh_squash_distribution": True, "log_std_min": -20.0}
    return kind(*others, **named | own)


class Hashable:
    """The arguments of the code's command line, as a static argument of its updates."""

    def __init__(self, arguments: types.SimpleNamespace):
        self.__dict__.update(vars(arguments))


def columns(recording: Any, jnp: Any, batch: dict[str, np.ndarray]) -> Any:
    """A batch as the code has it."""
    del recording
    import common  # of the checkout

    return common.Batch(
        observations=jnp.asarray(batch["observation"]),
        actions=jnp.asarray(batch["action"]),
        rewards=jnp.asarray(batch["reward"][:, 0]),
        masks=jnp.asarray(1.0 - batch["terminal"][:, 0]),
        next_observations=jnp.asarray(batch["next_observation"]),
    )


def shapes(inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes (out, in) of a network's tensors, layer by layer."""
    widths = (inputs, *HIDDEN, outputs)
    found: dict[str, tuple[int, ...]] = {}
    for layer, (fan_in, width) in enumerate(itertools.pairwise(widths)):
        found |= {f"dense_{layer}.weight": (width, fan_in), f"dense_{layer}.bias": (width,)}
    return found


def dense(weight: Any, bias: Any) -> dict[str, Any]:
    """A linear layer's parameters as the code has them."""
    import jax.numpy as jnp

    return {"kernel": jnp.asarray(np.asarray(weight).T), "bias": jnp.asarray(bias)}


def of_actor(like: Any, weights: dict[str, np.ndarray]) -> Any:
    """The actor's parameters as the code has them: mean and log σ are two layers, or log σ is a vector at its bound."""
    import flax
    import jax
    import jax.numpy as jnp

    params = {"MLP_0": {f"Dense_{i}": dense(weights[f"dense_{i}.weight"], weights[f"dense_{i}.bias"]) for i in (0, 1)}}
    weight, bias = weights["dense_2.weight"], weights["dense_2.bias"]
    if "log_stds" in like:
        params |= {"Dense_0": dense(weight, bias), "log_stds": jnp.full(ACTIONS, -5.0)}
    else:
        for layer, rows in (("Dense_0", slice(ACTIONS)), ("Dense_1", slice(ACTIONS, None))):
            params[layer] = dense(weight[rows], bias[rows])
    params = flax.core.freeze(params)
    assert jax.tree_util.tree_map(jnp.shape, params) == jax.tree_util.tree_map(jnp.shape, like), "other networks"
    return params


def of_critics(like: Any, critics: list[dict[str, np.ndarray]]) -> Any:
    """The critics' parameters as the code has them, stacked."""
    import jax
    import jax.numpy as jnp

    each = [[weights[name].T for name in weights] for weights in critics]  # layer by layer: kernel, bias
    stacked = [np.stack(tensors) for tensors in zip(*each, strict=True)]
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    order = [2 * int(path[-2].key.split("_")[1]) + (path[-1].key == "bias") for path, _ in paths]
    leaves = [jnp.asarray(stacked[place]) for place in order]
    assert [leaf.shape for leaf in leaves] == [leaf.shape for _, leaf in paths], "the code's networks are other ones"
    return jax.tree_util.tree_unflatten(structure, leaves)


def note_networks(recording: Any, step: int, agent: Any) -> None:
    """Notes all networks after an update, in PyTorch's layout; mean and log σ as one layer."""
    import jax

    for module, model in (("actor", agent.online_actor), ("followed", agent.target_online_actor)):
        params = model.params
        found: dict[str, Any] = {}
        for layer in (0, 1):
            linear = params["MLP_0"][f"Dense_{layer}"]
            found |= {f"dense_{layer}.weight": np.asarray(linear["kernel"]).T, f"dense_{layer}.bias": linear["bias"]}
        last = [params[name] for name in ("Dense_0", "Dense_1") if name in params]
        both = {name: [np.asarray(layer[name]) for layer in last] for name in ("kernel", "bias")}
        out = {name: np.concatenate(parts, axis=-1) for name, parts in both.items()}
        found |= {"dense_2.weight": out["kernel"].T, "dense_2.bias": out["bias"]}
        recording.note_after("update", step, module, found)
    for kind, model in (("critic", agent.critic), ("target", agent.target_critic)):
        for number in range(2):
            found = {}
            for path, leaf in jax.tree_util.tree_leaves_with_path(model.params):
                layer, name = path[-2].key.split("_")[1], path[-1].key
                tensor = np.asarray(leaf)[number].T
                found[f"dense_{layer}.{'bias' if name == 'bias' else 'weight'}"] = tensor
            recording.note_after("update", step, f"{kind}_{number + 1}", found)
