"""Behaviour cloning: the cloning of `o2o_jax.policy` with the dataset for a teacher."""

import functools

from o2o_jax import making, networks
from o2o_jax.data.dataset import Dataset
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Algorithm, Phase
from o2o_jax.offline.bc.config import Config
from o2o_jax.policy import CloneState, Policy, clone_state, clone_update
from o2o_jax.types import Array, Spec

State = CloneState


def select(config: Config, dataset: Dataset) -> Dataset:
    """Selects the best episodes by undiscounted return: `best_fraction` of all, rounded down, and at least one."""
    return dataset.best_episodes(max(1, int(config.best_fraction * len(dataset.episode_ends))))


def init(config: Config, spec: Spec, key: Array, normalizer: Normalizer) -> State:
    """Makes the state before the first update: a random policy.

    Args:
      config: settings.
      spec: sizes of an environment.
      key: initialises the network.
      normalizer: of the dataset's observations [..., O].

    Returns:
      The state of one seed, its `step` [] at 0.
    """
    actor = networks.HEADS[config.head](spec.action_dim, config.hidden, layer_init="fan_in")
    return clone_state(config, actor, normalizer, key)


def policy(state: State) -> Policy:
    """Returns the student: raw observations [..., O] to actions [..., A]."""
    return state.student


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds settings; what comes back are pure functions, not yet jitted."""
    return Algorithm(
        name="bc",
        init=functools.partial(init, config, spec),
        phases=(Phase("offline", functools.partial(clone_update, config), config.updates, config.batch_size),),
        policy=policy,
        select=functools.partial(select, config),
    )
