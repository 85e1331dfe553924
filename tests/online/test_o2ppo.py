"""O2PPO: recorded updates, losses by hand, gradients, settings."""

import jax
import numpy as np

from o2o_jax.online import o2ppo
from o2o_jax.online.o2ppo.algorithm import estimate, improve, make_networks
from tests.golden_numbers import SCALAR_RTOL, SPEC, Golden

GOLDEN = o2ppo.Config(epochs=2, minibatch_size=16)


def golden_state(golden):
    algorithm = o2ppo.make(GOLDEN, SPEC)
    actor = golden.params("actor", log_std=[-0.5, -1.0, -1.5])
    reference = jax.tree.map(lambda leaf: 0.9 * leaf, actor)
    reference["params"]["log_std"] = actor["params"]["log_std"]

    @jax.jit  # which leaves out the initialisation of weights that are replaced
    def start(key):
        state = algorithm.init(key).replace(actor=actor, critic=golden.params("value"))
        return algorithm.begin_finetuning(state, False).replace(reference=reference)

    return start(jax.random.key(0))


def test_golden_updates():
    """Three rollouts in a row, each from the state that the one before left, optimiser moments included."""
    golden = Golden("o2ppo")
    state, nets = golden_state(golden), make_networks(GOLDEN, SPEC)

    def batch(step):  # the record's actions were not drawn from its actor: it brings their densities with it
        return golden.batch("update", step), golden.recorded("update", step, "rollout/log_prob").sum(axis=1)

    def finetune(state, batch, key):
        rollout, log_prob = batch
        state, samples, metrics = estimate(nets, GOLDEN, state, rollout)
        state, terms = improve(nets, GOLDEN, state, samples._replace(log_prob=log_prob), key)
        return state, metrics | terms

    update = golden.replay("update", finetune, batch)
    for step in golden.steps("update"):
        state, metrics = update(state, step)
        for name, value in golden.log("update", step).items():
            np.testing.assert_allclose(metrics[name], value, rtol=SCALAR_RTOL, err_msg=name)
        golden.check("update", step, actor=state.actor, value=state.critic)
    assert step == 2
