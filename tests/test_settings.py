"""Settings check themselves: the choices of their fields, and that every `Config` is one of them."""

import dataclasses
import json
from typing import Literal

import pytest

from o2o_jax import offline, online
from o2o_jax.diagnosis import DiagnosisConfig
from o2o_jax.policy import CloneConfig
from o2o_jax.settings import Settings, from_dict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example(Settings):
    mode: Literal["slow", "fast"] = "slow"
    width: int = 1
    rate: float | None = 0.5


def test_choices_are_those_of_the_field():
    assert Example(mode="fast").mode == "fast"
    with pytest.raises(ValueError, match="^mode must be slow or fast, got 'faster'$"):
        Example(mode="faster")
    with pytest.raises(ValueError, match="^mode must be slow or fast"):
        dataclasses.replace(Example(), mode="faster")


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_numbers_are_finite(value):
    assert Example(rate=None).rate is None
    with pytest.raises(ValueError, match=f"^rate must be a finite number, got {value}$"):
        Example(rate=value)


@pytest.mark.parametrize(
    ("package", "name"), [(package, name) for package in (offline, online) for name in package.names()]
)
def test_every_algorithm_s_settings_check_their_choices_and_survive_json(package, name):
    config = package.load(name).Config()
    assert isinstance(config, Settings)
    text = json.dumps(dataclasses.asdict(config))
    assert from_dict(type(config), json.loads(text)) == config


def test_settings_from_elsewhere():
    with pytest.raises(TypeError, match="unknown"):
        from_dict(Example, {"unknown": {"rate": 1.0}})
    with pytest.raises(ValueError, match="^mode must be slow or fast"):
        from_dict(Example, {"mode": "faster"})


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [(CloneConfig, "hidden", ()), (CloneConfig, "lr", 0.0), (DiagnosisConfig, "probe_std", -0.1),
     (online.load("o2td3").Config, "stop", "measure"), (online.load("o2ppo").Config, "auxiliary_pairing", "pair")],
)  # fmt: skip
def test_settings_refuse(make, field, value):
    with pytest.raises(ValueError, match=f"^{field} must .* got ") as error:
        make(**{field: value})
    assert "\n" not in str(error.value)
