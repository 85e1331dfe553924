import dataclasses
import json
import re
from typing import Literal

import pytest

from o2o_jax import envs, offline, online
from o2o_jax.cli import flags, overrides, program
from o2o_jax.online import o2td3
from o2o_jax.settings import replaced
from tests.cli.test_program import run


@dataclasses.dataclass(frozen=True)
class Base:
    discount: float = 0.99

    def __post_init__(self):
        if not 0 < self.discount < 1:
            raise ValueError(f"discount must lie in (0, 1), got {self.discount}")


@dataclasses.dataclass(frozen=True)
class Config(Base):
    updates: int = 10
    layer_norm: bool = True
    replay: Literal["half", "all"] = "half"
    hidden: tuple[int, ...] = (256, 256)
    grad_norm: float | None = None
    range: tuple[float, float] | None = None
    name: str = "x"


@pytest.mark.parametrize(
    ("override", "field", "expected"),
    [
        ("discount=0.5", "discount", 0.5),
        ("updates=20", "updates", 20),
        ("updates=1_000_000", "updates", 1_000_000),
        ("updates=1e5", "updates", 100_000),
        ("updates=-3", "updates", -3),
        ("layer_norm=false", "layer_norm", False),
        ("layer_norm=True", "layer_norm", True),
        ("replay=all", "replay", "all"),
        ("hidden=32,64, 32", "hidden", (32, 64, 32)),
        ("hidden=(32,)", "hidden", (32,)),
        ("hidden=32", "hidden", (32,)),
        ("grad_norm=1", "grad_norm", 1.0),
        ("grad_norm=none", "grad_norm", None),
        ("range=0,1.5", "range", (0.0, 1.5)),
        ("range=None", "range", None),
        ("name=a=b", "name", "a=b"),
        (" name = a ", "name", "a"),
    ],
)
def test_values_take_the_type_of_their_field(override, field, expected):
    config = overrides.parse_overrides(Config(grad_norm=2.0, range=(1.0, 2.0)), [override])
    value = getattr(config, field)
    assert value == expected
    assert type(value) is type(expected)


def test_several_overrides_and_the_last_counts():
    config = overrides.parse_overrides(Config(), ["updates=1", "name=y", "updates=2"])
    assert config == Config(updates=2, name="y")
    assert overrides.parse_overrides(config, []) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("updates=1.5", "updates takes int, not '1.5'"),
        ("updates=inf", "updates takes int, not 'inf'"),
        ("updates=", "updates takes int, not ''"),
        ("updates=true", "updates takes int, not 'true'"),
        ("layer_norm=1", "layer_norm takes true or false, not '1'"),
        ("replay=some", "replay takes half or all, not 'some'"),
        ("hidden=32,x", "hidden takes a comma-separated list of int, not '32,x'"),
        ("grad_norm=x", "grad_norm takes float or none, not 'x'"),
        ("range=1", "range takes float,float or none, not '1'"),
        ("updates", "--set=updates must read --set=field=value"),
        ("discount=2", r"discount must lie in \(0, 1\), got 2.0"),
        (
            "discont=0.5",
            "unknown field 'discont' in --set=discont=0.5: did you mean discount\\?$",
        ),
        ("zzz=1", "unknown field 'zzz' in --set=zzz=1: docs/settings.md lists all of them$"),
    ],
)
def test_what_does_not_fit_is_explained(override, message):
    with pytest.raises(ValueError, match=message):
        overrides.parse_overrides(Config(), [override])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["replay.mode=all", "align.updates=1_000"], {"replay.mode": "all", "align.updates": 1_000}),
        (["networks.hidden=8,8"], {"networks.hidden": (8, 8)}),
        (["constraint=none"], {"constraint": None}),
        (["constraint=none", "constraint.asymmetry=0.6"], {"constraint.asymmetry": 0.6}),
    ],
)
def test_parts_are_set_by_path(given, expected):
    assert overrides.parse_overrides(o2td3.Config(), given) == replaced(o2td3.Config(), expected)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hidden=8", "unknown field 'hidden' in --set=hidden=8: did you mean networks.hidden?"),
        ("align_updates=8", "unknown field 'align_updates' in --set=align_updates=8: did you mean align.updates?"),
        ("align.discount=0.9", "did you mean update.discount?"),
        ("constraint=true", "--set=constraint=true: constraint takes none, not 'true'"),
        ("update.discount=2", "update.discount must lie in (0, 1), got 2.0"),
        (
            "evaluation.episodes=0",
            "start.actor=best_of needs evaluations: with evaluation.episodes=0 set it to aligned or",
        ),
    ],
)
def test_what_is_wrong_with_a_part_is_said_with_its_path(override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        overrides.parse_overrides(o2td3.Config(), [override])


def test_a_file_without_a_part_says_nothing_of_its_fields(tmp_path, capsys):
    path, config = tmp_path / "settings.json", replaced(o2td3.Config(), {"constraint": None, "align.updates": 3})
    path.write_text(json.dumps({"algorithm": "cql", "config": dataclasses.asdict(config)}))
    assert settings_of(f"--config={path}", default=o2td3.Config()) == ([config], 0)
    assert capsys.readouterr().out == ""
    content = dataclasses.asdict(config)
    del content["align"]["updates"], content["start"]
    path.write_text(json.dumps({"algorithm": "cql", "config": content}))
    settings_of(f"--config={path}", default=o2td3.Config())
    assert "doesn't say align.updates, start.actor, start.actor_ramp_updates, start.carry" in capsys.readouterr().out


def settings_of(*argv, default=None):
    """Settings that a command line of `Config`'s runs with, and the status of the script."""
    seen = []
    status = run(lambda args: seen.append(overrides.settings(args, "cql", default or Config())), "--out=x", *argv)
    return seen, status


def test_what_is_printed_is_what_config_takes(tmp_path, capsys):
    path = tmp_path / "settings.json"
    assert settings_of("--set=hidden=8", "--set=range=0,2", "--print_config") == ([], 0)
    path.write_text(capsys.readouterr().out)
    expected = Config(hidden=(8,), range=(0.0, 2.0))
    assert settings_of(f"--config={path}", default=Config(updates=3)) == ([expected], 0)
    changed = settings_of(f"--config={path}", "--set=updates=7")
    assert changed == ([dataclasses.replace(expected, updates=7)], 0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[1]", "pass a run's config.json"),
        ("{}", "holds no settings: pass a run's config.json"),
        ('{"config": {}}', "has settings of None, not of cql"),
        ('{"algorithm": "bc", "config": {}}', "has settings of bc, not of cql"),
        ('{"algorithm": "cql", "config": {"updatse": 3}}', "was written by another version, or by hand: unknown field"),
        ('{"algorithm": "cql", "config": {"updates": "x"}}', "updates takes int, not 'x'"),
        ('{"algorithm": "cql", "config": {"discount": 2}}', "discount must lie in (0, 1), got 2.0"),
    ],
)
def test_a_file_of_other_settings_is_refused(tmp_path, capsys, content, message):
    path = tmp_path / "settings.json"
    path.write_text(content)
    assert settings_of(f"--config={path}") == ([], 1)
    assert message in capsys.readouterr().err


