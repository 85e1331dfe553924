"""Command `python -m experiments.demo`, which is `o2o demo` where the package is installed."""

from o2o_jax.cli import demo as command
from o2o_jax.cli import program

if __name__ == "__main__":
    program.run(command.main, command.define, command.__doc__)
