"""experiments.finetune from an offline run to the last evaluation, stopped and resumed, with tiny data and networks."""

import dataclasses
import itertools
import json
import re
import shutil
import signal

import jax
import numpy as np
import pytest

from o2o_jax import envs, online
from o2o_jax.cli import finetune, offline
from o2o_jax.data import sources
from o2o_jax.jobs.handoffs import load_delivered
from o2o_jax.jobs.job import OnlineJob
from o2o_jax.runtime import interrupt, log, provenance, train
from o2o_jax.runtime.checkpoint import Checkpoints
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.evaluate import Evaluator, policy_episodes
from o2o_jax.runtime.output import Output
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.run import stage_of
from o2o_jax.runtime.setup import Setup
from o2o_jax.settings import from_dict
from tests import refusals, test_readme, tiny

REEVALUATE, ALIGN, ENV_STEPS = 4, 4, 6
SCHEDULE = [
    "--schedule=paper",
    f"--set=env_steps={ENV_STEPS}",
    "--set=interaction.warmup_env_steps=2",
    "--set=evaluation.every_env_steps=2",
    "--set=evaluation.episodes=1",
    "--checkpoint_every=2",
]
OFFLINE_PHASES = ["--set=env_steps=0"]  # and nothing after them
RECONSTRUCTION = [f"--set=reevaluate.updates={REEVALUATE}", f"--set=align.updates={ALIGN}"]
pytestmark = pytest.mark.usefixtures("data")


@pytest.fixture(scope="module", autouse=True)
def frequent_checkpoints():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "CHECKPOINT_EVERY", 2)
        yield


def run(out, policy, *arguments, algorithm="o2td3", seeds=2, status=0):
    argv = [f"--algorithm={algorithm}", f"--policy={policy}", f"--out={out}", f"--seeds={seeds}"]
    tiny.call(finetune, *argv, *tiny.ONLINE_SETTINGS, *SCHEDULE, *arguments, status=status)
    return out


@pytest.fixture(scope="module")
def o2td3(data, offline_run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "o2td3", offline_run, *RECONSTRUCTION)


@pytest.mark.parametrize("algorithm", ["o2td3", "o2sac"])
def test_the_fast_schedule_from_start_to_end(algorithm, offline_run, tmp_path, monkeypatch, capsys):
    # stopped once in re-evaluation, while targets are mixed with returns, and once online
    arguments = [
        "--schedule=fast",
        *RECONSTRUCTION,
        "--set=reevaluate.return_updates=4",
        "--set=start.actor_ramp_updates=3",
    ]
    arguments += ["--set=evaluation.episodes=2", "--set=early_stopping.check_every_updates=2", "--clone_updates=2"]
    arguments += ["--eval_every=2", *(["--eval_sampled"] if algorithm == "o2sac" else [])]
    out, remaining = tmp_path / "run", stop_at(monkeypatch, 4, REEVALUATE + ALIGN + 1 + 4)
    run(out, offline_run, *arguments, algorithm=algorithm, status=130)
    run(out, offline_run, *arguments, "--resume", algorithm=algorithm, status=130)
    run(out, offline_run, *arguments, "--resume", algorithm=algorithm)
    assert not remaining
    evaluation, reference = log.read(out, "evaluation"), log.read(out, "reference")
    assert evaluation["step"].tolist() == reference["step"].tolist() == [2, 2, 4, 4, 6, 6]
    for phase in ("reevaluate", "align"):
        looks = log.read(out, f"{phase}_evaluation")
        assert looks["step"].tolist() == [2, 2, 4, 4]
        assert ("sampled_score" in looks) == (algorithm == "o2sac")
    start = log.read(out, "start")
    first = np.fmax(start["offline_score"], start["aligned_score"])
    printed = capsys.readouterr().out
    assert ": not complete, set align.updates or start.actor=offline" in printed  # a third of probes are overestimated
    for seed, (score, delivered) in enumerate(zip(first, evaluation["reference_score"][-2:], strict=True)):
        assert delivered >= score - 1e-3  # π_ref starts as the better one, and is given up for better ones alone
        assert f"seed {seed}: delivered policy {delivered:.1f}, {score:.1f} at the start" in printed
    assert log.read(out, "reevaluate_measures")["horizon"][-1] == pytest.approx(0.05 * REEVALUATE)


def stop_at(patch, *steps):
    """Makes the run stop, once each, when it is about to save these checkpoints."""
    remaining, save = list(steps), Checkpoints.save

    def save_or_stop(self, step, state, notes):
        if step in remaining:
            remaining.remove(step)
            raise KeyboardInterrupt
        save(self, step, state, notes)

    patch.setattr(Checkpoints, "save", save_or_stop)
    return remaining


