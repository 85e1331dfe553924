"""Command `python -m experiments.offline`, which is `o2o offline` where the package is installed."""

from o2o_jax.cli import flags
from o2o_jax.cli import offline as command

if __name__ == "__main__":
    flags.run(command.main, command.define, command.__doc__)
