"""Whole episodes: the dataset's best and the fresh ones behind them in one queue, as histories of their steps."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from o2o_jax.data import history as histories
from o2o_jax.data.replay.ring import RingBuffer, insert, make_buffer
from o2o_jax.interfaces import Replay
from o2o_jax.types import Annotated, Array, Extras, History, Rollout, Spec


@flax.struct.dataclass
class EpisodeBuffer:
    """Fresh episodes of one seed, and where each stands in a table of M + 1 places, taken in turn.

    The place after the M newest episodes is that of the one under way.

    Attributes:
      ring: fresh transitions [C].
      place: [C] int32, of each row's episode.
      before: [C] what its episode had been rewarded with before each row, undiscounted, in reward units.
      done: [C] int32, steps of its episode before each row.
      returns: [M + 1] rewards of an episode, undiscounted.
      lengths: [M + 1] int32, steps of an episode; 0 where there was none yet.
      ended: [] int32, fresh episodes that have ended.
    """

    ring: RingBuffer
    place: Array
    before: Array
    done: Array
    returns: Array
    lengths: Array
    ended: Array

    @property
    def under_way(self) -> Array:
        """[] int32, the place of the episode under way."""
        return self.ended % self.lengths.shape[0]

    @property
    def rows(self) -> tuple[Array, Array]:
        """[] int32, rows of the ring that are of ended episodes, the newest M of them, and rows that came after."""
        newer = self.lengths[self.under_way]
        return jnp.maximum(jnp.minimum(jnp.sum(self.lengths), self.ring.size) - newer, 0), newer


def episodes(capacity: int, batch_size: int, context: int, max_episodes: int) -> Replay:
    """Returns the rule of a queue of at most M episodes, of which the oldest leaves: histories of them, whole.

    First come the dataset's M best episodes, the lowest return in front, then fresh ones as they end. A step is as
    likely as any other to begin a history, and so an episode in proportion to its length; the returns to go are those
    of the episode itself, whatever it had been asked for. An episode that was lost counts as it was, cut off.

    The dataset needs what `queue_extras` writes down of it.

    Args:
      capacity: C of the ring [C] of fresh transitions.
      batch_size: B of a batch, a `types.History` [B, K].
      context: K.
      max_episodes: M.

    Raises:
      ValueError: while drawing, if there is no dataset.

    Source: Zheng et al. (arXiv:2202.05607), and its authors' code.
    """

    def choose(dataset: Any) -> Any:
        return dataset.best_episodes(max_episodes).by_return()

    def sample(buffer: EpisodeBuffer, dataset: Annotated | None, key: Array) -> History:
        if dataset is None:
            raise ValueError("a queue of episodes begins with those of a dataset, and there is none: pass one")
        extras, size = dataset.extras.shared, dataset.reward.shape[0]
        left = jnp.maximum(extras["episode"][-1] + 1 + buffer.ended - max_episodes, 0)  # of the dataset's
        first = jnp.searchsorted(extras["episode"], left)
        (fresh, newer), old = buffer.rows, size - first
        drawn = jax.random.randint(key, (batch_size,), 0, old + fresh)
        row = jnp.minimum(first + drawn, size - 1)
        columns = histories.columns(dataset, extras["return_to_go"])
        recorded = histories.following(columns, row, extras["remaining"][row], context)
        oldest = buffer.ring.position - newer - fresh
        own = of_ring(buffer, (oldest + jnp.maximum(drawn - old, 0)) % capacity, context)
        is_recorded = drawn < old

        def choose_rows(a: Array, b: Array) -> Array:
            return jnp.where(is_recorded.reshape((-1,) + (1,) * (a.ndim - 1)), a, b)

        return jax.tree.map(choose_rows, recorded, own)

    def init(spec: Spec, rows: int = 0) -> EpisodeBuffer:
        del rows
        return make_episodes(spec, max(capacity, context), max_episodes)

    return Replay(init, add, sample, choose, cut)


def queue_extras(extras: Extras, dataset: Rollout) -> Extras:
    """Adds the number of its episode to every row's extras, for `episodes` to draw by.

    Args:
      extras: shared: `return_to_go` and `remaining`, [N] each.
      dataset: [N] in order, the episode that leaves first in front.

    Returns:
      The extras, with `episode` [N] int32, from 0 on.
    """
    number = jnp.cumsum(dataset.ended) - dataset.ended
    return extras.replace(shared=extras.shared | {"episode": number.astype(jnp.int32)})


def make_episodes(spec: Spec, capacity: int, max_episodes: int) -> EpisodeBuffer:
    """Returns an empty buffer of C = `capacity` rows and M = `max_episodes` episodes."""
    rows, table = jnp.zeros(capacity), jnp.zeros(max_episodes + 1)
    return EpisodeBuffer(
        ring=make_buffer(spec, capacity),
        place=rows.astype(jnp.int32),
        before=rows,
        done=jnp.zeros_like(rows, jnp.int32),
        returns=table,
        lengths=table.astype(jnp.int32),
        ended=jnp.zeros((), jnp.int32),
    )


def add(buffer: EpisodeBuffer, step: Rollout) -> EpisodeBuffer:
    """Writes one step, without a leading axis, behind those of the episode under way."""
    row, place = buffer.ring.position, buffer.under_way
    buffer = buffer.replace(
        ring=insert(buffer.ring, step),
        place=buffer.place.at[row].set(place),
        before=buffer.before.at[row].set(buffer.returns[place]),
        done=buffer.done.at[row].set(buffer.lengths[place]),
        returns=buffer.returns.at[place].add(step.reward),
        lengths=buffer.lengths.at[place].add(1),
    )
    return _close(buffer, step.ended > 0)


def cut(buffer: EpisodeBuffer) -> EpisodeBuffer:
    """Ends the episode under way, if it has any steps, where it is."""
    return _close(buffer, buffer.lengths[buffer.under_way] > 0)


def _close(buffer: EpisodeBuffer, ended: Array) -> EpisodeBuffer:
    """Ends the episode under way where `ended` [] bool: the next place is empty, and what stood there has left."""
    buffer = buffer.replace(ended=buffer.ended + ended)
    place = buffer.under_way
    return buffer.replace(
        returns=buffer.returns.at[place].set(jnp.where(ended, 0.0, buffer.returns[place])),
        lengths=buffer.lengths.at[place].set(jnp.where(ended, 0, buffer.lengths[place])),
    )


def of_ring(buffer: EpisodeBuffer, row: Array, context: int) -> History:
    """Returns histories [B, K] that begin with rows [B] of the ring, of episodes that have ended."""
    place = buffer.place[row]
    columns = histories.columns(buffer.ring.storage, buffer.before)
    history = histories.following(columns, row, buffer.lengths[place] - buffer.done[row], context)
    to_go = buffer.returns[place][:, None] - history.return_to_go  # which has what came before
    return history.replace(return_to_go=history.valid * to_go)