def test_every_phase_leaves_its_metrics(o2td3):
    steps = {phase: np.unique(log.read(o2td3, phase)["step"]).tolist() for phase in
             ("reevaluate", "align", "start", "finetune", "evaluation")}  # fmt: skip
    assert steps == {
        "reevaluate": [2, 4], "align": [0, 2, 4], "start": [0], "finetune": [2, 4, 6], "evaluation": [2, 4, 6]
    }  # fmt: skip
    assert {"overestimated", "distance"} <= log.read(o2td3, "align").keys()
    assert provenance.seconds(o2td3).keys() == steps.keys() - {"start"}
    evaluation = log.read(o2td3, "evaluation")
    assert evaluation["seed"].tolist() == [0, 1] * 3
    np.testing.assert_allclose(evaluation["score"], envs.get_task(tiny.ENV).score(evaluation["return"]))
    updated = ~np.isnan(log.read(o2td3, "finetune")["critic_loss"])
    assert updated.tolist() == [False, False, True, True, True, True]


def test_settings_say_where_the_policy_comes_from(o2td3, offline_run):
    settings = json.loads((o2td3 / "config.json").read_text())
    assert (settings["script"], settings["algorithm"], settings["env"]) == ("finetune", "o2td3", tiny.ENV)
    assert (settings["policy"], settings["source"]["algorithm"]) == (str(offline_run), "td3_bc")
    assert settings["clone"] is None
    assert settings["config"]["align"]["updates"] == ALIGN


def test_a_job_from_a_run_s_settings_repeats_the_run(o2td3, offline_run, tmp_path):
    job = OnlineJob.from_json(json.loads((o2td3 / "config.json").read_text()))
    plan = dataclasses.replace(job, checkpoint_every=2).plan(seed_mesh(2))
    phases = []
    with Output(tmp_path / "again", plan) as output:
        for event in train.train(plan, output.restore):
            output.take(event)
            phases += [event.phase] if phases[-1:] != [event.phase] else []
    assert phases == ["reevaluate", "align", *["evaluation", "finetune"] * 4]  # before the first step, and 3 looks
    for file in sorted(o2td3.glob("*.csv")):
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_example_of_a_whole_run(o2td3, offline_run, tmp_path, monkeypatch):
    (code,), settings = test_readme.examples("docs/library.md"), json.loads((o2td3 / "config.json").read_text())
    (theirs,) = (line for line in code.splitlines() if line.startswith("config = "))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "td3_bc").symlink_to(offline_run)
    monkeypatch.chdir(tmp_path)
    names = {"config": from_dict(online.load("o2td3").Config, settings["config"])}
    exec(compile(code.replace(theirs, ""), "docs/library.md", "exec"), names)
    for file in sorted(o2td3.glob("*.csv")):
        assert (tmp_path / "runs" / "o2td3" / file.name).read_bytes() == file.read_bytes(), file.name


def test_whoever_asks_for_no_further_event_has_stopped_the_run(o2td3):
    plan = OnlineJob.from_json(json.loads((o2td3 / "config.json").read_text())).plan(seed_mesh(2))
    aligned = next(event.run for event in train.train(plan) if event.phase == "align" and event.ended)
    assert (int(aligned.updates), int(aligned.begun), int(aligned.env_steps)) == (REEVALUATE + ALIGN, 0, 0)
    with Checkpoints(o2td3 / "stages", plan.settings) as stages:
        kept = stages.restore(stage_of(aligned))
    jax.tree.map(np.testing.assert_array_equal, kept["agent"].critic, aligned.agent.critic)


def test_the_offline_score_is_that_of_the_offline_run_s_last_policy(o2td3, offline_run):
    # one of the two episodes that the offline run evaluated
    offline_scores = log.read(offline_run, "evaluation")["score"][-2:]
    assert np.all(np.abs(log.read(o2td3, "start")["offline_score"] - offline_scores) < 5.0)


def test_a_run_stopped_in_every_phase_ends_as_the_unbroken_one(o2td3, offline_run, tmp_path, monkeypatch):
    # in re-evaluation, in alignment, at the first evaluation online, and amid episodes
    out, first_online = tmp_path / "stopped", REEVALUATE + ALIGN + 1
    remaining = stop_at(monkeypatch, 4, REEVALUATE + 4, first_online + 2, first_online + 4)
    run(out, offline_run, *RECONSTRUCTION, status=130)
    for _ in range(3):
        run(out, offline_run, *RECONSTRUCTION, "--resume", status=130)
    assert not remaining
    run(out, offline_run, *RECONSTRUCTION, "--resume")
    assert {path.name for path in (out / "stages").iterdir()} == {"4", "8"}  # what experiments.diagnose reads
    for file in sorted(o2td3.glob("*.csv")):
        assert (out / file.name).read_bytes() == file.read_bytes(), file.name
    jax.tree.map(np.testing.assert_array_equal, *(tiny.saved(folder / "checkpoints") for folder in (out, o2td3)))


