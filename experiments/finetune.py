"""Command `python -m experiments.finetune`, which is `o2o finetune` where the package is installed."""

from o2o_jax.cli.__main__ import run

if __name__ == "__main__":
    run("finetune")
