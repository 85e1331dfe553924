"""O2TD3: recorded updates of every phase, losses by hand, gradients, settings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.online import o2td3
from o2o_jax.online.o2td3 import losses
from o2o_jax.ops.distributions import TanhGaussian
from tests.golden_numbers import SCALAR_RTOL, SPEC, Golden, member

# Names of the record -> ours. The record logs the first critic alone where we log the mean of both.
LOGS = {
    "reevaluate": {"ope_critic_loss": "critic_loss", "ope_target_q": "target_q"},
    "align": {
        "refine_loss": "align_loss",
        "refine_fixed_loss": "retain_loss",
        "refine_total_loss": "critic_loss",
        "reconstruct_actor_loss": "actor_loss",
    },
    "finetune": {"lmbda": "lagrange"},
}


def golden_state(golden):
    # updates 2t and 2t + 1 of fine-tuning then are those of environment step t
    algorithm = o2td3.make(o2td3.Config(warmup_env_steps=0, updates_per_env_step=2), SPEC)
    actor, critic = golden.params("actor"), golden.ensemble("critic_1", "critic_2")

    @jax.jit  # which leaves out the initialisation of weights that are replaced
    def start(key):
        actors = {"actor": actor, "target_actor": actor, "reference": actor}
        return algorithm.init(key).replace(**actors, critic=critic, target_critic=critic)

    return algorithm, start(jax.random.key(0))


def test_golden_updates():
    """All phases in a row, each from the state that the one before left, optimiser moments included."""
    golden = Golden("o2td3")
    algorithm, state = golden_state(golden)
    offline = state.reference
    for phase in ("reevaluate", "align", "finetune"):
        if phase == "finetune":  # recorded with π_ref = π_off
            state = jax.jit(algorithm.begin_finetuning)(state, True).replace(reference=offline)
        update = golden.replay(phase, getattr(algorithm, phase))
        for step in golden.steps(phase):
            if phase == "finetune":  # recorded at environment steps 1000, 2000, 3000; the second one moves the actor
                state = state.replace(step=jnp.full_like(state.step, 2_000 * (step + 1) + step % 2))
            state, metrics = update(state, step)
            recorded = golden.log(phase, step)
            for name, ours in LOGS[phase].items():
                if name not in recorded:  # the actor's terms, where it was not updated
                    continue
                # losses and means are differences of terms of order 1, which bounds what float32 can agree on
                np.testing.assert_allclose(metrics[ours], recorded[name], rtol=SCALAR_RTOL, atol=1e-5, err_msg=name)
            golden.check(
                phase,
                step,
                actor=state.actor,
                critic_1=member(state.critic, 0),
                critic_2=member(state.critic, 1),
                log_lagrange=state.log_lagrange,
            )
        assert step == 2
