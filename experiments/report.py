"""Command `python -m experiments.report`, which is `o2o report` where the package is installed."""

from o2o_jax.cli.__main__ import run

if __name__ == "__main__":
    run("report")
