"""Studies' files, and the commands that they stand for."""

from pathlib import Path

import pytest

from o2o_jax import envs, offline, online
from o2o_jax.reading import Record
from o2o_jax.studies import grid

TASKS = ["mujoco/hopper-medium", "mujoco/walker2d-medium"]
FILE = {
    "title": "Any policy",
    "tasks": TASKS,
    "seeds": 3,
    "defaults": {"online": {"set": ["env_steps=20_000"], "flags": ["envpool"]}},
    "offline": {"td3_bc": {"set": ["updates=5"], "label": "TD3+BC"}, "cql": {}},
    "online": {
        "o2td3": {"from": ["td3_bc", "cql"], "label": "O2TD3"},
        "replay": {"algorithm": "o2td3", "from": ["td3_bc"], "vary": {"replay.mode": ["none", "all"]}},
        "o2sac": {"from": ["cql"], "tasks": TASKS[:1]},
        "again": {"algorithm": "o2td3", "from": ["td3_bc"], "reconstruction": "o2td3"},
    },
}


def parse(values, name="mine"):
    return grid.parse(name, Record(values, "mine.toml", "mend it"))


def cells(**changes):
    return grid.cells(parse(FILE | changes), "fast")


def named(found, *parts):
    return [cell for cell in found if all(part in cell.name for part in parts)]


def test_a_run_per_task_start_and_value():
    found = cells()
    # per task data, two offline runs, o2td3 from both, two of replay and one again; o2sac on one
    assert len(found) == len({cell.name for cell in found}) == 2 * (1 + 2 + 2 + 2 + 1) + 1
    assert {cell.label for cell in named(found, "hopper", "-o2td3-")} == {"TD3+BC → O2TD3", "cql → O2TD3"}
    (run,) = named(found, "hopper", "replay.mode=none")
    assert run.arguments == (
        "--algorithm=o2td3", "--schedule=fast", "--seeds=3", "--set=env_steps=20_000", "--set=replay.mode=none",
        "--envpool",
    )  # fmt: skip
    assert run.label == "replay, replay.mode=none"


def test_what_a_run_needs_comes_before_it(tmp_path):
    found = cells()
    places = {cell.name: place for place, cell in enumerate(found)}
    assert all(places[name] < places[cell.name] for cell in found for _, name in cell.needs)
    (again,) = named(found, "walker2d", "-again-")
    (first,) = named(found, "walker2d", "td3_bc-o2td3")
    (policy,) = named(found, "walker2d-medium/td3_bc-", first.needs[0][1][-8:])
    assert again.argv(tmp_path)[-4:] == [
        f"--policy={tmp_path / policy.name}", f"--reconstruction={tmp_path / first.name}",
        f"--out={tmp_path / again.name}", "--resume",
    ]  # fmt: skip
    assert policy.needs == (("", "walker2d-medium/dataset"),)


def test_studies_share_the_runs_that_are_the_same():
    other = cells(online={"td3": {"from": ["td3_bc"]}})
    shared = {cell.name for cell in cells()} & {cell.name for cell in other}
    assert (
        {name.rpartition("-")[0] for name in shared}
        == {  # of "hopper-medium/dataset" the first word
            name for task in ("hopper-medium", "walker2d-medium") for name in (f"{task}/td3_bc", task[:-7])
        }
    )
    longer = cells(offline={**FILE["offline"], "td3_bc": {"set": ["updates=6"]}})
    changed = {cell.name for cell in cells()} ^ {cell.name for cell in longer}
    assert all("td3_bc" in name for name in changed)  # and what starts from it, but nothing else
    assert named(longer, "td3_bc-o2td3")[0].name in changed
    more = grid.cells(parse(FILE), "fast", seeds=5)
    assert {cell.command for cell in more if cell in cells()} == {"dataset"}


def test_data_of_ones_own_are_nobodys_to_make():
    found = cells(datasets={TASKS[0]: "mine.npz"})
    assert [cell.task for cell in found if cell.command == "dataset"] == TASKS[1:]
    (run,) = [cell for cell in named(found, "hopper") if cell.method == "td3_bc"]
    assert "--dataset=mine.npz" in run.arguments
    assert run.needs == ()


def test_parts_of_names_choose_and_bring_what_they_need():
    def chosen(*only):
        return grid.cells(parse(FILE), "fast", only=only)

    assert {cell.task for cell in chosen("walker")} == {TASKS[1]}
    replay = parse(FILE | {"tasks": [TASKS[0], f"{TASKS[0]}-replay"]})
    for whole in (TASKS[0], "hopper-medium"):
        assert {cell.task for cell in grid.cells(replay, "fast", only=[whole])} == {TASKS[0]}
    found = chosen("hopper", "o2sac")
    assert [cell.command for cell in found] == ["dataset", "offline", "finetune"]
    assert {cell.method for cell in chosen("cql")} == {"", "cql", "o2td3", "o2sac"}  # with all that starts from it
    assert {cell.method for cell in chosen("replay")} == {
        "",
        "td3_bc",
        "replay-replay.mode=none",
        "replay-replay.mode=all",
    }
    with pytest.raises(ValueError, match=r"unknown part of a task's or method's name 'o2sad'.*o2sac"):
        chosen("o2sad")


