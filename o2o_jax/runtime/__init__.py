"""Every side effect of the package: stepping environments, evaluation, checkpoints, logs, devices."""