def test_a_run_that_signals_end_saves_itself_wherever_it_is(o2td3, offline_run, tmp_path, monkeypatch, capsys):
    # at the first look for a signal, amid re-evaluation; at the fourth of what is left, after one environment step; at
    # the second, after the third step, between two evaluations and with metrics that no file has yet
    out, requested = tmp_path / "stopped", interrupt.requested
    for look, signum in ((1, signal.SIGTERM), (4, signal.SIGINT), (2, signal.SIGTERM)):
        looks = itertools.count(1)

        def look_again(look=look, looks=looks, signum=signum):
            if next(looks) == look:
                signal.raise_signal(signum)
            return requested()

        with monkeypatch.context() as patch:
            patch.setattr(interrupt, "requested", look_again)
            run(out, offline_run, *RECONSTRUCTION, "--resume", status=128 + signum)
        error = capsys.readouterr().err
        assert f"stopped by {signum.name}: all is saved, resume with the same command and --resume" in error
    saved = (path.name for path in (out / "checkpoints").iterdir())
    assert str(REEVALUATE + ALIGN + 1 + 3) in saved
    run(out, offline_run, *RECONSTRUCTION, "--resume")
    for file in sorted(o2td3.glob("*.csv")):
        assert (out / file.name).read_bytes() == file.read_bytes(), file.name
    jax.tree.map(np.testing.assert_array_equal, *(tiny.saved(folder / "checkpoints") for folder in (out, o2td3)))


@pytest.fixture(scope="module")
def other_policies(data, tmp_path_factory):
    """The folder of seeds 1 and 2 of the offline run."""
    out = tmp_path_factory.mktemp("runs") / "others"
    argv = ["--algorithm=td3_bc", f"--env={tiny.ENV}", f"--out={out}", *tiny.SETTINGS, "--set=updates=12"]
    tiny.call(offline, *argv, "--first_seed=1", "--seeds=2", "--eval_every=4", "--eval_episodes=2")
    return out


def test_a_seed_does_not_depend_on_the_others(other_policies, o2td3, tmp_path, capsys):
    out = run(tmp_path / "out", other_policies, *RECONSTRUCTION, "--first_seed=1")
    printed = capsys.readouterr().out
    assert [f"seed {seed}: offline policy" in printed for seed in range(4)] == [False, True, True, False]
    assert json.loads((out / "config.json").read_text())["first_seed"] == 1
    for file in sorted(o2td3.glob("*.csv")):
        assert tiny.rows_of_seed(out / file.name, 1) == tiny.rows_of_seed(file, 1), file.name
        assert tiny.rows_of_seed(out / file.name, 2), file.name
        assert not tiny.rows_of_seed(out / file.name, 0), file.name
    ours, theirs = (tiny.saved(folder / "checkpoints") for folder in (out, o2td3))
    for name, numbers in theirs.items():
        pair = (ours[name][:1], numbers[1:]) if numbers.ndim else (ours[name], numbers)  # counters are of all seeds
        if "episodes" in name and numbers.ndim > 1:  # as long as the longest episode of any seed
            length = min(part.shape[1] for part in pair)
            pair = tuple(part[:, :length] for part in pair)
        np.testing.assert_array_equal(*pair, err_msg=name)
    run(out, other_policies, *RECONSTRUCTION, "--resume", status=1)  # --first_seed=0, of which there is no policy
    assert "has the seeds 1 to 2, not the seeds 0 to 1: pass --first_seed=1 --seeds=1, or" in capsys.readouterr().err


def test_a_seed_takes_the_policy_of_its_number(o2td3, offline_run, tmp_path):
    out = run(tmp_path / "out", offline_run, *RECONSTRUCTION, "--first_seed=1", seeds=1)
    for phase in ("reevaluate", "start"):
        columns = log.read(o2td3, phase)
        for name, values in log.read(out, phase).items():
            np.testing.assert_allclose(values, columns[name][columns["seed"] == 1], rtol=1e-3, err_msg=name)


def test_a_finished_run_that_is_resumed_stays_as_it_is(o2td3, offline_run, capsys):
    before = {path.name: path.read_text() for path in o2td3.glob("*.csv")}
    run(o2td3, offline_run, *RECONSTRUCTION, "--resume")
    assert f"the run in {o2td3} is complete" in capsys.readouterr().out
    assert {path.name: path.read_text() for path in o2td3.glob("*.csv")} == before


def test_direct_fine_tuning_goes_on_from_the_offline_critics(offline_run, tmp_path, monkeypatch):
    out = tmp_path / "td3"
    with monkeypatch.context() as patch:
        stop_at(patch, 1 + 2)  # before anything was saved
        run(out, offline_run, algorithm="td3", status=130)
    run(out, offline_run, "--resume", algorithm="td3")
    assert sorted(path.stem for path in out.glob("*.csv")) == ["evaluation", "finetune", "start"]
    evaluation, start = log.read(out, "evaluation"), log.read(out, "start")
    assert evaluation["step"].tolist() == [2, 2, 4, 4, 6, 6]
    assert "aligned_score" not in start
    # nobody has learnt anything in the warm-up
    np.testing.assert_allclose(evaluation["score"][:2], start["offline_score"], rtol=1e-5)
    assert "lagrange" not in log.read(out, "finetune")


