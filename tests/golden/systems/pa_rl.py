"""PA-RL's critics, by the authors' code (github.com/MaxSobolMark/PolicyAgnosticRL): three updates, and what is to be
imitated before each.
"""

import sys
import types
from typing import Any
from unittest import mock

import numpy as np
from systems.cal_ql import replayed_draws
from systems.wsrl import dense, hidden_layers, of_critic, shapes

OBSERVATIONS, ACTIONS, ROWS = 5, 3, 32
HIDDEN = (32, 32)
CRITICS, BINS, LOW, HIGH = 2, 11, -3.0, 3.0
SAMPLES, KEPT, STEPS, STEP_SIZE = 6, 3, 3, 0.05
UNIFORM = 4


def record(recording: Any) -> None:
    """Records the phase `update`: critics of histograms, each with an output layer of its own."""
    import functools

    import flax.linen as nn

    stand_in(recording.checkout)
    # this package's ε, PyTorch's
    with mock.patch.object(nn, "LayerNorm", functools.partial(nn.LayerNorm, epsilon=1e-5)):
        record_updates(recording)


def stand_in(checkout: Any) -> None:
    """Makes the checkout's modules importable one by one, without packages that updates use nothing of."""
    sys.path.insert(0, str(checkout))
    tensorflow, einops = types.ModuleType("tensorflow"), types.ModuleType("einops")
    tensorflow.Tensor = np.ndarray  # type: ignore[attr-defined]
    einops.rearrange = einops.repeat = None  # type: ignore[attr-defined]
    sys.modules |= {"tensorflow": tensorflow, "einops": einops}
    for name in ("jaxrl_m.agents", "jaxrl_m.agents.continuous", "jaxrl_m.vision"):  # which import all that there is
        package = types.ModuleType(name)
        package.__path__ = [str(checkout / name.replace(".", "/"))]
        sys.modules[name] = package


def record_updates(recording: Any) -> None:
    """Records three updates."""
    import jax
    import jax.numpy as jnp
    from jaxrl_m.agents.continuous.action_optimization import action_optimization_sample_actions

    agent = make_agent(recording)
    for step in range(3):
        batch = recording.batch(ROWS, OBSERVATIONS, ACTIONS)
        returns = recording.normal(ROWS, 1)
        proposed, next_proposed = (recording.uniform(ROWS, SAMPLES, ACTIONS) for _ in range(2))
        uniform = recording.uniform(ROWS, UNIFORM, ACTIONS)
        theirs = {
            "observations": {"state": jnp.asarray(batch["observation"]), "base_policy_actions": jnp.asarray(proposed)},
            "actions": jnp.asarray(batch["action"]),
            "rewards": jnp.asarray(batch["reward"][:, 0]),
            "next_observations": {
                "state": jnp.asarray(batch["next_observation"]),
                "base_policy_actions": jnp.asarray(next_proposed),
            },
            "masks": jnp.asarray(1.0 - batch["terminal"][:, 0]),
            "mc_returns": jnp.asarray(returns[:, 0]),
        }
        subsets = [jnp.arange(CRITICS)] * 2  # of the target, and of the penalty: all
        with jax.disable_jit():
            imitated, _ = action_optimization_sample_actions(
                dict(theirs["observations"]), agent, critic_state=agent.state, num_base_policy_actions=SAMPLES,
                num_actions_to_keep=KEPT, num_steps=STEPS, step_size=STEP_SIZE, optimize_critic_ensemble_min=False,
                rng=jax.random.PRNGKey(0), action_space_low=-jnp.ones(ACTIONS), action_space_high=jnp.ones(ACTIONS),
                dataset_actions_to_consider=theirs["actions"],
            )  # fmt: skip
            candidates = imitated.components_distribution.distribution.loc
            values = imitated.mixture_distribution.logits
            with replayed_draws(jax, [uniform]), mock.patch.object(jax.random, "randint", side_effect=subsets):
                info = agent.update(theirs)
        recording.note("update", step, batch=batch | {"returns": returns}, draw=[proposed, next_proposed, uniform])
        log = {name: info["critic"][name] for name in ("critic_loss", "td_loss", "predicted_qs", "target_qs")}
        log |= {"cql_diff": info["critic"]["cql_diff"], "calql_bound_rate": info["critic"]["calql_bound_rate"]}
        recording.note("update", step, log=log, imitated={"action": candidates, "value": values})
        for kind, params in (("critic", agent.state.params), ("target", agent.state.target_params)):
            for number in range(CRITICS):
                recording.note_after("update", step, f"{kind}_{number + 1}", of_critic(params, number))


def make_agent(recording: Any) -> Any:
    """The code's agent with the recording's weights; its critics share no layer."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    from jaxrl_m.agents.continuous import cql
    from jaxrl_m.agents.continuous.parl_calql import PARLCalQLAgent
    from jaxrl_m.networks.distributional import hl_gauss_transform

    class Critic(nn.Module):
        """The ensemble alone: the code's own module puts one output layer behind all of its members."""

        encoder: Any
        network: nn.Module
        q_low: float
        q_high: float
        num_bins: int

        @nn.compact
        def __call__(self, observations: Any, actions: Any, train: bool = False) -> Any:
            logits = self.network(jnp.concatenate([observations["state"], actions], -1), train=train)
            to_mean = hl_gauss_transform(self.q_low, self.q_high, self.num_bins)[1]
            return to_mean(nn.softmax(logits, axis=-1)), logits

    sizes = {"activations": "relu", "use_layer_norm": True}
    with mock.patch.object(cql, "DistributionalCritic", Critic):
        agent = PARLCalQLAgent(
            jax.random.PRNGKey(0),
            {"state": jnp.zeros((1, OBSERVATIONS))},
            jnp.zeros((1, ACTIONS)),
            encoder_def=lambda x, **_: x["state"],
            num_base_policy_actions=SAMPLES,
            num_actions_to_keep=KEPT,
            num_steps=STEPS,
            step_size=STEP_SIZE,
            distributional_critic=True,
            distributional_critic_kwargs={"q_min": LOW, "q_max": HIGH, "num_bins": BINS},
            critic_network_kwargs={**sizes, "hidden_dims": [*HIDDEN, BINS], "activate_final": False},
            critic_ensemble_size=CRITICS,
            critic_subsample_size=CRITICS,
            cql_importance_sample=False,
            cql_n_actions=UNIFORM,
            cql_alpha=0.5,
            use_calql=True,
            use_calql_on_random_actions=False,
            autotune_entropy=False,
            only_use_next_actions_for_cql=False,
            action_space_low=-np.ones(ACTIONS),
            action_space_high=np.ones(ACTIONS),
        )
    gains = ("norm_0.weight", "norm_1.weight")
    critics = []
    for number in range(1, CRITICS + 1):
        critics.append(recording.weights(f"critic_{number}", shapes(OBSERVATIONS + ACTIONS, BINS), gains))
        recording.copy(f"critic_{number}", f"target_{number}")
    each = [{**hidden_layers(layers), "Dense_2": dense(layers["out.weight"], layers["out.bias"])} for layers in critics]
    params = jax.tree_util.tree_map(jnp.asarray, dict(agent.state.params))
    params["modules_critic"] = {"network": jax.tree_util.tree_map(lambda *leaves: jnp.stack(leaves), *each)}
    same = jax.tree_util.tree_structure(params) == jax.tree_util.tree_structure(dict(agent.state.params))
    assert same, "the code's networks are other ones"
    agent.state = agent.state.replace(params=params, target_params=params)
    return agent
