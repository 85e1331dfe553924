"""Floating-point operations of every update, counted from its mathematics.

Counted are matrix products, two operations per multiply-add. What is left out grows with a layer's width where a
product grows with its square: activations, LayerNorm, densities, random numbers, optimisers, Polyak averages. At the
published widths that is a few percent, and `tests/test_operations.py` holds the sums against XLA's own count.

A network is `Network`: what its layers cost forward and backward. An update is a sum of those, which an algorithm says
by its `operations(config, spec)`, phase -> `Count`, or "update" -> `Count` offline. A `Count` has two numbers:

- `needed`: what the mathematics asks for. A gradient costs the products that lead to it and no others: the parameters'
  loss has no gradient by its inputs, the actor's loss none by the critic's parameters and only that by the critic's
  action columns, O2TD3's actor asks Q_1 alone, frozen networks go forward only. Forward passes at the same parameters
  and inputs count once. What is constant in a phase, being of the offline policy and the fixed targets at the
  dataset's rows, counts as computed once for the whole dataset and so not per update: π_off at s and s', the anchors ȧ,
  log π_off(ȧ|s) and q̇.
- `beyond`: what this package executes on top of that, each item with its reason. `executed` is the sum of all.

Three choices where one could count otherwise. min over the critics takes both of them, forward and backward: which one
a row needs is known only after the forward pass, and a product takes every row. Every set of actions at the same
states counts with its whole first layer, though the states' share of it could be computed once. A delayed actor counts
with its share of the updates.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
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
        """Counts x_l = x_{l−1} W_l for every layer l, in operations for a batch of `rows`."""
        return 2 * rows * sum(self._layers)

    def parameter_gradient(self, rows: int) -> int:
        """Counts dW_l = x_{l−1}ᵀ g_l for every layer, g_{l−1} = g_l W_lᵀ for all but the first; no forward pass."""
        return 2 * rows * (sum(self._layers) + sum(self._layers[1:]))

    def input_gradient(self, rows: int, columns: int) -> int:
        """Counts g_{l−1} = g_l W_lᵀ for all layers, of the first for `columns` of its inputs; no dW, no forward."""
        return 2 * rows * (sum(self._layers[1:]) + self.copies * columns * self.hidden[0])

    def step(self, rows: int) -> int:
        """Counts the forward pass and the parameters' gradient, in operations for a batch of `rows`."""
        return self.forward(rows) + self.parameter_gradient(rows)


@dataclasses.dataclass(frozen=True)
class Transformer:
    """A transformer of three tokens a step, whose actions are read off one of them; all tokens count in all blocks.

    Attributes:
      inputs: widths of all that is embedded, together.
      width: W of a token; hidden layers are 4 W wide.
      layers: blocks.
      outputs: width of the output of a step.
      steps: K of a history.
    """

    inputs: int
    width: int
    layers: int
    outputs: int
    steps: int

    def forward(self, rows: int) -> int:
        """Counts 12 W² for each token and block, what is attended to, embeddings and output, for `rows` histories."""
        tokens = 3 * self.steps
        blocks = self.layers * tokens * (12 * self.width**2 + 2 * tokens * self.width)
        return 2 * rows * (blocks + self.steps * self.width * (self.inputs + self.outputs))

    def step(self, rows: int) -> int:
        """Counts the forward pass and the parameters' gradient, which the inputs have none of."""
        return 3 * self.forward(rows) - 2 * rows * self.steps * self.width * self.inputs


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


def batch_size_of(config: Any) -> int:
    """Returns the rows of an update on a dataset, by the settings of any algorithm."""
    parts: tuple[Any, ...] = (config, getattr(config, "update", None), getattr(config, "reevaluate", None))
    return next(part.batch_size for part in parts if hasattr(part, "batch_size"))


def actor_of(sizes: Any, spec: Spec, outputs: int) -> Network:
    """Returns an actor as wide as `sizes.hidden`."""
    return Network(spec.observation_dim, sizes.hidden, outputs)


def critics_of(sizes: Any, spec: Spec, copies: int) -> Network:
    """Returns an ensemble of so many critics as wide as `sizes.critic_hidden`."""
    return Network(spec.observation_dim + spec.action_dim, sizes.critic_hidden, 1, copies)


def reconstruction(config: Any, actor: Network, critic: Network, actor_step: int) -> dict[str, Count]:
    """Counts re-evaluation, and alignment, whose critics learn at two sets of actions: the probes and the anchors.

    Re-evaluation counts as a mean over updates with and without returns in their targets: those ask for values where
    the episodes of the rows ended.
    """
    rows, phase = config.update.batch_size, config.reevaluate
    mixed = phase.return_updates / phase.updates if phase.updates else 0.0
    ends = actor.forward(rows) + critic.forward(rows)
    return {
        "reevaluate": Count(critic.forward(rows) + critic.step(rows) + mixed * ends),
        "align": Count(critic.forward(rows) + critic.step(2 * rows) + actor_step),
    }


def cloning(config: Any, spec: Spec, head: str) -> Count:
    """Counts an update of a clone: its own, what it learns from being computed once for the whole dataset."""
    outputs = spec.action_dim * (2 if head == "tanh_gaussian" else 1)
    return Count(actor_of(config, spec, outputs).step(config.batch_size))