def test_a_policy_of_another_head_is_cloned(offline_run, tmp_path, monkeypatch):
    # the first of the two seeds, stopped while it is cloned
    out, arguments = tmp_path / "o2sac", ["--set=reevaluate.updates=0", "--set=align.updates=2", "--clone_updates=4"]
    stop_at(monkeypatch, 4)
    run(out, offline_run, *arguments, algorithm="o2sac", seeds=1, status=130)
    assert log.read(out, "clone")["step"].tolist() == [2, 4]
    assert not (out / "start.csv").exists()
    run(out, offline_run, *arguments, "--resume", algorithm="o2sac", seeds=1)
    steps = {path.stem: log.read(out, path.stem)["step"].tolist() for path in out.glob("*.csv")}
    steps.pop("episode", None)
    assert steps == {"clone": [2, 4], "align": [0, 2], "start": [0], "finetune": [2, 4, 6], "evaluation": [2, 4, 6]}
    settings = json.loads((out / "config.json").read_text())
    assert (settings["clone"]["updates"], settings["clone"]["hidden"]) == (4, [8])
    # the clone goes online; beside its score is that of what it was cloned from
    start, clone = log.read(out, "start"), log.read(out, "clone")
    for name in ("mse", "log_likelihood"):
        np.testing.assert_array_equal(start[f"clone_{name}"], clone[name][-1:])
    teacher_score = log.read(offline_run, "evaluation")["score"][-2]
    assert np.abs(start["teacher_score"][0] - teacher_score) < 5.0  # one of the two episodes that were evaluated there


def test_a_clone_too_is_taken_from_another_run(offline_run, tmp_path):
    arguments = ["--set=reevaluate.updates=0", "--set=align.updates=2", "--clone_updates=4"]
    whole = run(tmp_path / "whole", offline_run, *arguments, algorithm="o2sac")
    out = run(tmp_path / "one", offline_run, *arguments, f"--reconstruction={whole}", algorithm="o2sac", seeds=1)
    again = run(tmp_path / "again", offline_run, *arguments, f"--reconstruction={out}", algorithm="o2sac", seeds=1)
    for phase in ("clone", "align"):
        for name, values in log.read(whole, phase).items():
            for folder in (out, again):
                np.testing.assert_array_equal(log.read(folder, phase)[name], values[::2], err_msg=f"{phase} {name}")
    run(out, offline_run, *arguments, f"--reconstruction={whole}", "--resume", algorithm="o2sac", seeds=1)


def test_a_policy_on_histories_is_cloned(dt_run, tmp_path, capsys):
    arguments = ["--set=reevaluate.updates=0", "--set=align.updates=2", "--clone_updates=2"]
    out = run(tmp_path / "o2td3", dt_run, *arguments, *OFFLINE_PHASES)
    steps = {path.stem: np.unique(log.read(out, path.stem)["step"]).tolist() for path in out.glob("*.csv")}
    assert steps == {"clone": [2], "align": [0, 2], "start": [0]}
    start = log.read(out, "start")
    assert start.keys() == {"step", "seed", "offline_score", "aligned_score", "teacher_score", "clone_mse"}
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("clone of"))
    means = [start[name].mean() for name in ("clone_mse", "teacher_score", "offline_score")]
    assert line == "clone of dt as deterministic: clone_mse {:.4g}, teacher_score {:.4g}, clone_score {:.4g}".format(
        *means
    )
    assert json.loads((out / "config.json").read_text())["source"]["algorithm"] == "dt"


ROLLOUTS = [
    "--schedule=paper",
    "--set=reevaluate.updates=4",
    "--set=env_steps=11",
    "--set=rollout.env_steps=4",
    "--set=rollout.minibatch_size=2",
    "--set=rollout.epochs=2",
    "--set=evaluation.every_env_steps=3",
    "--set=evaluation.episodes=1",
    "--clone_updates=2",
    "--checkpoint_every=4",
]


def run_ppo(out, policy, *arguments, algorithm="o2ppo", status=0):
    argv = [f"--algorithm={algorithm}", f"--policy={policy}", f"--out={out}"]
    tiny.call(finetune, *argv, *tiny.ROLLOUT_SETTINGS, *ROLLOUTS, *arguments, status=status)
    return out


def test_fine_tuning_on_rollouts_stopped_in_both_phases(offline_run, tmp_path, monkeypatch):
    # evaluations after 3, 6, 9 and 11 steps, rollouts of 4; checkpoints at the evaluations that come after 4, 8, 11
    whole, stopped = run_ppo(tmp_path / "whole", offline_run), tmp_path / "stopped"
    with monkeypatch.context() as patch:
        remaining = stop_at(patch, 4, 4 + 1 + 9)
        run_ppo(stopped, offline_run, status=130)
        run_ppo(stopped, offline_run, "--resume", status=130)
        assert not remaining
    run_ppo(stopped, offline_run, "--resume")
    steps = {path.stem: log.read(stopped, path.stem)["step"].tolist() for path in stopped.glob("*.csv")}
    steps.pop("episode", None)
    assert steps == {"clone": [2], "reevaluate": [2, 4], "start": [0], "finetune": [3, 6, 9, 11],
                     "evaluation": [3, 6, 9, 11]}  # fmt: skip
    for phase in ("clone", "reevaluate", "start", "finetune", "evaluation"):
        unbroken, again = log.read(whole, phase), log.read(stopped, phase)
        repeated = slice(2) if phase in ("finetune", "evaluation") else slice(None)  # afterwards new episodes begin
        for term in unbroken:
            np.testing.assert_array_equal(again[term][repeated], unbroken[term][repeated], err_msg=f"{phase} {term}")
    updated = ~np.isnan(log.read(stopped, "finetune")["critic_loss"])
    assert updated.tolist() == [False, True, True, False]
    assert "aligned_score" not in log.read(stopped, "start")  # there is no alignment


