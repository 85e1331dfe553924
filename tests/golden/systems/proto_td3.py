"""PROTO+TD3's online phase, by the authors' code: four updates, of which every second moves the actor."""

from typing import Any

import numpy as np
from systems.cal_ql import replayed_draws
from systems.proto import ACTIONS, OBSERVATIONS, ROWS, columns, make_agent, note_networks, running


def record(recording: Any) -> None:
    """Records the phase `update`: targets of π_k's own action by the lower critic, with the divergence."""
    with running(recording) as (jax, jnp):
        import learner_td3  # of the checkout

        agent = make_agent(recording, learner_td3.Learner, squashed=False)
        mode = np.zeros((ACTIONS, ROWS), np.float32)  # of draws that are to be the policy's mode
        for step in range(4):
            batch, noise = recording.batch(ROWS, OBSERVATIONS, ACTIONS), recording.normal(ROWS, ACTIONS)
            # at s' a sample, the noise and a sample of π_k; at s a sample, another for the log, one of π_k
            with replayed_draws(jax, [mode, noise, mode, *[mode] * (3 * (step % 2))]), jax.disable_jit():
                info = agent.update(columns(recording, jnp, batch), offline=False, steps=step + 1)
            agent.loss_temp_online = np.maximum(agent.loss_temp_online - 2.0 / (1e6 / 0.9), 0.0)  # as its script does
            recording.note("update", step, batch=batch, draw=[noise])
            names = [name for name in ("critic_loss", "q1", "q2", "actor_loss") if name in info]
            recording.note("update", step, log={name: info[name] for name in names})
            note_networks(recording, step, agent)
