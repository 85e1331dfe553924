"""Command `python -m experiments.settings`, which is `o2o settings` where the package is installed."""

from o2o_jax.cli.__main__ import run

if __name__ == "__main__":
    run("settings")
