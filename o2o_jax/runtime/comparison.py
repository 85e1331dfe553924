"""Settings that are compared: which differ, and how a message says so."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from o2o_jax.reading import brief

MOST = 3  # of the settings that differ, which a message names


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Compares settings, JSON-like and nested: dotted name of each that differs, in their order -> both as text."""
    text = [{name: json.dumps(value) for name, value in _flatten(plain(config)).items()} for config in (first, second)]
    pairs = {name: tuple(side.get(name, "absent") for side in text) for name in sorted(text[0].keys() | text[1].keys())}
    return {name: (one, other) for name, (one, other) in pairs.items() if one != other}


def in_words(found: Mapping[str, tuple[str, str]], one: str = "", other: str = "") -> str:
    """Returns the first few `differences` in words, and how many more there are.

    Args:
      found: name -> both values.
      one: what says where the first is: " there".
      other: likewise: " now".
    """
    said = [f"{name} is {brief(pair[0], 60)}{one} and {brief(pair[1], 60)}{other}" for name, pair in found.items()]
    return "; ".join(said[:MOST]) + (f"; and {len(said) - MOST} more" if len(said) > MOST else "")


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the mapping as JSON gives it back: tuples become lists, keys text."""
    return json.loads(json.dumps(dict(config)))


def _flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(config, dict) or not config:
        return {prefix: config}
    parts = (_flatten(value, f"{prefix}.{name}" if prefix else name) for name, value in config.items())
    return functools.reduce(dict.__or__, parts)
