"""Command `python -m experiments.study`, which is `o2o study` where the package is installed."""

from o2o_jax.cli.__main__ import run

if __name__ == "__main__":
    run("study")
