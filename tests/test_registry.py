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


@pytest.mark.parametrize("package", [offline, online])
def test_every_algorithm_exports_its_config_and_make(package):
    assert package.names()
    for name in package.names():
        module = package.load(name)
        assert callable(module.make)
        assert callable(module.Config.for_task)


def test_unknown_algorithms_are_refused():
    with pytest.raises(ValueError, match="unknown offline algorithm 'td3bc'. Did you mean 'td3_bc'. Valid names: "):
        offline.load("td3bc")
    with pytest.raises(ValueError, match="unknown online algorithm 'o2sca'. Did you mean"):
        online.load("o2sca")


def test_listing_algorithms_imports_none():
    code = "import sys; from o2o_jax import offline; offline.names(); print('o2o_jax.offline.cql' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
