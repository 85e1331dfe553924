"""Cal-QL, by the authors' code (github.com/nakamotoo/Cal-QL): three updates as in mazes, and returns to go."""

import contextlib
import itertools
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np

OBSERVATIONS, ACTIONS, ROWS, SAMPLES = 5, 3, 16, 3
ACTOR_HIDDEN, CRITIC_HIDDEN = (32, 32), (32, 32, 32)
DISCOUNT = 0.99
LOGGED = {  # their names
    "policy_loss", "alpha_loss", "alpha", "log_pi_mean", "qf1_loss", "qf2_loss", "q1_pred_mean", "q2_pred_mean",
    "cql/qf1_bellman_loss", "cql/qf2_bellman_loss", "cql/cql_qf1_diff", "cql/cql_qf2_diff", "cql/alpha_prime",
    "cql/alpha_prime_loss", "cql/bound_rate_cql_q1_current_actions", "cql/bound_rate_cql_q2_current_actions",
    "cql/bound_rate_cql_q1_next_actions", "cql/bound_rate_ql_q2_next_actions",
}  # fmt: skip


def record(recording: Any) -> None:
    """Records three updates of the Lagrange version with the best of several backups, and returns of episodes."""
    sys.path.insert(0, str(recording.checkout))
    for name in ("d4rl", "gym"):  # the replay buffer's file asks for them, its returns don't
        sys.modules.setdefault(name, types.ModuleType(name))
    record_updates(recording)
    record_returns(recording)


