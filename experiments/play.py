"""Command `python -m experiments.play`, which is `o2o play` where the package is installed."""

from o2o_jax.cli import play as command
from o2o_jax.cli import program

if __name__ == "__main__":
    program.run(command.main, command.define, command.__doc__)
