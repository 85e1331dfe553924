"""Takes the policies of an offline run online, all seeds side by side.

    python -m experiments.finetune --algorithm=o2td3 --policy=runs/td3_bc --seeds=5 --out=runs/o2td3

Phases: `clone` where the policy's head doesn't fit the algorithm, `reevaluate`, `align`, `finetune`. The output folder
gets a CSV file for each, `<phase>_measures.csv` where early_stopping.mode=measures ends a phase or critics are compared
with returns, `start.csv` with the scores of the offline and the aligned policy, `evaluation.csv` by environment steps,
checkpoints, and in `stages` what experiments.diagnose reads: the agent after re-evaluation and after alignment.
`o2o_jax.load_policy` reads the policies that a run leaves, `o2o play` shows them; with roll_back.enabled=true the best
is π_ref, which evaluations confirmed. Runs that differ in what happens online alone need those phases once:
--reconstruction=<run> takes them from there. Where the policy was cloned the clone counts as the offline policy, and
`start.csv` also says how close it came: the score of its teacher, and the last row of `clone.csv`. Resume a
stopped run with --resume.
"""

from collections.abc import Callable, Mapping
from typing import Any

import absl.flags
from absl.flags import FlagValues
from jax.sharding import Mesh

from o2o_jax import online
from o2o_jax.cli import estimates, flags, overrides, program
from o2o_jax.interfaces import Task
from o2o_jax.jobs.handoffs import load_handoff, online_task, start_settings
from o2o_jax.jobs.job import OnlineJob, cloning
from o2o_jax.policy import Handoff
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.setup import Setup


def define(values: FlagValues) -> None:
    """Flags of this script."""
    flags.define_common(values)
    flags.define_schedule(values)
    flags.define_clone_updates(values)
    absl.flags.DEFINE_string(
        "algorithm", None, f"online algorithm: {', '.join(online.names())}", required=True, flag_values=values
    )
    flags.define_path(
        values,
        "policy",
        None,
        "output folder of experiments.offline, where the policies come from; or a folder of "
        "save_policy, whose policy all seeds start from",
        required=True,
    )
    absl.flags.DEFINE_string(
        "env", None, "task to go online in; by default the one that the policy was trained on", flag_values=values
    )
    flags.define_path(
        values, "dataset", None, "Minari id or path; by default the data that the policy was trained on, or its task's"
    )
    flags.define_path(
        values,
        "reconstruction",
        None,
        "output folder of a run of this script, with the same settings up to the first "
        "environment step, whose re-evaluated and aligned networks to take",
    )
    flags.define_phase_evaluation(values, 0, "0 for none")
    absl.flags.DEFINE_integer(
        "checkpoint_every", 1_000, "environment steps between checkpoints; at evaluations", lower_bound=1,
        flag_values=values,
    )  # fmt: skip


def main(args: FlagValues) -> None:
    """Clones if need be, reconstructs, fine-tunes, saves. Impure."""
    mesh = flags.setup_devices(args.seeds, args.devices)
    plan = read_job(args, mesh).plan(mesh)
    if args.clone_updates and plan.clone is None:
        print("note: this policy goes online as it is, so that --clone_updates changes nothing")
    program.execute(args, plan)


def read_job(args: FlagValues, mesh: Mesh) -> OnlineJob:
    """Returns the job of a command line. Impure: reads what the offline run says of itself.

    Raises:
      FileNotFoundError: there is no such run.
      ValueError: no such task, or settings that don't fit.
    """
    source = start_settings(args.policy, flags.seed_list(args))
    task = online_task(args.policy, source, args.env)
    return make_job(args, mesh, task, source, lambda: load_handoff(args.policy, flags.seed_list(args), args.env)[0])


def make_job(
    args: FlagValues, mesh: Mesh, task: Task, source: Mapping[str, Any], start: Callable[[], Handoff]
) -> OnlineJob:
    """Returns the job of a command line that starts from an offline run, there already or still to come.

    Args:
      args: the command line.
      mesh: devices that share the seeds.
      task: to go online in.
      source: of the offline run its "algorithm" and "config".
      start: () -> what that run hands over, for an estimate.

    Raises:
      ValueError: settings that don't fit.
    """
    module = online.load(args.algorithm)
    default = module.Config.for_task(task, args.schedule).after(source["algorithm"], source["config"])
    module.make(default, task.spec).requires.check_source(args.algorithm, source["algorithm"])

    def estimate(config: Any) -> list[str]:
        return estimates.describe(outline(args, mesh, task, config, start()))

    config = overrides.settings(args, args.algorithm, default, estimate)
    return OnlineJob(
        algorithm=args.algorithm,
        config=config,
        env=task.name,
        dataset=args.dataset or "",
        clip_actions=args.clip_actions,
        seeds=args.seeds,
        first_seed=args.first_seed,
        envpool=args.envpool,
        eval_every=args.eval_every,
        eval_sampled=args.eval_sampled,
        policy=str(args.policy),
        schedule=args.schedule,
        clone=cloning(config, args.schedule, args.clone_updates),
        reconstruction=args.reconstruction,
        checkpoint_every=args.checkpoint_every,
    )


def outline(args: FlagValues, mesh: Mesh, task: Task, config: Any, start: Handoff) -> Plan:
    """Returns the plan of a command line without data and environments, for estimates.

    Args:
      args: the command line.
      mesh: devices that share the seeds.
      task: to go online in.
      config: settings of its algorithm.
      start: what the offline run hands over, seeds stacked [S].
    """
    algorithm = online.load(args.algorithm).make(config, task.spec)
    assert algorithm.requires is not None
    fits = algorithm.requires.takes(start.policy.head)
    clone = None if fits else cloning(config, args.schedule, args.clone_updates)
    setup = Setup(algorithm, config, task, flags.seed_list(args), mesh)
    settings = {"algorithm": args.algorithm}
    return Plan(
        setup, start=start, clone=clone, eval_every=args.eval_every, eval_sampled=args.eval_sampled, settings=settings
    )
