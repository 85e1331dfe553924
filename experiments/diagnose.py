"""Command `python -m experiments.diagnose`, which is `o2o diagnose` where the package is installed."""

from o2o_jax.cli import diagnose as command
from o2o_jax.cli import program

if __name__ == "__main__":
    program.run(command.main, command.define, command.__doc__)
