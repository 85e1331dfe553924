"""Replay: the rules by which online updates get their batches, one per file, each an `interfaces.Replay`."""

from typing import Literal

from o2o_jax.data.replay.auto import RegimeBuffer, auto
from o2o_jax.data.replay.episodes import EpisodeBuffer, episodes, queue_extras
from o2o_jax.data.replay.half import half
from o2o_jax.data.replay.own import own
from o2o_jax.data.replay.prefilled import prefilled
from o2o_jax.data.replay.prioritized import PrioritizedBatch, PrioritizedBuffer, prioritized, uniform_batch
from o2o_jax.data.replay.returns import ReturnsBuffer, with_returns
from o2o_jax.data.replay.ring import RingBuffer, insert, make_buffer
from o2o_jax.data.replay.rollout import rollout
from o2o_jax.data.replay.union import union
from o2o_jax.interfaces import Replay

Mode = Literal["half", "all", "part", "none", "auto"]

__all__ = [
    "EpisodeBuffer",
    "Mode",
    "PrioritizedBatch",
    "PrioritizedBuffer",
    "RegimeBuffer",
    "ReturnsBuffer",
    "RingBuffer",
    "auto",
    "episodes",
    "half",
    "insert",
    "make",
    "make_buffer",
    "own",
    "prefilled",
    "prioritized",
    "queue_extras",
    "rollout",
    "uniform_batch",
    "union",
    "with_returns",
]


def make(mode: Mode, capacity: int, batch_size: int, part_episodes: int = 50, warmup_env_steps: int = 5_000) -> Replay:
    """Returns the rule of a mode's name, batches [B] of a dataset [N] and a ring [C], as Table 6 has it.

    Args:
      mode: "half" of every batch from the dataset; the union of the dataset, or of its best episodes, "part", with the
        fresh transitions, "all"; "none" of the dataset; "auto", one of these by what the policy is worth beside it.
      capacity: C, fresh transitions that are kept per seed.
      batch_size: B.
      part_episodes: best episodes that "part" draws from.
      warmup_env_steps: "auto": environment steps for which a better policy still draws half of the data.
    """
    if mode == "half":
        return half(capacity, batch_size)
    if mode == "none":
        return own(capacity, batch_size)
    if mode == "auto":
        return auto(capacity, batch_size, warmup_env_steps)
    return union(capacity, batch_size, part_episodes if mode == "part" else None)
