"""Command `python -m experiments.play`, which is `o2o play` where the package is installed."""

from o2o_jax.cli.__main__ import run

if __name__ == "__main__":
    run("play")
