"""A run as one value, and how it begins."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.interfaces import Phase
from o2o_jax.policy import CloneConfig, Handoff, clone_init, clone_phase
from o2o_jax.runtime.phases import start_states
from o2o_jax.runtime.reference import Returns, Standing
from o2o_jax.runtime.seeds import keys as seed_keys
from o2o_jax.runtime.seeds import over_seeds, place
from o2o_jax.runtime.setup import Setup
from o2o_jax.runtime.snapshots import Snapshots
from o2o_jax.training import Record
from o2o_jax.types import Array, counter


@flax.struct.dataclass
class Run:
    """All that a run is, as one value: saving it saves the run.

    Attributes:
      agent: the algorithm's state, seeds stacked [S].
      key: [S] PRNG keys; environment step t draws from `fold_in(key, t)`.
      records: of the phases that are checked by measures, by their names, seeds stacked [S].
      ends: of the phases, by their names: of each metric that they show the first and the last finite value [S, 2], NaN
        where there is none yet.
      failed: [S] bool, seeds that have ended early, with the last good state of theirs in `agent`.
      updates: [] int32, updates of the phases on the dataset so far.
      begun: [] int32, 1 from the moment that fine-tuning begins, 0 before.
      env_steps: [] int32, environment steps per seed so far.
      buffer: of the replay rule, seeds stacked [S]. This and all below are None in a run that takes no such step.
      memory: of the acting policy's episodes, `Online.memories`, seeds stacked [S].
      best_score: [S] normalised score that a new reference must beat.
      start_score: [S] normalised score of the first π_ref, NaN where it wasn't evaluated.
      evaluation_steps: [S] int32, environment steps that evaluations took.
      returns: `reference.Returns` of training's own episodes, where they settle π_ref.
      standing: of π_ref; None in a run that doesn't roll back.
      snapshots: policies that are kept, seeds stacked [S]; None in a run whose loop has them.
      episodes: those under way, of `episodes.Episodes.save`, simulators among them; None in a run that has none, or
        whose loop has them.
    """

    agent: Any
    key: Array
    records: dict[str, Record]
    ends: dict[str, dict[str, Any]]
    failed: Array
    updates: Array = counter()
    begun: Array = counter()
    env_steps: Array = counter()
    buffer: Any = None
    memory: Any = None
    best_score: Any = None
    start_score: Any = None
    evaluation_steps: Any = None
    returns: Any = None
    standing: Standing | None = None
    snapshots: Snapshots | None = None
    episodes: Any = None

    @property
    def position(self) -> int:
        """Number that grows from one moment at which a run can be saved to the next."""
        return int(self.updates) + int(self.begun) + int(self.env_steps)


def start_run(setup: Setup, start: Any) -> Run:
    """Returns a run before its first phase, placed on the mesh.

    Args:
      setup: of the run.
      start: of an online method what offline training left, a `Handoff` with seeds stacked [S], or None from scratch;
        of an offline one the `Normalizer` of its data, which all seeds share.

    Raises:
      ValueError: the algorithm refuses the start.
    """
    keys = seed_keys(setup.seeds, "offline" if setup.algorithm.online is None else "online")
    shared = () if isinstance(start, Handoff) else (1,)
    return start_states(functools.partial(start_seed, setup), setup.mesh, keys, start, shared=shared)


def start_seed(setup: Setup, key: Array, start: Any) -> Run:
    """The part of `start_run` that is pure, of one seed."""
    online, algorithm = setup.algorithm.online, setup.algorithm
    init_key, run_key = jax.random.split(key)
    run = start_phases(algorithm.phases, algorithm.init(init_key, start), run_key)
    if online is None:
        return run
    memory, evaluated = online.memories(), setup.config.evaluation.episodes > 0
    if online.schedule.overlap and jax.tree.leaves(memory):
        raise ValueError(
            f"{algorithm.name} acts on what came before, which an action chosen early doesn't know: set "
            "interaction.overlap=false"
        )
    return run.replace(
        buffer=online.replay.init(setup.spec, setup.dataset_rows),
        memory=memory,
        best_score=jnp.asarray(-jnp.inf),
        start_score=jnp.asarray(jnp.nan),
        evaluation_steps=jnp.zeros((), jnp.int32),
        returns=Returns.empty(),
        standing=Standing.start(setup.config.evaluation.episodes) if setup.rolls_back else None,
        snapshots=Snapshots.start(algorithm.policy(run.agent), evaluated),
    )


def start_clone(config: CloneConfig, head: str, key: Array, update_key: Array, teacher: Any) -> Run:
    """Returns the cloning of a policy as a run before its first update, of one seed.

    Args:
      config: settings.
      head: of the clone.
      key: draws its first parameters.
      update_key: `Run.key`, which its updates draw from.
      teacher: `Policy` or `SequencePolicy`.
    """
    return start_phases((clone_phase(config, head),), clone_init(config, head, key, teacher), update_key)


def start_phases(phases: Sequence[Phase], agent: Any, key: Array) -> Run:
    """Returns a run before the first update of its phases on a dataset, of one seed.

    Args:
      phases: of the algorithm.
      agent: the algorithm's state.
      key: `Run.key`.
    """
    zero = jnp.zeros((), jnp.int32)
    return Run(
        agent=agent,
        key=key,
        records={phase.name: Record.start(phase.stop) for phase in phases if phase.stop is not None},
        ends={phase.name: {term: jnp.full(2, jnp.nan) for term in phase.show} for phase in phases},
        failed=jnp.zeros((), bool),
        updates=zero,
        begun=zero,
        env_steps=zero,
    )


def stage_of(run: Run) -> dict[str, Any]:
    """Returns what a run is known by at the end of a phase, seeds stacked [S] where they are in the run."""
    return {"agent": run.agent, "records": run.records, "ends": run.ends, "failed": run.failed}


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
      reference_returns: [S, E] of the first π_ref from the evaluations' start states; None where it wasn't evaluated.
    """
    begin = over_seeds(
        lambda run, accept, best: run.replace(
            agent=setup.online.begin(run.agent, accept),
            snapshots=run.snapshots.begin(setup.algorithm.policy(run.agent)),
            begun=jnp.ones((), jnp.int32),
            best_score=jnp.asarray(best, jnp.float32),
        ),
        setup.mesh,
        donate=(0,),
    )
    run = begin(run, np.asarray(accept, bool), np.asarray(best_score, np.float32))
    if reference_returns is None:
        return run
    score = np.asarray(setup.score(reference_returns.mean(axis=1)), np.float32)
    run = run.replace(start_score=place(score, setup.mesh))
    if run.standing is None:
        return run
    standing = run.standing.evaluated(np.ones(len(reference_returns), bool), reference_returns)
    return run.replace(standing=place(standing, setup.mesh))
