"""Command `python -m experiments.verify`, which is `o2o verify` where the package is installed."""

from o2o_jax.cli import program
from o2o_jax.cli import verify as command

if __name__ == "__main__":
    program.run(command.main, command.define, command.__doc__)
