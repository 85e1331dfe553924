"""A tiny dataset and a tiny offline run, made once for all scripts."""

import pytest

from o2o_jax import envs
from o2o_jax.cli import dataset, offline
from tests import tiny


@pytest.fixture(scope="session")
def datasets(tmp_path_factory):
    """A folder of Minari datasets with that of `tiny.ENV`."""
    folder = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        dataset.make_dataset(envs.get_task(tiny.ENV), 200)
    return folder


@pytest.fixture(scope="module")
def data(datasets):
    """Scripts find the tiny dataset."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(datasets))
        yield


@pytest.fixture(scope="session")
def offline_run(datasets, tmp_path_factory):
    """The folder of two seeds of TD3+BC after 12 updates."""
    out = tmp_path_factory.mktemp("runs") / "td3_bc"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(datasets))
        evaluation = ["--eval_every=4", "--eval_episodes=2"]
        tiny.call(
            offline, "--algorithm=td3_bc", f"--env={tiny.ENV}", f"--out={out}", "--seeds=2", *tiny.SETTINGS,
            "--set=updates=12", *evaluation,
        )  # fmt: skip
    return out


@pytest.fixture(scope="session")
def dt_run(datasets, tmp_path_factory):
    """The folder of two seeds of the decision transformer after 4 updates."""
    out = tmp_path_factory.mktemp("runs") / "dt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(datasets))
        tiny.call(
            offline, "--algorithm=dt", f"--env={tiny.ENV}", f"--out={out}", "--seeds=2", *tiny.TRANSFORMER,
            "--set=batch_size=8", "--set=updates=4", "--eval_every=2", "--eval_episodes=2",
        )  # fmt: skip
    return out
