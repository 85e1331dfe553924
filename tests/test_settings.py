"""Settings check and describe themselves and their parts, and every `Config` is made of them."""

import dataclasses
import json
from typing import Literal

import pytest

from o2o_jax import offline, online
from o2o_jax.diagnosis import DiagnosisConfig
from o2o_jax.online import o2sac, o2td3, parts
from o2o_jax.policy import CloneConfig
from o2o_jax.settings import (
    Settings,
    advice,
    documented,
    flat,
    from_dict,
    get,
    nearest,
    part,
    paths,
    replaced,
    setting,
)


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
     (parts.EarlyStopping, "mode", "measure"), (parts.Update, "discount", 1.0)],
)  # fmt: skip
def test_settings_refuse(make, field, value):
    with pytest.raises(ValueError, match=f"^{field} must .* got ") as error:
        make(**{field: value})
    assert "\n" not in str(error.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limit(Settings):
    """A part that may be left out."""

    low: float = setting(0.0, "lower end", unit="m", source="this package")
    high: float = setting(1.0, "upper end", source="this package")

    def __post_init__(self):
        super().__post_init__()
        if self.low > self.high:
            raise ValueError(f"low must not lie above high, {self.high}, got {self.low}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole(Settings):
    """Settings with parts."""

    steps: int = setting(3, "length", unit="steps", source="this package")
    sizes: tuple[int, ...] = (1, 2)
    limit: Limit | None = part(Limit, high=2.0)
    other: Limit = part(Limit)
    never: Limit | None = None


def test_paths_of_parts():
    assert list(paths(Whole())) == [
        "steps", "sizes", "limit", "limit.low", "limit.high", "other.low", "other.high", "never", "never.low",
        "never.high",
    ]  # fmt: skip
    assert paths(Whole())["limit.low"] is float
    assert paths(Whole())["limit"] is type(None)
    assert get(Whole(), "limit.high") == 2.0


def test_values_are_replaced_by_path_all_at_once():
    assert replaced(Whole(), {}) == Whole()
    found = replaced(Whole(), {"steps": 4, "limit.low": 5.0, "limit.high": 6.0})  # which one by one would be refused
    assert found == Whole(steps=4, limit=Limit(low=5.0, high=6.0))
    assert replaced(Whole(), {"limit": None}).limit is None
    assert replaced(Whole(), {"never.low": 0.5}).never == Limit(low=0.5)  # a path within makes the part
    assert replaced(Whole(), {"other": Limit(high=9.0), "other.low": 8.0}).other == Limit(low=8.0, high=9.0)


def test_flat_settings_come_back():
    values = dataclasses.asdict(replaced(Whole(), {"limit": None}))
    assert flat(values) == {
        "steps": 3, "sizes": (1, 2), "limit": None, "other.low": 0.0, "other.high": 1.0, "never": None
    }  # fmt: skip
    assert replaced(Whole(), flat(values)) == from_dict(Whole, json.loads(json.dumps(values)))


def test_fields_are_documented():
    found = {entry.path: entry for entry in documented(Whole())}
    assert found["limit.low"][1:] == (0.0, float, "lower end", "m", "this package")
    assert found["limit.high"].default == 2.0
    assert found["sizes"].description == ""


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"step": 4}, TypeError, "^test_settings.Whole has no setting 'step': did you mean steps\\?$"),
        ({"limit.lo": 4}, TypeError, "has no setting 'lo': did you mean low\\?$"),
        ({"steps.low": 4}, TypeError, "has no parts in 'steps'"),
        ({"limit.low": 4.0}, ValueError, "^limit.low must not lie above high, 2.0, got 4.0$"),
        ({"limit.low": "4"}, ValueError, "^limit.low must be a number, got '4'$"),
        (None, TypeError, "^values by path are expected, such as .*, got None$"),
        ({3: 1}, TypeError, "^values by path are expected, such as .*, got {3: 1}$"),
        ({"other": None}, ValueError, r"^other must be settings of its own, got None: write other=.*Limit\(…\)$"),
    ],
)
def test_what_cannot_be_replaced_is_explained(values, error, message):
    with pytest.raises(error, match=message):
        replaced(Whole(), values)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"hidden": (8,)}, TypeError, r"^o2td3.Config has no setting 'hidden': did you mean networks.hidden\? Write "
         r"networks=parts.ActorCritic\(hidden=…\)$"),
        ({"reevaluate_updates": 3}, TypeError, r"Write reevaluate=parts.Reevaluation\(updates=…\)$"),
        ({"env_step": 3}, TypeError, "has no setting 'env_step': did you mean env_steps"),
        ({"update": {"batch_size": 8}}, ValueError, r"^update must be settings of its own, got a dict: write "
         r"update=parts.Update\(batch_size=…\)$"),
        ({"networks": 256}, ValueError, "^networks must be settings of its own, got 256: write networks="),
        ({"env_steps": 1e3}, ValueError, "^env_steps must be a whole number, got 1000.0$"),
        ({"constraint": False}, ValueError, r"^constraint must be settings of its own, got False: write constraint="),
    ],
)  # fmt: skip
def test_a_wrong_keyword_is_answered_with_what_to_write(values, error, message):
    with pytest.raises(error, match=message) as caught:
        o2td3.Config(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["o2td3", "o2sac", "o2ppo"])
def test_parts_of_a_method_are_where_messages_say(name):
    module = online.load(name)
    for field in dataclasses.fields(module.Config):
        kind = type(getattr(module.Config(), field.name))
        if issubclass(kind, Settings):
            assert getattr(module, kind.__name__, None) is kind or getattr(parts, kind.__name__) is kind


def test_widths_are_a_tuple():
    with pytest.raises(ValueError, match=r"^hidden must be a tuple, got 256: write \(256,\)$"):
        parts.Networks(hidden=256)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("hidden", ["networks.hidden"]),  # a field by its own name
        ("reevaluate_updates", ["reevaluate.updates"]),  # with that of its part
        ("align.batch_size", ["update.batch_size"]),  # under a wrong part
        ("updates", ["reevaluate.updates", "align.updates"]),
        ("stop_residual", ["early_stopping.residual"]),  # as part and field were called once
        ("discont", ["update.discount"]),
        ("replay", ["replay.mode", "replay.part_episodes", "replay.auto_warmup_env_steps"]),
        ("zzz", []),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_few(name, found):
    assert nearest(name, paths(o2sac.Config())) == found
    text = advice(name, o2sac.Config())
    assert text == (f"did you mean {' or '.join(found)}?" if found else "docs/settings.md lists all of them")


CONFIGS = [package.load(name).Config for package in (offline, online) for name in package.names()]


@pytest.mark.parametrize("kind", [*CONFIGS, CloneConfig, DiagnosisConfig], ids=lambda kind: kind.__module__)
def test_every_field_says_what_it_is_and_where_its_default_comes_from(kind):
    assert [entry.path for entry in documented(kind()) if not (entry.description and entry.source)] == []
    assert [entry.path for entry in documented(kind()) if entry.description.endswith(".")] == []


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__module__)
def test_settings_are_composed_rather_than_inherited(kind):
    bases = [base for base in kind.__mro__ if base not in (kind, Settings, object)]
    assert not set(bases) & set(CONFIGS)  # no method's settings are another's and more
    for base in bases[:-1]:  # between a method and what all have, parts, and what several methods' updates read
        own = set(base.__annotations__) - {"online_parts", "fast"}
        several = sum(base in other.__mro__ for other in CONFIGS) > 1
        assert several or all(isinstance(getattr(kind(), name), Settings) for name in own)
