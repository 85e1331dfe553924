"""Floating-point operations of every update, counted from its mathematics.

Counted are matrix products, two operations per multiply-add. What is left out grows with a layer's width where a
product grows with its square: activations, LayerNorm, densities, random numbers, optimisers, Polyak averages. At the
published widths that is a few percent, and `tests/benchmarks/test_flops.py` holds the sums against XLA's own count.

A network is `Network`: what its layers cost forward and backward. An update is a sum of those, in two numbers:

- `needed`: what the mathematics asks for. A gradient costs the products that lead to it and no others: the parameters'
  loss has no gradient by its inputs, the actor's loss none by the critic's parameters and only that by the critic's
  action columns, O2TD3's actor asks Q_1 alone, frozen networks go forward only. Forward passes at the same parameters
  and inputs count once. What is constant in a phase, being of the offline policy and the fixed targets at the
  dataset's rows, counts as computed once for the whole dataset and so not per update: π_off at s and s', the anchors ȧ,
  log π_off(ȧ|s) and q̇.
- `beyond`: what this package executes on top of that, each item with its reason. `executed` is the sum of all.

Three choices where one could count otherwise. min over the critics takes both of them, forward and backward: which one
a row needs is known only after the forward pass, and a product takes every row. Every set of actions at the same
states counts with its whole first layer, though the states' share of it could be had once. A delayed actor counts with
its share of the updates.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from o2o_jax.types import Spec


@dataclasses.dataclass(frozen=True)
class Network:
    """A multilayer perceptron, or several alike.

    Attributes:
      inputs: width of the input.
      hidden: widths of the hidden layers.
      outputs: width of the output.
      copies: members of the ensemble.
    """

    inputs: int
    hidden: Sequence[int]
    outputs: int
    copies: int = 1

    @property
    def _layers(self) -> list[int]:
        """Multiply-adds per row of each layer's product, from the first to the output."""
        widths = (self.inputs, *self.hidden, self.outputs)
        return [self.copies * fan_in * fan_out for fan_in, fan_out in itertools.pairwise(widths)]

    def forward(self, rows: int) -> int:
        """x_l = x_{l−1} W_l for every layer l: operations for a batch of `rows`."""
        return 2 * rows * sum(self._layers)

    def parameter_gradient(self, rows: int) -> int:
        """dW_l = x_{l−1}ᵀ g_l for every layer, g_{l−1} = g_l W_lᵀ for all but the first; without the forward pass."""
        return 2 * rows * (sum(self._layers) + sum(self._layers[1:]))

    def input_gradient(self, rows: int, columns: int) -> int:
        """g_{l−1} = g_l W_lᵀ for all layers, of the first for `columns` of its inputs; no dW, no forward pass."""
        return 2 * rows * (sum(self._layers[1:]) + self.copies * columns * self.hidden[0])

    def step(self, rows: int) -> int:
        """Forward pass and parameters' gradient."""
        return self.forward(rows) + self.parameter_gradient(rows)


@dataclasses.dataclass(frozen=True)
class Count:
    """Floating-point operations of one update of one seed.

    Attributes:
      needed: by the mathematics, see above.
      beyond: what the implementation executes beside that, by what it is.
    """

    needed: float
    beyond: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def executed(self) -> float:
        """Of this package's implementation."""
        return self.needed + sum(self.beyond.values())


def o2sac(config: Any, spec: Spec) -> dict[str, Count]:
    """Operations per update of O2SAC's phases."""
    rows, actions = config.batch_size, spec.action_dim
    actor, critic = _actor(config, spec, 2 * actions), _critic(config, spec, config.num_critics)
    # the probes of alignment are of the distribution that the actor's loss asks: one forward pass
    actor_step = actor.step(rows) + critic.forward(rows) + critic.input_gradient(rows, actions)
    finetune = actor_step + actor.forward(rows) + critic.forward(rows) + critic.step(rows)
    if config.constrain:
        finetune += 2 * actor.forward(rows)  # π_ref at s and s': it changes, and half of the rows are fresh
    return _reconstruction(rows, critic, actor_step) | {"finetune": Count(finetune)}


def o2td3(config: Any, spec: Spec) -> dict[str, Count]:
    """Operations per update of O2TD3's phases; fine-tuning's as a mean over updates with and without the actor."""
    rows, actions = config.batch_size, spec.action_dim
    actor, critic = _actor(config, spec, actions), _critic(config, spec, config.num_critics)
    first = dataclasses.replace(critic, copies=1)
    actor_step = actor.step(rows) + first.forward(rows) + first.input_gradient(rows, actions)
    finetune = actor.forward(rows) + critic.forward(rows) + critic.step(rows)
    delayed = actor_step
    if config.constrain:
        finetune += 2 * actor.forward(rows)  # π and π_ref at s', for the penalty of the target
        delayed += actor.forward(rows)  # π_ref at s
    count = Count(finetune + delayed / config.policy_delay)
    return _reconstruction(rows, critic, actor_step) | {"finetune": count}


