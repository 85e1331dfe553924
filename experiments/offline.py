"""Command `python -m experiments.offline`, which is `o2o offline` where the package is installed."""

from o2o_jax.cli.__main__ import run

if __name__ == "__main__":
    run("offline")
