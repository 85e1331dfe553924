"""Folders are found by name, and an unknown name is answered with the valid ones."""

import subprocess
import sys

import pytest

from o2o_jax import offline, online, registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    for folder in ("zebra", "antelope"):
        (tmp_path / "zoo" / folder).mkdir(parents=True)
        (tmp_path / "zoo" / folder / "__init__.py").write_text(f"NAME = {folder!r}\n")
    (tmp_path / "zoo" / "__init__.py").touch()
    (tmp_path / "zoo" / "keeper.py").touch()
    (tmp_path / "zoo" / "notes").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    yield "zoo"
    for name in [name for name in sys.modules if name.split(".")[0] == "zoo"]:
        del sys.modules[name]


def test_only_packages_count(package):
    assert registry.names(package) == ["antelope", "zebra"]


def test_load_imports_on_demand(package):
    assert registry.names(package)
    assert "zoo.zebra" not in sys.modules
    assert registry.load(package, "zebra").NAME == "zebra"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zebar", "unknown animal 'zebar'. Did you mean 'zebra'? Valid names: antelope, zebra"),
        ("keeper", "unknown animal 'keeper'. Valid names: antelope, zebra"),
        ("", "unknown animal ''. Valid names: antelope, zebra"),
    ],
)
def test_unknown_names_are_answered_with_the_valid_ones(package, name, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the message is compared whole
        registry.load(package, name, "animal")
    assert str(error.value) == message


def test_a_few_names_answer_where_there_are_many():
    valid = [f"task-{number}" for number in range(10_000)]
    message = registry.unknown("task", "tsk-77", valid)
    assert message.startswith(
        "unknown task 'tsk-77'. Did you mean 'task-77'? The nearest of 10000 valid names: task-77"
    )
    assert message.count(", ") == registry.MOST - 1
    assert len(registry.unknown("task", "x" * 60_000, valid)) < 300


def test_a_collection_of_any_length_is_a_few_of_it():
    assert registry.listed([]) == "none"
    assert registry.listed(["a", 1]) == "a, 1"
    assert registry.listed(range(5)) == "0, 1, 2, 3, 4"
    assert registry.listed(iter(range(9)), 2) == "0, 1 and 7 more"
    assert len(registry.listed(["x" * 60_000] * 60_000)) < 600


def test_a_text_of_any_length_keeps_its_beginning_and_its_end():
    assert registry.clipped("as it is") == "as it is"
    assert registry.clipped("two\n lines") == "two lines"
    assert registry.clipped("abcdefghijklmnop", 9) == "abcd … op"
    assert len(registry.clipped("x" * 60_000)) == registry.MOST_OF_A_LINE


@pytest.mark.parametrize("package", [offline, online])
def test_every_algorithm_exports_its_config_and_make(package):
    assert package.names()
    for name in package.names():
        module = package.load(name)
        assert callable(module.make)
        assert callable(module.Config.for_task)


def test_unknown_algorithms_are_refused():
    with pytest.raises(
        ValueError, match="unknown offline algorithm 'td3bc'. Did you mean 'td3_bc'. The nearest of 10 valid names: "
    ):
        offline.load("td3bc")
    with pytest.raises(ValueError, match="unknown online algorithm 'o2sca'. Did you mean"):
        online.load("o2sca")


def test_listing_algorithms_imports_none():
    code = "import sys; from o2o_jax import offline; offline.names(); print('o2o_jax.offline.cql' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_a_name_of_letters_that_cannot_be_printed_is_short_too():
    assert len(registry.unknown("head", "\U000b65bc" * 100, ["a"])) < 200