def test_plain_ppo_has_no_auxiliary_advantage(offline_run, tmp_path):
    out = run_ppo(tmp_path / "ppo", offline_run, "--set=reevaluate.updates=0", algorithm="ppo")
    assert not (out / "reevaluate.csv").exists()
    assert "auxiliary" not in log.read(out, "finetune")


def test_the_fast_schedule_on_rollouts(offline_run, tmp_path):
    out = run_ppo(tmp_path / "fast", offline_run, "--schedule=fast", "--set=evaluation.episodes=2")
    reference = log.read(out, "reference")
    assert reference["step"].tolist() == [3, 6, 9, 11]
    evaluation = log.read(out, "evaluation")
    assert evaluation["reference_score"][-1] >= log.read(out, "start")["offline_score"][0] - 1e-3
    settings = json.loads((out / "config.json").read_text())["config"]
    assert (settings["auxiliary"]["baseline"], settings["reevaluate"]["return_boundary"]) == ("policy", "bootstrap")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set=align.updates=3"], "unknown field 'align.updates'"),
        (["--set=replay.mode=all"], "unknown field 'replay.mode'"),
        (["--set=rollout.minibatch_size=3"], "rollout.minibatch_size must divide the rollout's env_steps, 4, got 3"),
    ],
)
def test_what_ppo_does_not_have_is_refused(arguments, message, offline_run, tmp_path, capsys):
    run_ppo(tmp_path / "out", offline_run, *arguments, status=1)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


MEASURES = [
    "--set=early_stopping.mode=measures",
    "--set=early_stopping.check_every_updates=2",
    "--set=early_stopping.window_checks=1",
    "--set=early_stopping.min_updates=2",
    "--set=early_stopping.missing_value=1e9",
    "--set=early_stopping.residual=1",
    "--set=early_stopping.held_out_share=0.2",
]


def test_phases_that_stop_by_measures(o2td3, offline_run, tmp_path, monkeypatch, capsys):
    # re-evaluation is content with anything from its second check on, alignment with nothing
    out, arguments = (
        tmp_path / "measures",
        [
            *RECONSTRUCTION,
            *MEASURES,
            *OFFLINE_PHASES,
            "--set=early_stopping.overestimated=0",
            "--set=early_stopping.settled=0",
        ],
    )
    with monkeypatch.context() as patch:
        remaining = stop_at(patch, REEVALUATE + 4)
        run(out, offline_run, *arguments, status=130)
        assert not remaining
    capsys.readouterr()
    run(out, offline_run, *arguments, "--resume")
    printed = capsys.readouterr().out
    whole = run(tmp_path / "whole", offline_run, *arguments)
    for seed in range(2):
        assert f"align, seed {seed}: 4 of 4 updates: not stopped early (overestimated " in printed
        assert f"reevaluate, seed {seed}: 2 of 4 updates: the residual is at its floor" in printed
    for phase in ("reevaluate", "align", "reevaluate_measures", "align_measures", "start"):
        unbroken, stopped = log.read(whole, phase), log.read(out, phase)
        for term in unbroken:
            np.testing.assert_array_equal(stopped[term], unbroken[term], err_msg=f"{phase} {term}")
    assert log.read(out, "reevaluate")["step"].tolist() == [2, 2]
    measures = log.read(out, "reevaluate_measures")
    assert measures["updates"].tolist() == [0, 0, 2, 2]
    assert measures["decision"].tolist() == [0, 0, 1, 1]
    assert log.read(out, "align_measures")["step"].tolist() == [0, 0, 2, 2, 4, 4]
    # the same first batches would make the same numbers, but these leave out what is held out
    assert log.read(out, "reevaluate")["q"][0] != log.read(o2td3, "reevaluate")["q"][0]


@pytest.fixture(scope="module")
def reported(data, offline_run, tmp_path_factory):
    """A run whose re-evaluation is compared with returns and whose replay depends on its start; its folder."""
    arguments = [*RECONSTRUCTION, *OFFLINE_PHASES]
    arguments += ["--set=early_stopping.critic_report=true", "--set=early_stopping.check_every_updates=2"]
    out = tmp_path_factory.mktemp("runs") / "reported"
    return run(
        out, offline_run, *arguments, "--set=early_stopping.held_out_share=0.2", "--set=replay.mode=auto"
    ), arguments


def test_a_report_without_a_stop(reported):
    out, _ = reported
    measures = log.read(out, "reevaluate_measures")
    assert measures["step"].tolist() == [0, 0, 2, 2, 4, 4]
    np.testing.assert_allclose(measures["horizon"], 0.005 * measures["updates"])
    np.testing.assert_array_equal(measures["recorded"].reshape(3, 2), [measures["recorded"][:2]] * 3)
    assert np.isfinite([measures[name] for name in ("value", "error", "spread", "correlation")]).all()
    assert not measures["decision"].any()
    assert not (out / "align_measures.csv").exists()
    assert log.read(out, "reevaluate")["step"].tolist() == [2, 2, 4, 4]


