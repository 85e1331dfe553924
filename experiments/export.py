"""Command `python -m experiments.export`, which is `o2o export` where the package is installed."""

from o2o_jax.cli import export as command
from o2o_jax.cli import program

if __name__ == "__main__":
    program.run(command.main, command.define, command.__doc__)
