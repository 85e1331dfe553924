"""Command `python -m experiments.export`, which is `o2o export` where the package is installed."""

from o2o_jax.cli.__main__ import run

if __name__ == "__main__":
    run("export")
