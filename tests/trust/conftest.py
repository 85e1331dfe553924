"""A folder with one sound thing of each kind that commands read, made once, in which bad ones are put."""

import shutil

import pytest

from o2o_jax.cli import finetune
from o2o_jax.jobs.policies import save_policy
from tests import tiny
from tests.cli.conftest import datasets, offline_run

__all__ = ["datasets", "offline_run"]

ONLINE = [
    "--algorithm=o2td3", "--seeds=2", *tiny.ONLINE_SETTINGS, "--schedule=paper", "--set=env_steps=4",
    "--set=reevaluate.updates=2", "--set=align.updates=2", "--set=interaction.warmup_env_steps=0",
    "--set=evaluation.every_env_steps=2", "--set=evaluation.episodes=1",
]  # fmt: skip


@pytest.fixture(scope="session")
def sound(datasets, offline_run, tmp_path_factory):
    """The folder: `td3_bc`, `o2td3` of it, the saved policies `policy` and `bare`, and `minari`; not to be changed."""
    folder = tmp_path_factory.mktemp("trust")
    shutil.copytree(datasets, folder / "minari")
    shutil.copytree(offline_run, folder / "td3_bc")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        tiny.call(finetune, "--policy=td3_bc", "--out=o2td3", *ONLINE)
    save_policy(tiny.make_policy("deterministic"), folder / "policy", tiny.ENV)
    save_policy(tiny.make_policy(), folder / "bare")
    return folder


@pytest.fixture
def here(sound, monkeypatch):
    """The folder `sound` as the one that commands run in."""
    monkeypatch.chdir(sound)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(sound / "minari"))
    monkeypatch.setenv("HOME", str(sound.parent))
    yield sound
    for path in sound.glob("new*"):  # of a command that should have been refused, not to fail those after it
        shutil.rmtree(path) if path.is_dir() else path.unlink()
