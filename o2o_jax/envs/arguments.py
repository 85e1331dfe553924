"""Arguments of an environment beside its gymnasium id, in the names of tasks: "Hopper-v5?healthy_reward=0.0"."""

import json
from collections.abc import Mapping
from typing import Any

from o2o_jax.data.sources import Origin

TIME_LIMIT = "max_episode_steps"
# wrappers that leave an environment what it is: actions come in [-1, 1] here, and time limits are arguments
NEUTRAL_WRAPPERS = frozenset({"ClipAction", "OrderEnforcing", "PassiveEnvChecker", "RescaleAction", "TimeLimit"})


def split(name: str) -> tuple[str, dict[str, Any]]:
    """Returns gymnasium id and arguments of "<id>?<argument>=<JSON value>&…"; what is no JSON is a text.

    Raises:
      ValueError: an argument has no value.
    """
    env_id, _, query = name.partition("?")
    arguments = {}
    for part in query.split("&") if query else []:
        key, equals, value = part.partition("=")
        if not (key.isidentifier() and equals):
            raise ValueError(f"{name!r} has {part!r} where <argument>=<value> is expected, with & between several")
        arguments[key] = _value(value)
    return env_id, arguments


def join(env_id: str, arguments: Mapping[str, Any]) -> str:
    """Returns the name that `split` takes apart."""
    if not arguments:
        return env_id
    return f"{env_id}?" + "&".join(f"{key}={json.dumps(value)}" for key, value in sorted(arguments.items()))


def recorded(origin: Origin) -> tuple[dict[str, Any], list[str]]:
    """Returns how an environment that data was recorded in differs from the one that its id registers.

    Args:
      origin: of the data. An id that isn't registered here has no other arguments than those it was recorded with.

    Returns:
      Arguments, the time limit among them, and names of wrappers that change what it does.

    Raises:
      ValueError: gymnasium isn't installed.
    """
    from o2o_jax.envs.registered import require

    registered = require("gymnasium", "mujoco").registry.get(origin.env_id)
    defaults = registered.kwargs if registered else {}
    given = {key: value for key, value in (origin.env_spec.get("kwargs") or {}).items() if key != "render_mode"}
    arguments = {key: value for key, value in given.items() if key not in defaults or defaults[key] != value}
    limit = origin.env_spec.get(TIME_LIMIT)
    if registered and limit is not None and limit != registered.max_episode_steps:
        arguments[TIME_LIMIT] = limit
    wrappers = [wrapper["name"] for wrapper in origin.env_spec.get("additional_wrappers") or []]
    return arguments, [name for name in wrappers if name not in NEUTRAL_WRAPPERS]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
