"""O2SAC: recorded updates of every phase, losses by hand, gradients, settings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.online import o2sac
from o2o_jax.online.o2sac import losses
from o2o_jax.ops.distributions import TanhGaussian
from tests.golden_numbers import SCALAR_RTOL, SPEC, Golden, member

# Names of the record -> ours. The record logs the first critic alone where we log the mean of both.
LOGS = {
    "reevaluate": {"ope_target_q": "target_q", "ope_loss": "critic_loss"},
    "align": {
        "refine_average_target_q": "target_q",
        "refine_predicted_loss": "align_loss",
        "refine_fixed_loss": "retain_loss",
        "reconstruct_log_pi": "log_prob",
        "reconstruct_policy_loss": "actor_loss",
    },
    "finetune": {"alpha": "alpha", "lmbda": "lagrange", "qfloss": "critic_loss", "td_target": "target_q"},
}


def golden_state(golden):
    # with no warm-up, update t of fine-tuning is environment step t
    algorithm = o2sac.make(o2sac.Config(warmup_env_steps=0), SPEC)
    actor = golden.params("actor", log_std_multiplier=1.0, log_std_offset=-1.0)
    critic = golden.ensemble("critic_1", "critic_2")

    @jax.jit  # which leaves out the initialisation of weights that are replaced
    def start(key):
        return algorithm.init(key).replace(actor=actor, reference=actor, critic=critic, target_critic=critic)

    return algorithm, start(jax.random.key(0))


def test_golden_updates():
    """All phases in a row, each from the state that the one before left, optimiser moments included."""
    golden = Golden("o2sac")
    algorithm, state = golden_state(golden)
    offline = state.reference
    for phase in ("reevaluate", "align", "finetune"):
        if phase == "finetune":  # recorded with π_ref = π_off
            state = jax.jit(algorithm.begin_finetuning)(state, True).replace(reference=offline)
        update = golden.replay(phase, getattr(algorithm, phase))
        for step in golden.steps(phase):
            if phase == "finetune":
                state = state.replace(step=jnp.full_like(state.step, 1_000 * (step + 1)))
            state, metrics = update(state, step)
            recorded = golden.log(phase, step)
            for name, ours in LOGS[phase].items():
                # losses and means are differences of terms of order 1, which bounds what float32 can agree on
                np.testing.assert_allclose(metrics[ours], recorded[name], rtol=SCALAR_RTOL, atol=1e-5, err_msg=name)
            golden.check(
                phase,
                step,
                actor=state.actor,
                critic_1=member(state.critic, 0),
                critic_2=member(state.critic, 1),
                log_alpha=state.log_alpha,
                log_lagrange=state.log_lagrange,
            )
        assert step == 2
