"""Command `python -m experiments.dataset`, which is `o2o dataset` where the package is installed."""

from o2o_jax.cli import dataset as command
from o2o_jax.cli import program

if __name__ == "__main__":
    program.run(command.main, command.define, command.__doc__)
