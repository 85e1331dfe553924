"""Command `python -m experiments.dataset`, which is `o2o dataset` where the package is installed."""

from o2o_jax.cli.__main__ import run

if __name__ == "__main__":
    run("dataset")
