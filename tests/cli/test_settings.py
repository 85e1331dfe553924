"""The page of all settings is what their definitions say."""

from o2o_jax import offline, online
from o2o_jax.cli import settings
from o2o_jax.settings import documented
from tests import tiny


def test_the_page_is_current(pytestconfig):
    page = pytestconfig.rootpath / "docs" / "settings.md"
    assert page.read_text() == settings.page(), "run python -m experiments.settings > docs/settings.md"


def test_the_part_of_an_algorithm(capsys):
    tiny.call(settings, "--algorithm=iql")  # an offline and an online one
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("##")] == [
        "## Online", "### iql", "## Offline", "### iql",
    ]  # fmt: skip
    tiny.call(settings, "--algorithm=iqll", status=1)
    assert "unknown algorithm 'iqll'. Did you mean 'iql'?" in capsys.readouterr().err


def test_the_page_has_every_setting_of_every_algorithm():
    sections = settings.page().split("\n### ")
    for package in (online, offline):
        for name in package.names():
            config = package.load(name).Config()
            whole = [text for text in sections if text.startswith(f"{name}\n")]
            assert any(all(f"| `{entry.path}` |" in text for entry in documented(config)) for text in whole)


def test_values_are_written_as_the_command_line_takes_them():
    texts = [settings._text(value) for value in (None, True, 1_000_000, 1e-4, (256, 256), "half")]
    assert texts == ["none", "true", "1_000_000", "0.0001", "256,256", "half"]
