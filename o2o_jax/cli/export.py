"""Exports a policy of a run as a program that runs without this package: StableHLO or ONNX.

    python -m experiments.export --run=runs/o2td3 --format=stablehlo --out=exported
    python -m experiments.export --run=runs/o2td3 --which=last --format=onnx --out=exported

The program takes raw observations [B, O] of any number B from 1 on to actions [B, A] in the environment's own units:
normaliser and bounds of actions are inside. Beside it `export.json` says shapes and dtypes, and how to run it in three
lines. A policy on histories becomes a function of its whole window of steps, which `export.json` describes. What was
written is compared with the policy before the folder appears.
"""

from pathlib import Path

import absl.flags
from absl.flags import FlagValues

from o2o_jax.cli import flags
from o2o_jax.jobs.policies import WHICH, load_policy
from o2o_jax.runtime import export


def define(values: FlagValues) -> None:
    """Flags of this script."""
    flags.define_path(values, "run", None, "folder of a run, or of a policy that save_policy wrote", required=True)
    absl.flags.DEFINE_enum("which", "best", WHICH, "policy of the run", flag_values=values)
    absl.flags.DEFINE_integer("seed", 0, "number of the run's seed", lower_bound=0, flag_values=values)
    absl.flags.DEFINE_string(
        "env", None, "task whose bounds of actions the program has; by default the run's", flag_values=values
    )
    absl.flags.DEFINE_enum("format", "stablehlo", list(export.FILES), "of the program", flag_values=values)
    flags.define_path(values, "out", None, "folder to write, which does not exist", required=True)


def main(args: FlagValues) -> None:
    """Loads, exports, compares. Impure."""
    if Path(args.out).exists():
        raise FileExistsError(f"{args.out} already exists: choose another folder")
    flags.keep_compiled_programs()
    policy = load_policy(args.run, args.seed, args.which, args.env)
    if policy.task is None:
        print(
            "note: the policy knows no environment, and its actions are in [-1, 1]: --env names one with other bounds"
        )
    folder = export.write(policy, args.out, args.format)
    path, sizes = folder / export.FILES[args.format], policy.spec
    window = f", {policy.policy.context}" if policy.on_histories else ""  # type: ignore[union-attr]
    print(
        f"{path}: observations [B{window}, {sizes.observation_dim}] to actions [B, {sizes.action_dim}], "
        f"{path.stat().st_size / 1e3:,.0f} kB; {folder / export.DESCRIPTION} says how to run it"
    )
