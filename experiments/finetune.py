"""Command `python -m experiments.finetune`, which is `o2o finetune` where the package is installed."""

from o2o_jax.cli import finetune as command
from o2o_jax.cli import program

if __name__ == "__main__":
    program.run(command.main, command.define, command.__doc__)