def test_a_study_without_online_methods_trains_offline():
    assert [cell.command for cell in cells(online={})] == ["dataset", "offline", "offline"] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": []}, "tasks names none"),
        ({"tasks": "mujoco/hopper-medium"}, "tasks is 'mujoco/hopper-medium', expected a list"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": 2.5}, "seeds is 2.5, expected a whole number"),
        ({"onlin": {}}, "unknown name 'onlin'. Did you mean 'online'"),
        ({"offline": {}}, r"declares no \[offline"),
        ({"online": {"o2td3": {"from": ["td3"]}}}, "online.o2td3: unknown start 'td3'"),
        ({"online": {"o2td3": {"form": ["td3_bc"]}}}, "o2td3 of online of mine.toml is damaged .*unknown name 'form'"),
        ({"online": {"o2td3": ["td3_bc"]}}, "expected an object"),
        ({"online": {"o2td3": {"from": [["td3_bc"]]}}}, "from has a list or a table within"),
        ({"online": {"o2td3": {}}}, "online.o2td3: from names no offline method"),
        ({"offline": {"bc": {"flags": ["out=x"]}}}, "flags has out=x, which the study says by keys of its own"),
        ({"online": {"a": {"from": ["cql"], "reconstruction": "a"}}}, "unknown reconstruction 'a'"),
        ({"published": {TASKS[0]: {"O2TD3": "97"}}}, "O2TD3 is '97', expected a number or an object"),
        ({"published": {TASKS[0]: {"O2TD3": {"last": 97}}}}, "unknown name 'last'"),
        ({"datasets": {TASKS[0]: 3}}, "is 3, expected a text"),
    ],
)
def test_files_that_are_wrong_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        parse(FILE | changes)


def test_a_study_is_a_file_or_a_name(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('tasks = ["mujoco/hopper-medium"]\n[offline.bc]\n')
    study = grid.load(str(path))
    assert (study.name, study.seeds, list(study.offline)) == ("mine", 1, ["bc"])
    path.write_text("tasks = [")
    with pytest.raises(ValueError, match="mine.toml is damaged"):
        grid.load(str(path))
    with pytest.raises(FileNotFoundError, match="other.toml does not exist"):
        grid.load(str(tmp_path / "other.toml"))
    with pytest.raises(ValueError, match="unknown study 'paper/tabel2'"):
        grid.load("paper/tabel2")


@pytest.mark.parametrize("name", grid.names())
def test_studies_that_come_with_the_package_name_what_there_is(name):
    study = grid.load(name)
    assert {method.algorithm for method in study.offline.values()} <= set(offline.names())
    assert {method.algorithm for method in study.online.values()} <= set(online.names())
    assert all(envs.get_task(task) for task in study.tasks)


def test_a_study_takes_from_its_base_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("common.toml").write_text(f'tasks = ["{TASKS[0]}"]\nseeds = 4\n[offline.td3_bc]\n')
    Path("mine.toml").write_text('base = "common.toml"\ntitle = "Other"\n[online.td3]\nfrom = ["td3_bc"]\n')
    common, mine = grid.load("common.toml"), grid.load("mine.toml")
    assert (mine.name, mine.title, [*mine.online]) == ("mine", "Other", ["td3"])
    assert (mine.tasks, mine.seeds, mine.offline) == (common.tasks, common.seeds, common.offline)
    Path("common.toml").write_text('base = "mine.toml"')
    with pytest.raises(ValueError, match="mine.toml .*its own base"):
        grid.load("mine.toml")


def test_settings_of_the_fast_schedule_hold_there_alone():
    offline = {"td3_bc": {"set": ["updates=5"], "fast": ["updates=2"]}, "cql": {"fast": ["updates=3"]}}
    found = {schedule: grid.cells(parse(FILE | {"offline": offline}), schedule) for schedule in ("paper", "fast")}
    settings = {
        schedule: {cell.method: cell.arguments[3:] for cell in found[schedule] if cell.command == "offline"}
        for schedule in found
    }
    assert settings["paper"] == {"td3_bc": ("--set=updates=5",), "cql": ()}
    assert settings["fast"] == {"td3_bc": ("--set=updates=5", "--set=updates=2"), "cql": ("--set=updates=3",)}


def test_published_scores_are_the_final_ones_or_say_which():
    scores = {"O2TD3": 97, "O2SAC": {"offline": 59.29, "aligned": 65.28}}
    found = parse(FILE | {"published": {TASKS[0]: scores}}).published
    assert found == {TASKS[0]: {"O2TD3": {"final": 97}, "O2SAC": {"offline": 59.29, "aligned": 65.28}}}
