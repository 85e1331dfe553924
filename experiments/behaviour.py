"""Command `python -m experiments.behaviour`, which is `o2o behaviour` where the package is installed."""

from o2o_jax.cli import behaviour as command
from o2o_jax.cli import program

if __name__ == "__main__":
    program.run(command.main, command.define, command.__doc__)
