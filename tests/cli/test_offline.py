"""experiments.offline from the command line to the handoff, with tiny data and networks."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.cli import offline
from o2o_jax.envs.failure import EnvironmentFailure
from o2o_jax.jobs import handoffs
from o2o_jax.runtime import log, sinks
from o2o_jax.runtime.checkpoint import Checkpoints
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.evaluate import Evaluator, policy_episodes
from tests import refusals, tiny

ENV = tiny.ENV
pytestmark = pytest.mark.usefixtures("data")


def run(out, *arguments, updates=12, algorithm="td3_bc", status=0, seeds=2):
    argv = [f"--algorithm={algorithm}", f"--env={ENV}", f"--out={out}", f"--seeds={seeds}", *tiny.SETTINGS]
    argv += [f"--set=updates={updates}", "--eval_every=4", "--eval_episodes=2", *arguments]
    tiny.call(offline, *argv, status=status)
    return out


@pytest.fixture(scope="module")
def finished(offline_run):
    return offline_run


def test_run_writes_metrics_settings_and_handoff(finished):
    assert np.unique(log.read(finished, "offline")["step"]).tolist() == [4, 8, 12]
    evaluation = log.read(finished, "evaluation")
    assert np.unique(evaluation["step"]).tolist() == [4, 8, 12]
    np.testing.assert_allclose(evaluation["score"], envs.get_task(ENV).score(evaluation["return"]))
    settings = json.loads((finished / "config.json").read_text())
    assert (settings["algorithm"], settings["env"], settings["seeds"]) == ("td3_bc", ENV, 2)
    assert settings["config"]["hidden"] == [8]
    assert settings["dataset"] == "o2o/hopper/random-v0"


def test_a_seed_does_not_depend_on_the_others(finished, tmp_path, capsys):
    out = run(tmp_path / "others", "--first_seed=1")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-3:]] == ["1", "2", "mean"]
    assert json.loads((out / "config.json").read_text())["first_seed"] == 1
    for file in sorted(finished.glob("*.csv")):
        assert tiny.rows_of_seed(out / file.name, 1) == tiny.rows_of_seed(file, 1)
        assert tiny.rows_of_seed(out / file.name, 2)
        assert not tiny.rows_of_seed(out / file.name, 0)
    handoff_pair = [handoffs.load_handoff(folder, range(1, 2))[0] for folder in (finished, out)]
    jax.tree.map(np.testing.assert_array_equal, *handoff_pair)
    with pytest.raises(ValueError, match="has the seeds 1 to 2, not the seeds 0 to 1: pass --first_seed=1 --seeds=1"):
        handoffs.load_handoff(out, range(2))
    run(out, "--resume", status=1)
    assert "first_seed is 1 there and 0 now" in capsys.readouterr().err


def test_a_seed_alone_draws_what_it_draws_among_others(finished, tmp_path):
    # one seed is another program than two, which rounds otherwise
    out = run(tmp_path / "second", "--first_seed=1", seeds=1)
    handoff_pair = [handoffs.load_handoff(folder, range(1, 2))[0] for folder in (finished, out)]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), *handoff_pair)
    columns = log.read(finished, "offline")
    for name, values in log.read(out, "offline").items():
        np.testing.assert_allclose(values, columns[name][columns["seed"] == 1], rtol=1e-4, err_msg=name)


def test_a_run_from_before_seeds_had_numbers_goes_on(finished, tmp_path, capsys):
    out = tmp_path / "old"
    shutil.copytree(finished, out)
    for path in (out / "config.json", *out.glob("checkpoints/*/meta/metadata")):
        content = json.loads(path.read_text())
        del (content if path.name == "config.json" else content["config"])["first_seed"]
        path.write_text(json.dumps(content))
    run(out, "--resume")
    assert "is complete" in capsys.readouterr().out
    jax.tree.map(
        np.testing.assert_array_equal, *(handoffs.load_handoff(folder, range(2))[0] for folder in (finished, out))
    )
    run(out, "--resume", "--first_seed=1", status=1)
    assert "first_seed is 0 there and 1 now" in capsys.readouterr().err


def test_table_lists_seeds_and_their_mean(finished):
    header, *rows, mean = offline.table(finished).splitlines()
    assert header.split() == ["seed", "return", "score"]
    assert [row.split()[0] for row in rows] == ["0", "1"]
    scores = [float(row.split()[2]) for row in rows]
    assert mean.split()[0] == "mean"
    np.testing.assert_allclose(float(mean.split()[2]), np.mean(scores), atol=0.11)


def test_handoff_acts_as_the_last_evaluation(finished):
    handoff, task, settings = handoffs.load_handoff(finished, range(2))
    assert (task.name, settings["algorithm"], handoff.source, handoff.policy.head) == (
        ENV, "td3_bc", "td3_bc", "deterministic"
    )  # fmt: skip
    assert int(handoff.state.step) == 12
    evaluator = Evaluator(lambda: envs.family(ENV).make_env(task), range(2), 2)
    act = jax.vmap(lambda policy, observation: policy.distribution(observation).mode())
    returns, _ = evaluator(lambda observation: act(handoff.policy, observation))
    np.testing.assert_allclose(returns.mean(axis=1), log.read(finished, "evaluation")["return"][-2:], rtol=1e-4)


def test_envpool_evaluates_from_other_starts(tmp_path, finished):
    pytest.importorskip("envpool")
    out = run(tmp_path / "pooled", "--envpool")
    assert json.loads((out / "config.json").read_text())["envpool"]
    trained, pooled = log.read(finished, "offline"), log.read(out, "offline")
    np.testing.assert_array_equal(pooled["actor_loss"], trained["actor_loss"])
    returns, others = log.read(finished, "evaluation")["return"], log.read(out, "evaluation")["return"]
    assert np.all(returns != others)
    np.testing.assert_allclose(returns, others, rtol=0.5)


def test_handoff_of_fewer_seeds_is_the_first_ones(finished):
    whole, one = (handoffs.load_handoff(finished, range(count))[0] for count in (2, 1))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:1], b), whole.policy, one.policy)
    assert int(one.state.step) == 12


def test_observations_are_normalized_by_the_dataset(finished):
    handoff, task, _ = handoffs.load_handoff(finished, range(1))
    rows = envs.family(ENV).load_dataset(task).transitions
    np.testing.assert_allclose(handoff.policy.normalizer.mean[0], rows.observation.mean(axis=0), rtol=1e-3, atol=1e-5)


def test_stopped_run_resumes_to_the_same_end(finished, tmp_path, monkeypatch, capsys):
    saved = []
    save = Checkpoints.save

    def save_and_stop(self, step, state, notes):
        if step == 8:
            raise KeyboardInterrupt  # between the evaluation and its checkpoint
        save(self, step, state, notes)
        saved.append(step)

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_stop)
        run(out, "--resume", status=130)  # the same command starts it, resumes it, and says that it is complete
    assert "is complete" not in capsys.readouterr().out
    assert saved == [4]
    with pytest.raises(ValueError, match="is not finished: 4 of 12 updates are saved; .* --resume"):
        handoffs.load_handoff(out, range(2))
    run(out, "--resume")
    handoff_pair = [handoffs.load_handoff(folder, range(2))[0] for folder in (finished, out)]
    jax.tree.map(np.testing.assert_array_equal, *handoff_pair)
    for phase in ("offline", "evaluation"):
        jax.tree.map(np.testing.assert_array_equal, log.read(finished, phase), log.read(out, phase))
    capsys.readouterr()
    run(out, "--resume")
    lines = capsys.readouterr().out.splitlines()
    assert f"the run in {out} is complete: nothing is left to do" in lines
    assert lines[-1].split()[0] == "mean"


def test_rows_that_are_gone_are_said(finished, tmp_path, capsys):
    out = tmp_path / "cut"
    shutil.copytree(finished, out)
    lines = (out / "evaluation.csv").read_text().splitlines(keepends=True)
    (out / "evaluation.csv").write_text("".join(lines[:3]))
    run(out, "--resume")
    said = f"nothing is left to do; but 4 of 6 rows of evaluation.csv are gone from {out} since the run was saved"
    assert said in capsys.readouterr().out
    for path in out.glob("*.csv"):
        path.unlink()
    run(out, "--resume")
    *_, line = capsys.readouterr().out.splitlines()
    assert line.startswith(f"the run in {out} is complete: nothing is left to do; but 6 of 6 rows of ")
    assert line.endswith("won't be made again: bring the files back, if they are anywhere")


def test_run_stopped_before_its_first_checkpoint_starts_over(finished, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stop)
        run(out, status=130)
    with pytest.raises(ValueError, match="is not finished: 0 of 12"):
        handoffs.load_handoff(out, range(2))
    capsys.readouterr()
    run(out, "--resume")
    assert f"note: {out} has rows of logs but no checkpoint: run and logs start over\n" in capsys.readouterr().out
    columns = [log.read(folder, "evaluation") for folder in (finished, out)]
    jax.tree.map(np.testing.assert_array_equal, *columns)


def test_an_environment_that_fails_costs_no_training(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise EnvironmentFailure("evaluation of seed 0: the environment failed")

    monkeypatch.setattr(Evaluator, "__call__", fail)
    out = run(tmp_path / "unevaluated")
    assert "note: all seeds' evaluations after 12 updates count as NaN: evaluation of seed 0" in capsys.readouterr().out
    assert np.isnan(log.read(out, "evaluation")["score"]).all()
    handoffs.load_handoff(out, range(2))


def test_a_run_without_its_settings_is_no_new_one(finished, tmp_path, capsys):
    out = tmp_path / "bare"
    shutil.copytree(finished, out)
    (out / "config.json").unlink()
    run(out, "--resume", status=1)
    refusals.check(
        capsys.readouterr().err, "bare holds a run that has lost its config.json: bring it back, or start over"
    )


def test_a_run_whose_folder_is_emptied_is_not_said_to_be_saved(tmp_path, monkeypatch, capsys):
    out, save = tmp_path / "emptied", Checkpoints.save

    def empty(*arguments):
        save(*arguments)
        (out / "config.json").unlink(missing_ok=True)

    monkeypatch.setattr(Checkpoints, "save", empty)
    run(out, status=1)
    assert "emptied has lost its config.json while the run was under way" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("algorithm", "head", "settings"),
    [
        ("cql", "tanh_gaussian", ["--set=num_actions=2"]),
        ("iql", "gaussian", ["--set=expectile=0.9"]),
        ("awac", "gaussian_free", ["--set=temperature=1.0"]),
    ],
)
def test_evaluation_at_the_end_alone_and_another_algorithm(algorithm, head, settings, tmp_path):
    out = run(tmp_path / algorithm, "--eval_every=0", *settings, algorithm=algorithm, updates=2, seeds=1)
    assert log.read(out, "evaluation")["step"].tolist() == [2]
    handoff, _, _ = handoffs.load_handoff(out, range(1))
    assert handoff.policy.head == head


def test_a_policy_on_histories_is_trained_evaluated_and_handed_over(dt_run, tmp_path, monkeypatch):
    handoff, task, settings = handoffs.load_handoff(dt_run, range(2))
    assert (settings["algorithm"], handoff.source, handoff.policy.head) == ("dt", "dt", "sequence")
    np.testing.assert_array_equal(handoff.policy.target_return, [3_600.0] * 2)
    run_episodes = policy_episodes(lambda policy: policy, range(2), seed_mesh(2))
    returns, _ = run_episodes(Evaluator(lambda: envs.family(ENV).make_env(task), range(2), 2), handoff.policy)
    np.testing.assert_allclose(returns.mean(axis=1), log.read(dt_run, "evaluation")["return"][-2:], rtol=1e-4)

    # stopped between the first evaluation and its checkpoint, and resumed
    save = Checkpoints.save

    def stop(self, step, state, notes):
        if step == 4:
            raise KeyboardInterrupt
        save(self, step, state, notes)

    arguments = ["--algorithm=dt", f"--env={ENV}", f"--out={tmp_path / 'dt'}", "--seeds=2", *tiny.TRANSFORMER,
                 "--set=batch_size=8", "--set=updates=4", "--eval_every=2", "--eval_episodes=2"]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stop)
        tiny.call(offline, *arguments, status=130)
    tiny.call(offline, *arguments, "--resume")
    resumed, _, _ = handoffs.load_handoff(tmp_path / "dt", range(2))
    jax.tree.map(np.testing.assert_array_equal, resumed, handoff)
    for phase in ("offline", "evaluation"):
        jax.tree.map(np.testing.assert_array_equal, log.read(dt_run, phase), log.read(tmp_path / "dt", phase))


def test_a_dry_run_checks_and_writes_nothing(finished, tmp_path, capsys):
    run(tmp_path / "out", "--dry_run")
    found = capsys.readouterr().out.splitlines()
    assert found[-4:-2] == ["all checks passed", "2 seeds: 12 updates of offline"]
    assert not (tmp_path / "out").exists()
    run(finished, "--dry_run", status=1)
    assert "already holds a run" in capsys.readouterr().err


def test_behaviour_cloning_of_the_best_episodes(tmp_path):
    arguments = ["--algorithm=bc", f"--env={ENV}", f"--out={tmp_path / 'bc'}", "--eval_every=0", "--eval_episodes=1"]
    settings = ["updates=2", "hidden=8", "batch_size=8", "head=tanh_gaussian", "best_fraction=0.3"]
    tiny.call(offline, *arguments, *(f"--set={setting}" for setting in settings))
    handoff, task, found = handoffs.load_handoff(tmp_path / "bc", range(1))
    assert handoff.policy.head == "tanh_gaussian"
    dataset = envs.family(ENV).load_dataset(task)
    best = dataset.best_episodes(int(0.3 * len(dataset.episode_ends)))
    assert found["transitions"] == best.size < dataset.size
    # what the policy takes for the usual observation is that of the episodes that it learnt from
    np.testing.assert_allclose(
        handoff.policy.normalizer.mean[0], best.transitions.observation.mean(axis=0), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--algorithm=td3_cb"], 1, "unknown offline algorithm 'td3_cb'. Did you mean 'td3_bc'?"),
        (["--env=mujoco/hoper-medium"], 1, "unknown task 'mujoco/hoper-medium'"),
        (["--set=aplha=1"], 1, "unknown field 'aplha' in --set=aplha=1: did you mean alpha"),
        (["--seeds=0"], 2, "seeds"),
        (["--eval_episodes=-1"], 2, "eval_episodes"),
        (["--dataset=o2o/nothing-v0"], 1, "python -m experiments.dataset --env=mujoco/hopper-random"),
        (["--devices=2", "--seeds=3"], 1, "2 devices can't share 3 seeds evenly: pass --devices=1"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(arguments, status, message, tmp_path, capsys):
    run(tmp_path / "out", *arguments, status=status)
    refusals.check(capsys.readouterr().err, message)
    assert not (tmp_path / "out").exists()


def test_folder_of_another_run_is_refused(finished, capsys):
    run(finished, status=1)
    assert "already holds a run: choose another --out, or resume it with --resume" in capsys.readouterr().err
    run(finished, "--resume", "--set=alpha=1.0", status=1)
    assert "config.alpha is 2.5 there and 1.0 now" in capsys.readouterr().err


def test_handoff_errors(finished, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        handoffs.load_handoff(tmp_path / "nothing", range(1))
    with pytest.raises(
        ValueError,
        match="has the seeds 0 to 1, not the seeds 0 to 4: pass --first_seed=0 --seeds=2, or train the others",
    ) as error:
        handoffs.load_handoff(finished, range(5))
    assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text(json.dumps({"algorithm": "sac", "env": "mujoco/hopper", "seeds": 1}))
    with pytest.raises(ValueError, match="holds no offline run: pass the --out of experiments.offline"):
        handoffs.load_handoff(tmp_path, range(1))


def test_handoff_of_another_version(finished, tmp_path):
    settings = json.loads((finished / "config.json").read_text())
    settings["config"]["forgotten"] = 1
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="another version of its algorithm, .*forgotten"):
        handoffs.load_handoff(tmp_path, range(1))


def test_rebuilt_config_is_the_one_that_was_saved(finished):
    _, task, settings = handoffs.load_handoff(finished, range(1))
    module = offline.offline.load("td3_bc")
    _, config = handoffs._rebuild(offline.offline, settings, finished)
    wanted = {"hidden": (8,), "critic_hidden": (8,), "batch_size": 8, "updates": 12}
    assert config == dataclasses.replace(module.Config.for_task(task), **wanted)


def test_a_sink_that_refuses_leaves_the_folder_free(tmp_path, monkeypatch, capsys):
    def refuse():
        raise ValueError("no login")

    monkeypatch.setattr(sinks.load("tensorboard"), "check", refuse, raising=False)
    out = tmp_path / "out"
    arguments = ["--algorithm=bc", f"--env={ENV}", f"--out={out}", "--log_to=tensorboard", *tiny.SETTINGS[::2]]
    tiny.call(offline, *arguments, "--eval_episodes=0", status=1)
    assert capsys.readouterr().err.endswith("error: no login\n")
    assert not out.exists()
