"""Finds algorithms and environment families: every folder of a package is one, imported on demand.

What messages say of names, theirs and others', is here too: never more of them than a line has room for.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Any

MOST = 5  # names that a message lists
MOST_OF_A_NAME, MOST_OF_A_LINE = 100, 400  # characters


def names(package: str) -> list[str]:
    """Lists the names of the folders inside a package, sorted; single files beside them do not count.

    Args:
      package: full name, "o2o_jax.offline".
    """
    path = importlib.import_module(package).__path__
    return sorted(module.name for module in pkgutil.iter_modules(path) if module.ispkg)


def load(package: str, name: str, kind: str = "algorithm") -> ModuleType:
    """Imports one of the folders that `names` lists.

    Args:
      package: full name, "o2o_jax.offline".
      name: of the folder.
      kind: what the error message calls it.

    Raises:
      ValueError: no such folder; the message names the nearest.
    """
    valid = names(package)
    if name not in valid:
        raise ValueError(unknown(kind, name, valid))
    return importlib.import_module(f"{package}.{name}")


def unknown(kind: str, name: object, valid: Iterable[str]) -> str:
    """Writes the line that answers an unknown name: the nearest valid one if any is near, and a few or all of them."""
    valid, asked = list(valid), clipped(str(name), MOST_OF_A_NAME)
    said = clipped(repr(str(name)), MOST_OF_A_NAME)  # letters that can't be printed take more than one
    of_lower = {other.lower(): other for other in valid}
    near = [of_lower[other] for other in difflib.get_close_matches(asked.lower(), of_lower, n=1)]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if len(valid) <= MOST:
        return f"unknown {kind} {said}.{hint} Valid names: {listed(valid)}"
    nearest = difflib.get_close_matches(asked, valid, n=MOST, cutoff=0.0)
    return f"unknown {kind} {said}.{hint} The nearest of {len(valid)} valid names: {listed(nearest)}"


def listed(values: Iterable[Any], most: int = MOST, separator: str = ", ") -> str:
    """Returns what a message says of a collection that may be of any length: the first few, and how many more."""
    texts = [clipped(str(value), MOST_OF_A_NAME) for value in values]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more if texts else "none"


def clipped(text: str, most: int = MOST_OF_A_LINE) -> str:
    """Returns a text of any length on one line of at most so many characters, more than 3: its beginning and its end.

    Where it says what to do, it says so at the end.
    """
    text = " ".join(text.split()) if len(text.splitlines()) > 1 else text
    if len(text) <= most:
        return text
    end = (most - 3) // 3
    return f"{text[: most - 3 - end]} … {text[len(text) - end :]}"
