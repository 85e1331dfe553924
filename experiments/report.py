"""Command `python -m experiments.report`, which is `o2o report` where the package is installed."""

from o2o_jax.cli import program
from o2o_jax.cli import report as command

if __name__ == "__main__":
    program.run(command.main, command.define, command.__doc__)
