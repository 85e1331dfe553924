"""Regimes of the seeds for `replay.mode=auto`: policies that are better than, like, or worse than their data."""

from typing import Any

import jax
import numpy as np

from o2o_jax.data.dataset import Dataset
from o2o_jax.diagnosis import (
    REGIMES,
    DiagnosisConfig,
    Regime,
    Value,
    gap_interval,
    policy_against_data,
    regime_of,
    returns_interval,
)
from o2o_jax.policy import Handoff, Policy
from o2o_jax.runtime import seeds
from o2o_jax.runtime.setup import Setup
from o2o_jax.types import Array, Rollout

EPISODES = 50  # of the dataset, at most half of them, where a critic says how the policy compares with it
Band = tuple[float, float, float, float, str]  # of the policy, of the data, both ends around the difference, unit
WORDS: dict[Regime, str] = {"better": "better than its data", "like": "like its data", "worse": "worse than its data"}


def replay_regimes(
    setup: Setup, agent: Any, handoff: Handoff, returns: dict[str, np.ndarray], dataset: Dataset
) -> tuple[Array, list[str]]:
    """Compares the policy that goes online with the dataset, seed by seed. Impure: compiles and runs.

    By the episodes that the start was evaluated with; else by the re-evaluated critic's word on the offline policy,
    `diagnosis.policy_against_data`; like the data where there is neither.

    Args:
      setup: of the run.
      agent: the algorithm's state before `begin_finetuning`, seeds stacked [S].
      handoff: with π_off, seeds stacked [S].
      returns: "offline", and "aligned" where there is one -> [S, E] undiscounted returns; empty without evaluation.
      dataset: what the policy was trained on.

    Returns:
      [S] int32 of `diagnosis.REGIMES`, and a line for each seed.
    """
    config, num_seeds = setup.config, len(setup.seeds)
    found: list[Regime] = ["like"] * num_seeds
    why = ["there is neither an evaluation nor a re-evaluated critic"] * num_seeds
    bands: list[Band] = []
    if returns:
        bands = _by_returns(config, returns, dataset)
    elif setup.algorithm.critic is not None and any(phase.name == "reevaluate" for phase in setup.algorithm.phases):
        bands = _by_critics(setup, agent, handoff, dataset)
    for seed, (policy, data, low, high, unit) in enumerate(bands):
        found[seed] = regime_of(low, high, data) or "like"
        why[seed] = f"{unit} {policy:.4g} against {data:.4g}, their difference {low:.4g} to {high:.4g}"
    shares: dict[Regime, str] = {
        "better": f"half of every batch, none after {config.replay.auto_warmup_env_steps:,} environment steps",
        "like": "half of every batch",
        "worse": "all of it, beside the fresh steps",
    }
    lines = [
        f"replay, seed {seed}: the policy is {WORDS[regime]} ({reason}): {shares[regime]}"
        for seed, regime, reason in zip(setup.seeds, found, why, strict=True)
    ]
    return seeds.place(np.array([REGIMES[regime] for regime in found], np.int32), setup.mesh), lines


def _by_returns(config: Any, returns: dict[str, np.ndarray], dataset: Dataset) -> list[Band]:
    """Returns the bands by evaluation, of the policy that `start.actor` sends online."""
    offline, data = returns["offline"], dataset.returns()
    own = offline
    if "aligned" in returns:
        aligned = returns["aligned"]
        better = np.mean(aligned, axis=1) > np.mean(offline, axis=1)
        starts = {"best_of": better, "aligned": np.full_like(better, True), "offline": np.full_like(better, False)}
        own = np.where(starts[config.start.actor][:, None], aligned, offline)
    mean = float(np.mean(data))
    return [
        (policy, mean, *returns_interval(policy, own.shape[1], data), "return")
        for policy in np.mean(own, axis=1).tolist()
    ]


def _by_critics(setup: Setup, agent: Any, handoff: Handoff, dataset: Dataset) -> list[Band]:
    """Returns the bands by the re-evaluated critics, of π_off on episodes of the dataset. Impure: compiles and runs."""
    to_critic, mesh = setup.algorithm.critic, setup.mesh
    assert to_critic is not None
    episodes = len(dataset.episode_ends)
    some = dataset.hold_out(min(EPISODES, episodes // 2))[1] if episodes > 1 else dataset

    def compare(key: Array, rollout: Rollout, agent: Any, policy: Policy) -> Value:
        critic = to_critic(agent).replace(params=agent.target_critic)  # which alignment leaves as it is
        return policy_against_data(DiagnosisConfig(), key, rollout, policy, critic)

    program = seeds.over_seeds(compare, mesh, shared=(1,))
    keys, rollout = seeds.place(seeds.keys(setup.seeds, "regime"), mesh), seeds.replicate(some.rollout(), mesh)
    value = jax.device_get(program(keys, rollout, agent, seeds.place(handoff.policy, mesh)))
    columns = (value.policy, value.data, *gap_interval(value))
    return [(*numbers, "value") for numbers in zip(*(np.asarray(column).tolist() for column in columns), strict=True)]
