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
MOST_OF_A_NAME, MOST_OF_A_LINE = 100, 1_500  # characters

from o2o_jax.reading import brief

MOST = 12  # names that a message lists, else the nearest
NEAREST = 3


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


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """Writes the line that answers an unknown name: the nearest valid one if any is near, and all of them if few."""
    valid = list(valid)
    of_lower = {other.lower(): other for other in valid}
    near = [of_lower[other] for other in difflib.get_close_matches(name.lower(), of_lower, n=NEAREST)]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    said = valid if len(valid) <= MOST else near or valid[:NEAREST]
    more = f" and {len(valid) - len(said)} more" if len(said) < len(valid) else ""
    return f"unknown {kind} {brief(repr(name), 80)}.{hint} Valid names: {', '.join(said) or 'none'}{more}"
