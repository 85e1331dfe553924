"""Episodes under way as numbers, which a checkpoint can hold; needs no simulator."""

from typing import Any, NamedTuple

import numpy as np

UNSEEDED = -1
WORD = 2**32


class Recording(NamedTuple):
    """Episode under way, as numbers.

    Attributes:
      seed: [] int64 that it was reset with, `UNSEEDED` for none.
      generators: [G, 10] uint32, states of the environment's generators before that.
      actions: [T, ...] since then.
    """

    seed: np.ndarray
    generators: np.ndarray
    actions: np.ndarray


def words_of(generator: np.random.Generator) -> list[int] | None:
    """Returns a generator's state in 32-bit words [10], numpy's own kind (PCG64) alone; None of any other kind."""
    state = generator.bit_generator.state
    if state["bit_generator"] != "PCG64":
        return None
    numbers = [state["state"]["state"], state["state"]["inc"]]
    words = [number // WORD**place % WORD for number in numbers for place in range(4)]
    return [*words, state["has_uint32"], state["uinteger"]]


def state_of(words: np.ndarray) -> dict[str, Any]:
    """Returns the state of a generator from its words [10]."""
    values = [int(word) for word in words]
    state, increment = (sum(values[4 * i + place] * WORD**place for place in range(4)) for i in range(2))
    return {
        "bit_generator": "PCG64",
        "state": {"state": state, "inc": increment},
        "has_uint32": values[8],
        "uinteger": values[9],
    }
