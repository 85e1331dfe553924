"""Finds algorithms and environment families: every folder of a package is one, imported on demand."""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType


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
      ValueError: no such folder; the message lists those that exist and names the nearest.
    """
    valid = names(package)
    if name not in valid:
        raise ValueError(unknown(kind, name, valid))
    return importlib.import_module(f"{package}.{name}")


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """Writes the line that answers an unknown name: the nearest valid one if any is near, and all of them."""
    valid = list(valid)
    near = difflib.get_close_matches(name, valid, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}.{hint} Valid names: {', '.join(valid) or 'none'}"
