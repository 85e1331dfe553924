"""As much of the dataset as it is worth beside the policy, which every seed decides for itself."""

import flax.struct
import jax
import jax.numpy as jnp

from o2o_jax.data.replay.half import indices
from o2o_jax.data.replay.ring import RingBuffer, insert, make_buffer, offline_rows
from o2o_jax.data.replay.union import of_both
from o2o_jax.interfaces import Replay
from o2o_jax.types import Array, Rollout, Spec, Transition, counter


@flax.struct.dataclass
class RegimeBuffer:
    """Fresh transitions of one seed, and what its policy is worth beside the dataset.

    Attributes:
      ring: fresh transitions.
      regime: [] int32, positive where the policy that went online is better than its data, 0 where it is like it,
        negative where it is worse; of `diagnosis.REGIMES`.
      env_steps: [] int32, environment steps so far.
    """

    ring: RingBuffer
    regime: Array
    env_steps: Array = counter()


def auto(capacity: int, batch_size: int, warmup_env_steps: int) -> Replay:
    """Returns the rule that keeps the better of policy and data: `own` where the policy is better, `half` where it is
    like its data, `union` where it is worse.

    Args:
      capacity: C of the ring [C] of fresh transitions.
      batch_size: B of a batch [B].
      warmup_env_steps: for which a better policy too draws half of the data: its own steps have to be there before
        they replace the data.

    Source: this package; the regimes are those of arXiv:2510.01460.
    """

    def init(spec: Spec, rows: int = 0) -> RegimeBuffer:
        del rows
        return RegimeBuffer(make_buffer(spec, capacity), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def add(buffer: RegimeBuffer, step: Rollout) -> RegimeBuffer:
        return buffer.replace(ring=insert(buffer.ring, step), env_steps=buffer.env_steps + 1)

    def sample(buffer: RegimeBuffer, dataset: Transition | None, key: Array) -> Transition:
        ring, dataset = buffer.ring, offline_rows(dataset, buffer.ring.storage)
        dataset_size = dataset.reward.shape[0]
        regime = jnp.where((buffer.regime > 0) & (buffer.env_steps <= warmup_env_steps), 0, buffer.regime)
        # all three draws as rows of the union; the networks' work is the batch's, and there is one
        both = jax.random.randint(key, (batch_size,), 0, dataset_size + ring.size)
        old, new = indices(key, batch_size, dataset_size, ring.size)
        each = jnp.concatenate([old, new + dataset_size])
        fresh = jax.random.randint(key, (batch_size,), 0, ring.size) + dataset_size
        return of_both(dataset, ring, jnp.where(regime > 0, fresh, jnp.where(regime < 0, both, each)))

    return Replay(init, add, sample)
