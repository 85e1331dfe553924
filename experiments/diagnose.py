"""Command `python -m experiments.diagnose`, which is `o2o diagnose` where the package is installed."""

from o2o_jax.cli.__main__ import run

if __name__ == "__main__":
    run("diagnose")
