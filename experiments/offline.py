"""Command `python -m experiments.offline`, which is `o2o offline` where the package is installed."""

from o2o_jax.cli import offline as command
from o2o_jax.cli import program

if __name__ == "__main__":
    program.run(command.main, command.define, command.__doc__)