def test_replay_by_regime_says_why(reported, offline_run, tmp_path, capsys):
    source, arguments = reported
    extra = ["--set=early_stopping.held_out_share=0.2", "--set=replay.mode=auto", f"--reconstruction={source}"]
    run(tmp_path / "evaluated", offline_run, *arguments, *extra)
    kinds = "better than its data|like its data|worse than its data"
    printed = capsys.readouterr().out
    for seed in range(2):
        found = re.search(rf"replay, seed {seed}: the policy is ({kinds}) \(return (\S+) against (\S+), ", printed)
        assert found
        assert (found[1] == "better than its data") <= (float(found[2]) > float(found[3]))
    starts = [*WITHOUT_EVALUATION, "--set=start.actor=aligned", "--set=reference.init=offline"]
    run(tmp_path / "critics", offline_run, *arguments, *extra, *starts)
    assert re.search(rf"seed 1: the policy is ({kinds}) \(value \S+ against", capsys.readouterr().out)


WITHOUT_EVALUATION = ["--set=evaluation.episodes=0", "--set=reference.update=returns"]


def test_a_run_without_evaluations(offline_run, tmp_path, capsys):
    arguments = [*RECONSTRUCTION, *WITHOUT_EVALUATION, "--set=start.actor=aligned", "--set=reference.init=offline"]
    out = run(tmp_path / "out", offline_run, *arguments)
    logs = {path.stem for path in out.glob("*.csv")}
    assert logs - {"episode"} == {"reevaluate", "align", "finetune", "reference"}
    assert log.read(out, "reference")["step"].tolist() == [2, 2, 4, 4, 6, 6]
    assert "offline policy" not in capsys.readouterr().out.replace("to the offline policy", "")


def test_a_run_that_rolls_back_delivers_its_reference(o2td3, offline_run, tmp_path, capsys):
    # the aligned policy is π_ref by order, though the offline one may score better: its own returns are the bar
    out = run(
        tmp_path / "out", offline_run, *RECONSTRUCTION, f"--reconstruction={o2td3}", "--set=roll_back.enabled=true",
        "--set=evaluation.episodes=2", "--set=reference.init=aligned", "--set=start.actor=aligned",
    )  # fmt: skip
    evaluation, start, looks = (log.read(out, phase) for phase in ("evaluation", "start", "reference"))
    assert looks["step"].tolist() == [2, 2, 4, 4, 6, 6]
    # in the warm-up it is still the start, and equal is not better
    np.testing.assert_allclose(evaluation["reference_score"][:2], start["aligned_score"], rtol=1e-5)
    np.testing.assert_array_equal(looks["accepted"][:2], 0)
    np.testing.assert_array_equal(looks["rejected"][:2], 0)
    printed = capsys.readouterr().out.splitlines()
    for seed in (0, 1):
        score, before = evaluation["reference_score"][-2 + seed], start["aligned_score"][seed]
        assert f"seed {seed}: delivered policy {score:.1f}, {before:.1f} at the start" in printed
    task = envs.get_task(tiny.ENV)
    policy = load_delivered(out, task.spec)
    evaluator = Evaluator(lambda: envs.family(tiny.ENV).make_env(task), range(2), 2)
    returns, _ = policy_episodes(lambda policy: policy, range(2), seed_mesh(2, 1))(evaluator, policy)
    np.testing.assert_allclose(task.score(returns.mean(axis=1)), evaluation["reference_score"][-2:], rtol=1e-5)
    run(out, offline_run, *RECONSTRUCTION, f"--reconstruction={o2td3}", "--set=roll_back.enabled=true", "--resume",
        "--set=evaluation.episodes=2", "--set=reference.init=aligned", "--set=start.actor=aligned")  # fmt: skip
    assert f"seed 1: delivered policy {score:.1f}, {before:.1f} at the start" in capsys.readouterr().out


def test_evaluations_count_from_the_start(o2td3):
    evaluation = log.read(o2td3, "evaluation")
    spent = evaluation["total_env_steps"] - evaluation["step"]
    # those of the offline and the aligned policy come before; then one episode each time
    np.testing.assert_array_equal(np.diff(spent.reshape(-1, 2), axis=0), evaluation["length"].reshape(-1, 2)[1:])
    assert np.all(spent.reshape(-1, 2)[0] > evaluation["length"][:2])


OFFLINE_CRITICS = [
    "--set=networks.critic_source=offline",
    "--set=networks.layer_norm=false",
    "--set=reevaluate.updates=0",
]


@pytest.mark.parametrize("algorithm", ["o2td3", "o2sac"])
def test_offline_critics_are_kept_and_aligned(algorithm, offline_run, tmp_path, capsys):
    # of the policy's own kind, and of a clone
    arguments = [*OFFLINE_CRITICS, *OFFLINE_PHASES, "--set=align.updates=2", "--clone_updates=2"]
    out = run(tmp_path / "out", offline_run, *arguments, algorithm=algorithm, seeds=1)
    logs = {path.stem for path in out.glob("*.csv")}
    clone = {"clone"} if algorithm == "o2sac" else set()
    assert logs == {"align", "start"} | clone
    assert "critics" not in capsys.readouterr().out  # no warning


