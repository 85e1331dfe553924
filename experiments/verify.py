"""Command `python -m experiments.verify`, which is `o2o verify` where the package is installed."""

from o2o_jax.cli.__main__ import run

if __name__ == "__main__":
    run("verify")
