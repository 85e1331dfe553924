"""Command `python -m experiments.settings`, which is `o2o settings` where the package is installed."""

from o2o_jax.cli import program
from o2o_jax.cli import settings as command

if __name__ == "__main__":
    program.run(command.main, command.define, command.__doc__)