def record_updates(recording: Any) -> None:
    """Records the phase `update`."""
    import jax
    import jax.numpy as jnp
    from JaxCQL import conservative_sac, jax_utils, model

    jax_utils.init_rng(0)  # its own draws are not used
    arch = {"actor": ACTOR_HIDDEN, "critic": CRITIC_HIDDEN}
    names = {module: "-".join(map(str, hidden)) for module, hidden in arch.items()}
    agent = conservative_sac.ConservativeSAC(
        {
            "discount": DISCOUNT,
            "target_entropy": -float(ACTIONS),  # what its main script sets
            "cql_n_actions": SAMPLES,
            "cql_lagrange": True,
            "cql_target_action_gap": 0.8,
            "cql_max_target_backup": True,
        },
        model.TanhGaussianPolicy(OBSERVATIONS, ACTIONS, names["actor"], orthogonal_init=True),
        model.FullyConnectedQFunction(OBSERVATIONS, ACTIONS, names["critic"], orthogonal_init=True),
    )
    states = agent._train_states
    for module, key, inputs, hidden, outputs in (
        ("actor", "policy", OBSERVATIONS, ACTOR_HIDDEN, 2 * ACTIONS),
        ("critic_1", "qf1", OBSERVATIONS + ACTIONS, CRITIC_HIDDEN, 1),
        ("critic_2", "qf2", OBSERVATIONS + ACTIONS, CRITIC_HIDDEN, 1),
    ):
        weights = recording.weights(module, linear_shapes(inputs, (*hidden, outputs)))
        params = with_weights(states[key].params, weights)
        states[key] = states[key].replace(params=params)
        if key != "policy":
            agent._target_qf_params[key] = params
            recording.copy(module, module.replace("critic", "target"))

    for step in range(3):
        batch = recording.batch(ROWS, OBSERVATIONS, ACTIONS)
        # a quarter far above all values, a quarter far below, the others among them
        batch["returns"] = 0.1 * recording.normal(ROWS, 1) + np.tile([[2.0], [0.0], [-2.0], [0.0]], (ROWS // 4, 1))
        batch["returns"] = batch["returns"].astype(np.float32)
        several = (ROWS, SAMPLES, ACTIONS)
        draws = [
            recording.normal(ROWS, ACTIONS),
            recording.normal(*several),
            recording.uniform(*several),
            recording.normal(*several),
            recording.normal(*several),
        ]
        theirs = {
            "observations": batch["observation"],
            "actions": batch["action"],
            "rewards": batch["reward"][:, 0],
            "next_observations": batch["next_observation"],
            "dones": batch["terminal"][:, 0],
            "mc_returns": batch["returns"][:, 0],
        }
        with replayed_draws(jax, draws), jax.disable_jit():
            metrics = agent.train(
                {name: jnp.asarray(column) for name, column in theirs.items()},
                use_cql=True,
                cql_min_q_weight=5.0,
                enable_calql=True,
            )
        log = {name.removeprefix("cql/"): metrics[name] for name in LOGGED}
        recording.note("update", step, batch=batch, draw=draws, log=log)
        for module, key in (("actor", "policy"), ("critic_1", "qf1"), ("critic_2", "qf2")):
            recording.note_after("update", step, module, named(states_of(agent)[key].params))
        for module, key in (("target_1", "qf1"), ("target_2", "qf2")):
            recording.note_after("update", step, module, named(agent._target_qf_params[key]))
        for module in ("log_alpha", "log_alpha_prime"):
            recording.note_after("update", step, module, {"constant": scalar(states_of(agent)[module].params)})


def record_returns(recording: Any) -> None:
    """Records the phase `returns`: step 0 has dense rewards, step 1 those of a goal, as 10 r − 5."""
    from JaxCQL.replay_buffer import calc_return_to_go

    random = recording.random
    lengths = random.integers(2, 9, 6)
    for step in range(2):
        columns: dict[str, list[np.ndarray]] = {"reward": [], "terminal": [], "ended": [], "returns": []}
        for episode, length in enumerate(lengths):
            # goals: not reached, by time or by the data's end; reached at the end, or amid an episode that goes on
            raw = recording.normal(length) if step == 0 else np.zeros(length, np.float32)
            if step == 1 and episode % 3:
                raw[-episode % length] = 1.0
            terminal = np.zeros(length, np.float32)
            terminal[-1] = float(episode % 2)
            ended = np.zeros(length, np.float32)
            ended[-1] = 1.0
            scale, shift = ((1.0, 0.0), (10.0, -5.0))[step]
            returns = calc_return_to_go(
                "antmaze" if step else "dense", raw * scale + shift, terminal, DISCOUNT, scale, shift, bool(step)
            )
            for name, values in (("reward", raw), ("terminal", terminal), ("ended", ended), ("returns", returns)):
                columns[name].append(np.asarray(values, np.float32))
        recording.note("returns", step, batch={name: np.concatenate(parts) for name, parts in columns.items()})


def linear_shapes(inputs: int, widths: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Names and shapes (out, in) of a perceptron's tensors, layer by layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (fan_in, width) in enumerate(itertools.pairwise((inputs, *widths))):
        shapes |= {f"{layer}.weight": (width, fan_in), f"{layer}.bias": (width,)}
    return shapes


def with_weights(params: Any, weights: dict[str, np.ndarray]) -> Any:
    """The code's parameters, with weights in the place of its own; single numbers stay as they are."""
    import jax.numpy as jnp

    if not hasattr(params, "items"):
        return params
    made = {}
    for name, value in params.items():
        if name.startswith("Dense_"):
            layer = name.removeprefix("Dense_")
            made[name] = {
                "kernel": jnp.asarray(weights[f"{layer}.weight"].T),
                "bias": jnp.asarray(weights[f"{layer}.bias"]),
            }
        else:
            made[name] = with_weights(value, weights)
    return made


def named(params: Any) -> dict[str, np.ndarray]:
    """The code's parameters by the recorded names, in PyTorch's layout."""
    found: dict[str, np.ndarray] = {}
    for name, value in params.items():
        if name.startswith("Dense_"):
            layer = name.removeprefix("Dense_")
            found |= {f"{layer}.weight": np.asarray(value["kernel"]).T, f"{layer}.bias": np.asarray(value["bias"])}
        elif name.endswith("_module"):
            found[f"{name.removesuffix('_module')}.constant"] = np.asarray(value["value"])
        else:
            found |= named(value)
    return found


def scalar(params: Any) -> np.ndarray:
    """A module's only number."""
    return np.asarray(params["params"]["value"])


def states_of(agent: Any) -> dict[str, Any]:
    """The agent's parameters and optimisers, which every update replaces."""
    return agent._train_states


@contextlib.contextmanager
def replayed_draws(jax: Any, draws: Sequence[np.ndarray]) -> Iterator[None]:
    """Within it, the code's draws are these, again and again, each in the shape that it is asked for.

    The code evaluates all of its losses once for every network whose gradient it takes, each time with draws of its
    own: here they are the same each time.
    """
    endless, used = itertools.cycle(draws), itertools.count()

    def replay(key: Any, shape: Sequence[int] = (), *others: Any, **named: Any) -> Any:
        del key, others, named
        draw = next(endless)
        next(used)
        without_ones = [tuple(size for size in sizes if size != 1) for sizes in (draw.shape, shape)]
        assert without_ones[0] == without_ones[1], f"the code draws {shape} where {draw.shape} was foreseen"
        return jax.numpy.asarray(draw).reshape(shape)

    originals = {name: getattr(jax.random, name) for name in ("normal", "uniform")}
    eval_shape = jax.eval_shape

    def original_eval_shape(*arguments: Any, **named: Any) -> Any:
        # flax asks the initialisers of a network that it applies for their shapes: no draws of the update
        with mock.patch.multiple(jax.random, **originals):
            return eval_shape(*arguments, **named)

    replaying = mock.patch.multiple(jax.random, **dict.fromkeys(originals, replay))
    with replaying, mock.patch.object(jax, "eval_shape", original_eval_shape):
        yield
    turns, left = divmod(next(used), len(draws))
    assert turns > 0, "the code drew nothing"
    assert left == 0, "the code drew less than was foreseen"
