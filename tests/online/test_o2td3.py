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


def algorithm_at(warmup_env_steps):
    return o2td3.make(o2td3.Config(warmup_env_steps=warmup_env_steps), SPEC)


def golden_state(golden):
    algorithm = algorithm_at(0)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    actor = golden.params("actor")
    critic = golden.ensemble("critic_1", "critic_2")
    return algorithm, state.replace(actor=actor, target_actor=actor, reference=actor, critic=critic, target_critic=critic)


def test_golden_updates():
    """All phases in a row, each from the state that the one before left, optimiser moments included."""
    golden = Golden("o2td3")
    algorithm, state = golden_state(golden)
    offline = state.reference
    for phase in ("reevaluate", "align", "finetune"):
        if phase == "finetune":  # recorded with π_ref = π_off
            state = algorithm.begin_finetuning(state, jnp.asarray(True)).replace(reference=offline)
        for step in golden.steps(phase):
            if phase == "finetune":
                # recorded at environment steps 1000, 2000, 3000: a warm-up that makes it so for update number `step`
                algorithm = algorithm_at(1_000 * (step + 1) - step)
            with golden.draws(phase, step):
                update = getattr(algorithm, phase)
                state, metrics = update(state, golden.batch(phase, step), jax.random.key(0))
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
