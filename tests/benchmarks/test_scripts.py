"""Each benchmark once from its command line, with tiny sizes: it ends, and its file has what the README promises."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import compare, gpu, loop, memory, pipeline, seeds, updates
from o2o_jax.networks import mlp
from tests import tiny

UPDATE_KEYS = {
    "name", "updates_per_second", "spread_percent", "needed_mflop", "executed_mflop", "beyond_mflop",
    "gflop_per_second", "percent_of_peak", "updates_per_second_samples",
}  # fmt: skip
SHORT = ("--rows=50", "--chunk=2", "--seconds=0", "--repeats=2", "--gemm_size=16")


def run(script, out, *arguments):
    """Returns the JSON that the script wrote."""
    tiny.call(script, f"--out={out}", *arguments)
    (path,) = out.glob("*.json")
    return json.loads(path.read_text())


def test_updates(tmp_path, capsys):
    settings = ["--set=hidden=8", "--set=batch_size=8", *tiny.ROLLOUT_SETTINGS]  # of both algorithms
    written = run(updates, tmp_path, "--algorithms=o2ppo/reevaluate,bc", *SHORT, *settings)
    assert [row["name"] for row in written["rows"]] == ["o2ppo/reevaluate", "bc"]
    for row in written["rows"]:
        assert row.keys() == UPDATE_KEYS | {"compile_cold_seconds", "compile_cached_seconds"}
        assert len(row["updates_per_second_samples"]) == 2
        np.testing.assert_allclose(row["gflop_per_second"], 1e-3 * row["needed_mflop"] * row["updates_per_second"])
        np.testing.assert_allclose(row["percent_of_peak"], 100 * row["gflop_per_second"] / written["gemm"]["peak"])
    assert written["gemm"].keys() == {"sgemm numpy", "sgemm xla", "peak"}
    assert written["settings"]["set"] == [text.removeprefix("--set=") for text in settings]
    output = capsys.readouterr().out
    assert "| o2ppo/reevaluate |" in output
    assert "float32 product, 16 wide" in output


def test_seeds(tmp_path):
    written = run(seeds, tmp_path, "--algorithms=bc", "--seeds=1,2", "--devices=1,2", *SHORT, "--set=hidden=8")
    assert [(row["seeds"], row["devices"]) for row in written["rows"]] == [(1, 1), (2, 1), (2, 2)]
    one, two, sharded = written["rows"]
    assert one.keys() == UPDATE_KEYS | {"seeds", "devices", "milliseconds", "seed_updates_per_second", "growth"}
    np.testing.assert_allclose(two["seed_updates_per_second"], 2 * two["updates_per_second"])
    np.testing.assert_allclose(two["growth"], two["milliseconds"] / (2 * one["milliseconds"]))
    assert sharded["growth"] == 1.0  # nothing fewer on two devices
    assert (tmp_path / "seeds.png").stat().st_size > 1_000


def test_loop(tmp_path):
    arguments = ("--rows=50", "--algorithms=o2td3", "--seeds=2", "--devices=1", "--steps=3", "--repeats=2")
    written = run(loop, tmp_path, *arguments, "--episodes=2", "--episode_steps=4", *tiny.ONLINE_SETTINGS)
    assert [row["name"] for row in written["rows"]] == ["o2td3", "o2td3, overlapped"]
    for row in written["rows"]:
        samples = {part: np.array(values) for part, values in row["samples"].items()}
        assert {part: values.shape for part, values in samples.items()} == dict.fromkeys(
            ("loop", "environment", "update"), (2,)
        )
        np.testing.assert_allclose(
            row["ratio"], np.median(samples["loop"] / (samples["environment"] + samples["update"])), rtol=1e-6
        )
    episodes = [(line["name"], line["episodes"]) for line in written["evaluation"]]
    assert episodes == [("side by side", 4), ("envpool", 4), ("plain", 1)]


def test_pipeline(tmp_path):
    # a policy on histories, whose training and clone need whole episodes, and extras of the dataset; alignment is in
    # `test_memory`
    lengths = ("--offline_updates=2", "--clone_updates=2", "--reevaluate_updates=2", "--env_steps=8", "--eval_every=4")
    rollout = ("--set=rollout.env_steps=4", "--set=rollout.minibatch_size=4", "--set=evaluation.episodes=1")
    written = run(
        pipeline, tmp_path, "--rows=50", "--offline=dt", "--online=o2ppo", "--devices=1", *lengths, *rollout,
        "--set=batch_size=8", *tiny.ROLLOUT_SETTINGS, *tiny.TRANSFORMER,
    )  # fmt: skip
    stages = {row["stage"]: row for row in written["rows"]}
    assert list(stages) == ["dataset load", "offline", "clone", "reevaluate", "evaluation", "finetune", "total"]
    assert (stages["offline"]["steps"], stages["finetune"]["steps"]) == (2, 8)
    assert stages["offline"]["compile_seconds"] > 0
    parts = [row for name, row in stages.items() if name != "total"]
    np.testing.assert_allclose(stages["total"]["seconds"], sum(row["seconds"] for row in parts))
    np.testing.assert_allclose(sum(row["percent"] for row in parts), 100.0)
    assert (written["dataset"], written["transitions"]) == ("synthetic", 50)
    assert min(row["seconds"] for row in parts) > 0


def test_memory(tmp_path):
    arguments = ("--rows=50", "--seeds=2", "--algorithm=o2td3", "--set=env_steps=10", *tiny.ONLINE_SETTINGS)
    (row,) = run(memory, tmp_path, *arguments)["rows"]
    assert (row["seeds"], row["devices"], row["copies"]) == (2, 1, 1.0)
    assert row["start_megabytes"] < row["resident_megabytes"] <= 1.05 * row["peak_megabytes"]
    assert row["dataset_megabytes"] == pytest.approx(50 * (11 + 3 + 1 + 11 + 1) * 4e-6)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        (updates, ["--algorithms=sql"], "unknown workload 'sql'"),
        (updates, ["--algorithms=bc", "--set=critic_hidden=8"], "unknown field 'critic_hidden'"),
        (seeds, ["--seeds=0"], "--seeds takes a list of positive integers, such as 1,2,4, not '0'"),
        (seeds, ["--devices=x"], "--devices takes a list of positive integers"),
        (seeds, ["--seeds=1", "--devices=2"], "none of [1] seeds can be shared evenly by any of [2] devices"),
        (loop, ["--algorithms=o2ppo"], "--algorithms takes o2td3 and o2sac"),
        (loop, ["--env=mujoco/hoper"], "unknown task 'mujoco/hoper'"),
        (pipeline, ["--dataset=/nowhere/data.npz", "--env=mujoco/hopper"], "no file /nowhere/data.npz"),
        (compare, [], "nothing to compare with: pass a checkout, --authors=PATH"),
        (compare, ["--unifloral=/nowhere", "--algorithms=cql"], "of unifloral none has the updates cql"),
    ],
)
def test_an_error_is_one_line(script, arguments, message, tmp_path, capsys):
    tiny.call(script, f"--out={tmp_path}", *arguments, status=1)
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: load average")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())


def test_gpu(tmp_path, capsys, monkeypatch):
    forms = {form: gpu.forms()[form] for form in ("default", "bfloat16", "plain layers")}
    monkeypatch.setattr(gpu, "forms", lambda: forms)
    short = ["--algorithms=bc", *SHORT[:4], "--set=hidden=8", "--set=batch_size=8"]
    written = run(gpu, tmp_path, "--seeds=1,2", "--varied=bc", *short)
    assert not written["accelerator"]
    assert written["left_out"] == []
    rows = {(row["name"], row["seeds"], row["form"]): row for row in written["rows"]}
    assert rows.keys() == {("bc", 2, "default"), *(("bc", 1, form) for form in forms)}
    assert all(row["program_megabytes"] > 0 and row["compile_cold_seconds"] > 0 for row in rows.values())
    assert (tmp_path / "gpu.png").exists()
    assert "JAX finds no accelerator" in capsys.readouterr().err
    written = run(gpu, tmp_path, "--seeds=1", "--varied=", "--budget=0", "--noplot", *short)
    assert written["rows"] == []
    assert written["left_out"] == ["bc × 1"]


def test_plain_layers_compute_the_same():
    network, key = mlp.MLP((8, 8), layer_norm=True), jax.random.key(0)
    x = jax.random.normal(key, (5, 3)) + 2.0
    params = super(mlp.MLP, network).init(key, x)  # of which a field has the name

    def gradient(params, x):
        return jax.value_and_grad(lambda params: jnp.sum(jnp.sin(network.apply(params, x))))(params)

    ours = gradient(params, x)
    with gpu.plain_layers():
        assert "custom_vjp" not in str(jax.make_jaxpr(gradient)(params, x))
        theirs = gradient(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)