def test_phases_left_out_against_the_paper_s_advice_are_noted(offline_run, tmp_path, capsys):
    run(tmp_path / "out", offline_run, *OFFLINE_CRITICS, *OFFLINE_PHASES, "--set=align.updates=0", seeds=1)
    assert "note: critics that are not aligned lead the policy away" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--algorithm=o2td4"], 1, "unknown online algorithm 'o2td4'. Did you mean 'o2td3'?"),
        (["--algorithm=sac", "--set=networks.num_critics=1"], 1, "td3_bc do not fit: set networks.num_critics=2"),
        (["--algorithm=td3", "--set=networks.critic_hidden=16"], 1, "do not fit: set networks.critic_hidden=8"),
        (
            ["--set=networks.critic_source=offline"],
            1,
            "the critics of td3_bc do not fit: set networks.layer_norm=false",
        ),
        (["--algorithm=td3", "--set=update.reward_scale=2"], 1, "on other rewards: set update.reward_scale=1.0"),
        (["--algorithm=td3", "--set=update.discount=0.9"], 1, "with another discount: set update.discount=0.99"),
        (WITHOUT_EVALUATION, 1, "start.actor=best_of needs evaluations"),
        (["--set=networks.hidden=16"], 1, "differs from this algorithm's: set networks.hidden to (8,)"),
        (["--algorithm=td3", "--policy={dt}"], 1, "networks.critic_source=offline continues from the critics of"),
        (["--set=thershold_end=1"], 1, "unknown field 'thershold_end' in --set=thershold_end=1: did you mean constra"),
        (["--set=update.discount=2"], 1, "update.discount must lie in (0, 1), got 2.0"),
        (
            ["--seeds=5"],
            1,
            "has the seeds 0 to 1, not the seeds 0 to 4: pass --first_seed=0 --seeds=2, or train the others",
        ),
        (["--first_seed=1"], 1, "has the seeds 0 to 1, not the seeds 1 to 2: pass --first_seed=1 --seeds=1, or"),
        (["--seeds=0"], 2, "seeds"),
        (["--first_seed=-1"], 2, "first_seed"),
        (["--policy=nowhere"], 1, "nowhere holds no run"),
        (["--dataset=o2o/nothing-v0"], 1, "o2o/nothing-v0"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(arguments, status, message, offline_run, dt_run, tmp_path, capsys):
    arguments = [argument.format(dt=dt_run) for argument in arguments]
    run(tmp_path / "out", offline_run, *arguments, status=status)
    refusals.check(capsys.readouterr().err, message)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_checks_and_writes_nothing(o2td3, offline_run, tmp_path, capsys):
    run(tmp_path / "out", offline_run, *RECONSTRUCTION, "--dry_run")
    found = capsys.readouterr().out.splitlines()
    assert found[-4] == "all checks passed"
    assert found[-3] == "2 seeds: 4 updates of reevaluate, 4 updates of align, 6 environment steps"
    assert "transitions, " in found[-2]
    assert found[-1].startswith("memory, beside programs and simulators: networks ")
    assert not (tmp_path / "out").exists()
    too_long = ["--set=env_steps=1e9", "--set=replay.buffer_size=1e9"]  # 27 numbers a row: 216 GB for two seeds
    run(tmp_path / "out", offline_run, *RECONSTRUCTION, "--dry_run", *too_long, status=1)
    error = capsys.readouterr().err
    assert "this takes at least 216 GB of memory (replay 216 GB, " in error
    assert error.count("\n") == 1
    run(o2td3, offline_run, *RECONSTRUCTION, "--dry_run", status=1)
    assert "already holds a run" in capsys.readouterr().err


def test_a_run_that_is_no_offline_run_or_not_finished_is_refused(o2td3, offline_run, tmp_path, capsys):
    run(tmp_path / "out", o2td3, status=1)
    assert "holds no offline run: pass the --out of experiments.offline" in capsys.readouterr().err
    (tmp_path / "half").mkdir()
    shutil.copy(offline_run / "config.json", tmp_path / "half")
    run(tmp_path / "out", tmp_path / "half", status=1)
    assert "half is not finished: 0 of 12 updates are saved; resume it first" in capsys.readouterr().err


def test_the_folder_of_another_run_is_refused(o2td3, offline_run, capsys):
    run(o2td3, offline_run, *RECONSTRUCTION, status=1)
    assert "already holds a run" in capsys.readouterr().err
    run(o2td3, offline_run, *RECONSTRUCTION, "--resume", "--set=align.decay=2", status=1)
    assert "config.align.decay is 1.0 there and 2.0 now" in capsys.readouterr().err


def test_replay_data():
    task, module = envs.get_task(tiny.ENV), online.load("o2td3")
    dataset = envs.family(tiny.ENV).load_dataset(task)

    def data(mode):
        config = tiny.config(module.Config, replay_mode=mode, part_episodes=3)
        return train.replay_data(Setup(module.make(config, task.spec), config, task, [0], seed_mesh(1, 1)), dataset)

    assert data("none") is None
    for mode in ("half", "all"):
        assert data(mode).reward.shape == (200,)
    part = data("part")
    np.testing.assert_allclose(np.sum(part.reward), np.sum(np.sort(dataset.returns())[-3:]), rtol=1e-5)


def test_a_run_may_take_the_reconstruction_of_another(o2td3, offline_run, tmp_path, monkeypatch):
    out, other = tmp_path / "again", tmp_path / "other"
    shutil.copytree(o2td3, other)
    with monkeypatch.context() as patch:
        stop_at(patch, REEVALUATE + ALIGN + 1 + 4)
        run(out, offline_run, *RECONSTRUCTION, f"--reconstruction={other}", status=130)
    assert not list((out / "stages").glob("*"))  # no phase was run
    shutil.rmtree(other)  # a run with a checkpoint of its own needs the other no more
    run(out, offline_run, *RECONSTRUCTION, f"--reconstruction={other}", "--resume")
    for phase in ("reevaluate", "align", "start"):
        assert (out / f"{phase}.csv").read_text() == (o2td3 / f"{phase}.csv").read_text()
    before_the_stop = slice(2)  # afterwards new episodes begin
    for phase in ("evaluation", "finetune"):
        ours, theirs = log.read(out, phase), log.read(o2td3, phase)
        for term in theirs:
            np.testing.assert_array_equal(ours[term][before_the_stop], theirs[term][before_the_stop], err_msg=term)


def test_stopping_by_measures_needs_a_second_episode(tmp_path):
    size = 40
    arrays = {
        "observations": np.zeros((size, 3)), "actions": np.zeros((size, 1)), "rewards": np.zeros(size),
        "terminations": np.zeros(size, bool), "truncations": np.arange(size) == size - 1,
    }  # fmt: skip
    np.savez(tmp_path / "one.npz", **arrays)
    module = online.load("o2td3")
    config = tiny.config(module.Config, early_stopping_mode="measures")
    single = sources.load(str(tmp_path / "one.npz"))
    setup = Setup(module.make(config, single.spec), config, single.spec, [0], seed_mesh(1, 1))
    with pytest.raises(ValueError, match="one.npz is a single one: set early_stopping.mode=upd"):
        Plan(setup, single).shapes()


def test_what_happens_online_may_differ_and_seeds_be_fewer(o2td3, offline_run, tmp_path, capsys):
    out = run(
        tmp_path / "one", offline_run, *RECONSTRUCTION, f"--reconstruction={o2td3}", "--set=start.actor=offline",
        "--set=finetune.policy_delay=1", seeds=1,
    )  # fmt: skip
    aligned = log.read(o2td3, "align")
    np.testing.assert_array_equal(log.read(out, "align")["distance"], aligned["distance"][aligned["seed"] == 0])
    assert np.isfinite(log.read(out, "finetune")["lagrange"][-1])
    # from there others may continue, as far as there are seeds
    link = f"--reconstruction={out}"
    third = run(tmp_path / "third", offline_run, *RECONSTRUCTION, *OFFLINE_PHASES, link, seeds=1)
    assert (third / "start.csv").read_text() == (out / "start.csv").read_text()
    second = [f"--reconstruction={o2td3}", "--first_seed=1"]
    out_of_second = run(tmp_path / "second", offline_run, *RECONSTRUCTION, *OFFLINE_PHASES, *second, seeds=1)
    assert tiny.rows_of_seed(out_of_second / "align.csv", 1) == tiny.rows_of_seed(o2td3 / "align.csv", 1)
    link_to_second = [f"--reconstruction={out_of_second}", "--first_seed=1"]
    chained = run(tmp_path / "chained", offline_run, *RECONSTRUCTION, *OFFLINE_PHASES, *link_to_second, seeds=1)
    assert (chained / "start.csv").read_text() == (out_of_second / "start.csv").read_text()
    run(tmp_path / "two", offline_run, *RECONSTRUCTION, link, status=1)
    assert f"{out} has the seed 0, not the seeds 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set=align.updates=6"], "other settings: config.align.updates is 4 there and 6 now. Use the same"),
        (
            ["--set=reevaluate.updates=0", "--set=align.updates=0"],
            "phases before its first environment step",
        ),
    ],
)
def test_reconstructions_that_do_not_fit(arguments, message, o2td3, offline_run, tmp_path, capsys):
    argv = ["--algorithm=o2td3", f"--policy={offline_run}", f"--out={tmp_path / 'out'}", f"--reconstruction={o2td3}"]
    argv += ["--seeds=2", "--set=reevaluate.updates=4", *tiny.ONLINE_SETTINGS, *SCHEDULE, *arguments]
    tiny.call(finetune, *argv, status=1)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_offline_run_is_no_reconstruction(offline_run, tmp_path, capsys):
    run(tmp_path / "out", offline_run, *RECONSTRUCTION, f"--reconstruction={offline_run}", status=1)
    assert "holds no fine-tuning run" in capsys.readouterr().err
