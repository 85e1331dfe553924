"""The page of all settings is what their definitions say."""

from experiments import settings_page
from o2o_jax import offline, online
from o2o_jax.settings import documented


def test_the_page_is_current():
    assert settings_page.PAGE.read_text() == settings_page.page(), "run python -m experiments.settings_page"


def test_the_page_has_every_setting_of_every_algorithm():
    sections = settings_page.page().split("\n### ")
    for package in (online, offline):
        for name in package.names():
            config = package.load(name).Config()
            whole = [text for text in sections if text.startswith(f"{name}\n")]
            assert any(all(f"| `{entry.path}` |" in text for entry in documented(config)) for text in whole)


def test_values_are_written_as_the_command_line_takes_them():
    texts = [settings_page._text(value) for value in (None, True, 1_000_000, 1e-4, (256, 256), "half")]
    assert texts == ["none", "true", "1_000_000", "0.0001", "256,256", "half"]
