"""A run as one value, and how it begins."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.interfaces import Algorithm
from o2o_jax.policy import Handoff
from o2o_jax.runtime.phases import start_states
from o2o_jax.runtime.reference import Returns, Standing
from o2o_jax.runtime.seeds import keys as seed_keys
from o2o_jax.runtime.seeds import over_seeds, place
from o2o_jax.runtime.setup import Setup
from o2o_jax.training import Record
from o2o_jax.types import Array, counter


@flax.struct.dataclass
class Run:
    """All that a run is, as one value: saving it and the environments' states saves the run.

    Attributes:
      agent: the algorithm's state, seeds stacked [S].
      buffer: of the replay rule, seeds stacked [S].
      memory: what the acting policy remembers of its episode, seeds stacked [S].
      key: [S] PRNG keys; environment step t draws from `fold_in(key, t)`.
      best_score: [S] normalised score that a new reference must beat.
      evaluation_steps: [S] int32, environment steps that evaluations took.
      returns: of training's own episodes, where they settle the reference.
      standing: of π_ref; None in a run that doesn't roll back.
      records: of the phases that are checked by measures, seeds stacked [S].
      env_steps: [] int32, environment steps per seed so far.
    """

    agent: Any
    buffer: Any
    memory: Any
    key: Array
    best_score: Array
    evaluation_steps: Array
    returns: Returns
    standing: Standing | None
    records: dict[str, Record]
    env_steps: Array = counter()


def start_run(setup: Setup, handoff: Handoff | None) -> Run:
    """Returns a run before its first phase, placed on the mesh.

    Args:
      setup: of the run.
      handoff: what offline training left, seeds stacked [S]; None starts from scratch.

    Raises:
      ValueError: the algorithm refuses the handoff, or takes no environment step.
    """
    keys = seed_keys(setup.seeds, "online")
    start = functools.partial(start_seed, setup)
    return start_states(start, setup.mesh, keys, handoff, shared=() if handoff is not None else (1,))


def start_seed(setup: Setup, key: Array, handoff: Handoff | None) -> Run:
    """The part of `start_run` that is pure, of one seed."""
    online, config = setup.online, setup.config
    init_key, run_key = jax.random.split(key)
    memory = online.memory()
    if online.schedule.overlap and jax.tree.leaves(memory):
        raise ValueError(
            f"{setup.algorithm.name} acts on what came before, which an action chosen early doesn't know: set "
            "interaction.overlap=false"
        )
    return Run(
        agent=setup.algorithm.init(init_key, handoff),
        buffer=online.replay.init(setup.spec),
        memory=memory,
        key=run_key,
        best_score=jnp.asarray(-jnp.inf),
        env_steps=jnp.zeros((), jnp.int32),
        evaluation_steps=jnp.zeros((), jnp.int32),
        returns=Returns.empty(),
        standing=Standing.start(config.evaluation.episodes) if setup.rolls_back else None,
        records=start_records(setup.algorithm),
    )


def start_records(algorithm: Algorithm) -> dict[str, Record]:
    """Records of the phases that stop by measures, before their first checks; of one seed."""
    return {phase.name: Record.start(phase.stop) for phase in algorithm.phases if phase.stop is not None}


def count_evaluation(run: Run, lengths: np.ndarray) -> Run:
    """The run with an evaluation's episodes, of lengths [S, E] in environment steps, among what it has spent."""
    spent = np.asarray(run.evaluation_steps) + lengths.sum(axis=1, dtype=np.int32)
    return run.replace(evaluation_steps=jax.device_put(spent, run.evaluation_steps.sharding))


def begin_finetuning(
    setup: Setup,
    run: Run,
    accept: np.ndarray,
    best_score: np.ndarray,
    reference_returns: np.ndarray | None = None,
) -> Run:
    """Makes a run ready for its first environment step.

    Args:
      setup: of the run.
      run: after its phases, or instead of them. Consumed.
      accept: [S] bool, whether the aligned policy scored better than the offline one.
      best_score: [S] normalised score of the better one.
      reference_returns: [S, E] of the first π_ref from the evaluations' start states, for a run that rolls back; None
        where it wasn't evaluated.
    """
    begin = over_seeds(
        lambda run, accept, best: run.replace(
            agent=setup.online.begin(run.agent, accept), best_score=jnp.asarray(best, jnp.float32)
        ),
        setup.mesh,
        donate=(0,),
    )
    run = begin(run, np.asarray(accept, bool), np.asarray(best_score, np.float32))
    if run.standing is None or reference_returns is None:
        return run
    standing = run.standing.evaluated(np.ones(len(reference_returns), bool), reference_returns)
    return run.replace(standing=place(standing, setup.mesh))
