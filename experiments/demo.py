"""Command `python -m experiments.demo`, which is `o2o demo` where the package is installed."""

from o2o_jax.cli.__main__ import run

if __name__ == "__main__":
    run("demo")