def test_a_file_of_another_schedule_is_refused_since_cloning_follows_it(tmp_path, capsys):
    def define_both(values):
        flags.define_common(values)
        flags.define_schedule(values)

    path = tmp_path / "settings.json"
    path.write_text('{"algorithm": "cql", "schedule": "paper", "config": {}}')
    main = lambda args: overrides.settings(args, "cql", Config())
    for schedule, status in (("fast", 1), ("paper", 0)):
        with pytest.raises(SystemExit) as exit_:
            program.run(main, define_both, argv=["--out=x", f"--config={path}", f"--schedule={schedule}"])
        assert exit_.value.code == status
    assert "is of the schedule paper: pass --schedule=paper" in capsys.readouterr().err


def test_notes_stay_out_of_what_is_printed(capsys):
    def main(args):
        print("note: something")
        overrides.settings(args, "cql", Config())

    assert run(main, "--out=x", "--print_config") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["algorithm"] == "cql"
    assert captured.err == "note: something\n"


def test_the_folder_of_a_run_will_do_for_its_file(tmp_path, capsys):
    content = {"algorithm": "cql", "config": dataclasses.asdict(Config(updates=7))}
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert settings_of(f"--config={tmp_path}") == ([Config(updates=7)], 0)
    assert run(lambda args: overrides.settings(args, "cql", Config()), "--out=x", f"--config={tmp_path / 'no'}") == 1
    assert "no does not exist: pass a run's folder or its config.json" in capsys.readouterr().err


def test_fields_that_a_file_lacks_keep_their_defaults_and_are_named(tmp_path, capsys):
    path = tmp_path / "settings.json"
    path.write_text('{"algorithm": "cql", "config": {"updates": 3, "layer_norm": false}}')
    assert settings_of(f"--config={path}", default=Config(name="y"))[0] == [
        Config(updates=3, layer_norm=False, name="y")
    ]
    assert "doesn't say discount, grad_norm, hidden, name, range and 1 more: as by default" in capsys.readouterr().out
    assert settings_of(f"--config={tmp_path / 'none.json'}") == ([], 1)


@pytest.mark.parametrize(
    "name", [*(f"offline.{name}" for name in offline.names()), *(f"online.{name}" for name in online.names())]
)
def test_settings_of_every_algorithm_survive_a_file(tmp_path, name):
    package, _, algorithm = name.partition(".")
    config_class = {"offline": offline, "online": online}[package].load(algorithm).Config
    config = config_class.for_task(envs.get_task("antmaze/large-play"))
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"algorithm": "cql", "config": dataclasses.asdict(config)}))
    assert settings_of(f"--config={path}", default=config_class()) == ([config], 0)