def _reconstruction(rows: int, critic: Network, actor_step: int) -> dict[str, Count]:
    """Re-evaluation, and alignment, whose critics learn at two sets of actions: the probes and the anchors."""
    return {
        "reevaluate": Count(critic.forward(rows) + critic.step(rows)),
        "align": Count(critic.forward(rows) + critic.step(2 * rows) + actor_step),
    }


def o2ppo(config: Any, spec: Spec) -> dict[str, Count]:
    """Operations per update of value regression, and per rollout of fine-tuning with all its epochs.

    A rollout has one state more than steps, so that V at its T + 1 states is all that advantages need; the last states
    of truncated episodes, a handful, are left out. Regression with bootstrapped returns counts V at the last state of
    every row's episode, though it matters only where that was truncated: the data says how many those are.
    """
    rows, steps = config.batch_size, config.rollout_env_steps
    actor = _actor(config, spec, spec.action_dim)
    value = Network(spec.observation_dim, config.critic_hidden, 1)
    bootstrapped = value.forward(rows) if config.return_boundary == "bootstrap" else 0
    estimate = value.forward(steps + 1) + 2 * actor.forward(steps)  # π of the rollout, and π_ref
    return {
        "reevaluate": Count(value.step(rows) + bootstrapped),
        "finetune": Count(
            estimate + config.epochs * (actor.step(steps) + value.step(steps)),
            {"V at every s', which mostly is the next row's s": value.forward(steps - 1)},
        ),
    }


def td3_bc(config: Any, spec: Spec) -> dict[str, Count]:
    """Operations per update of TD3+BC, as a mean over updates with and without the actor."""
    rows, actions = config.batch_size, spec.action_dim
    actor, critic = _actor(config, spec, actions), _critic(config, spec, 2)
    first = dataclasses.replace(critic, copies=1)
    delayed = actor.step(rows) + first.forward(rows) + first.input_gradient(rows, actions)
    every = actor.forward(rows) + critic.forward(rows) + critic.step(rows)
    return {"update": Count(every + delayed / config.policy_delay)}


def iql(config: Any, spec: Spec) -> dict[str, Count]:
    """Operations per update of IQL."""
    rows = config.batch_size
    actor, critic = _actor(config, spec, spec.action_dim), _critic(config, spec, 2)
    value = Network(spec.observation_dim, config.critic_hidden, 1)
    values = value.step(rows) + value.forward(rows)  # at s and s'
    return {"update": Count(values + critic.forward(rows) + critic.step(rows) + actor.step(rows))}


def cql(config: Any, spec: Spec) -> dict[str, Count]:
    """Operations per update of CQL: its critics learn at 1 + 3 n actions per state."""
    rows, actions = config.batch_size, spec.action_dim
    actor, critic = _actor(config, spec, 2 * actions), _critic(config, spec, 2)
    actor_step = actor.step(rows) + critic.forward(rows) + critic.input_gradient(rows, actions)
    targets = actor.forward(rows) + critic.forward(rows * config.target_actions)
    return {"update": Count(actor_step + targets + critic.step(rows * (1 + 3 * config.num_actions)))}


def awac(config: Any, spec: Spec) -> dict[str, Count]:
    """Operations per update of AWAC; the advantage asks the new critics at two actions per state."""
    rows = config.batch_size
    actor, critic = _actor(config, spec, spec.action_dim), _critic(config, spec, 2)
    targets = actor.forward(rows) + critic.forward(rows)
    return {"update": Count(targets + critic.step(rows) + critic.forward(2 * rows) + actor.step(rows))}


def bc(config: Any, spec: Spec) -> dict[str, Count]:
    """Operations per update of behaviour cloning."""
    outputs = spec.action_dim * (2 if config.head == "tanh_gaussian" else 1)
    return {"update": Count(_actor(config, spec, outputs).step(config.batch_size))}


COUNTS: dict[str, Callable[[Any, Spec], dict[str, Count]]] = {
    function.__name__: function for function in (o2sac, o2td3, o2ppo, td3_bc, iql, cql, awac, bc)
}


def _actor(config: Any, spec: Spec, outputs: int) -> Network:
    return Network(spec.observation_dim, config.hidden, outputs)


def _critic(config: Any, spec: Spec, copies: int) -> Network:
    return Network(spec.observation_dim + spec.action_dim, config.critic_hidden, 1, copies)
