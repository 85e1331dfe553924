"""Command `python -m experiments.behaviour`, which is `o2o behaviour` where the package is installed."""

from o2o_jax.cli.__main__ import run

if __name__ == "__main__":
    run("behaviour")
