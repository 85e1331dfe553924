"""Answers of public functions to objects of the wrong kind: errors of a fitting type that say what to pass."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import o2o_jax as o2o
from o2o_jax import envs, offline, online
from o2o_jax.jobs.job import OfflineJob, OnlineJob
from o2o_jax.offline import dt, td3_bc
from o2o_jax.online import o2td3
from o2o_jax.runtime import saved
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.output import Output
from o2o_jax.runtime.train import train

KEY = jax.random.key(0)
ROWS = np.random.default_rng(0).uniform(-1, 1, (20, 8)).astype(np.float32)
SPEC = o2o.Spec(observation_dim=3, action_dim=1)
DATA = o2o.Transition(ROWS[:, :3], ROWS[:, 3:4], ROWS[:, 4], ROWS[:, 5:], np.zeros(20, np.float32))
DATASET = o2o.Dataset(DATA, np.array([20]), "arrays")
EPISODES = DATASET.rollout()
METHOD = td3_bc.make(td3_bc.Config(hidden=(4,), critic_hidden=(4,)), SPEC)
STATE = METHOD.init(KEY, DATASET.normalizer())
ONLINE = o2td3.make(o2td3.Config(), SPEC)
FEW = o2o.CloneConfig(updates=1, hidden=(4,))
DT = dt.make(dt.Config(), SPEC)
TD3_BC = {"algorithm": "td3_bc", "config": td3_bc.Config()}
JOB = OnlineJob(algorithm="o2td3", config=o2td3.Config(), policy="nowhere", schedule="fast")


def clone(policy=lambda rows: rows[:, :1], dataset=DATA, key=KEY, config=FEW):
    return o2o.clone(policy, "deterministic", dataset, key, config)


def run_updates(state=STATE, dataset=DATA, key=KEY):
    return o2o.run_updates(METHOD.phase("offline").update, state, dataset, key, 1, 4)


# a call, the type of its error, and words of it
CALLS = {
    "key: a number": (lambda: METHOD.init(0, DATASET.normalizer()), TypeError, "got int: pass jax.random.key"),
    "start: data": (lambda: METHOD.init(KEY, DATASET), TypeError, "got Dataset: pass that of the data"),
    "start: none": (lambda: METHOD.init(KEY), TypeError, "got NoneType: pass that of the data"),
    "start: swapped": (lambda: ONLINE.init(clone(), KEY), TypeError, "key must be a PRNG key, got Handoff"),
    "start: a policy": (lambda: ONLINE.init(KEY, clone().policy), TypeError, "got Policy: pass what o2o_jax.hand_over"),
    "phase": (lambda: METHOD.phase("online"), ValueError, "unknown phase of td3_bc 'online'. Did you mean 'offline'"),
    "hand_over: swapped": (lambda: o2o.hand_over(STATE, METHOD), TypeError, "algorithm must be of type Algorithm"),
    "hand_over: nothing": (lambda: o2o.hand_over(METHOD, None), TypeError, "state must be what init"),
    "with_head: swapped": (lambda: o2o.with_head("gaussian", clone(), DATA, KEY), TypeError, "handoff must be of type"),
    "clone: a dataset": (lambda: clone(dataset=DATASET), TypeError, "or on_device() of a Dataset"),
    "clone: an array": (lambda: clone(dataset=ROWS), TypeError, "got ndarray: pass o2o_jax.Transition"),
    "clone: torn data": (lambda: clone(dataset=DATA.replace(reward=ROWS[:5, 4])), ValueError, "reward 5"),
    "clone: rewards in a column": (
        lambda: clone(dataset=DATA.replace(reward=ROWS[:, 4:5])), ValueError, "reward must have the shape [N], got"
    ),
    "start: of seeds": (
        lambda: ONLINE.init(KEY, jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), clone())),
        ValueError, "the policy is of 2 seeds: take one of them",
    ),
    "clone: a number": (lambda: clone(config=100), TypeError, "pass o2o_jax.CloneConfig(updates=…)"),
    "clone: an object": (lambda: clone(policy=object()), TypeError, "pass o2o_jax.wrap(model)"),
    "clone: a policy": (lambda: clone(policy=clone().policy), TypeError, "is cloned by o2o_jax.with_head"),
    "clone: no key": (lambda: clone(key=None), TypeError, "pass jax.random.key(0)"),
    "updates: a dataset": (lambda: run_updates(dataset=DATASET), TypeError, "or on_device() of a Dataset"),
    "updates: swapped": (lambda: run_updates(DATA, STATE), TypeError, "state must be what init"),
    "updates: no key": (lambda: run_updates(key=3), TypeError, "pass jax.random.key(0)"),
    "updates: a phase": (
        lambda: o2o.run_updates(METHOD.phase("offline"), STATE, DATA, KEY, 1, 4),
        TypeError, "got Phase: pass that of a phase, phase.update",
    ),
    "updates: no rows": (lambda: run_updates(dataset=jax.tree.map(lambda c: c[:0], DATA)), ValueError, "is empty"),
    "updates: other sizes": (
        lambda: run_updates(dataset=DATA.replace(observation=ROWS[:, :2])), ValueError, "expected observations of 3",
    ),
    "update: an array": (lambda: METHOD.phases[0].update(STATE, ROWS, KEY), TypeError, "got ndarray: pass o2o_jax."),
    "update: a column of rewards": (
        lambda: METHOD.phases[0].update(STATE, DATA.replace(reward=DATA.reward[:, None]), KEY), ValueError,
        "columns are not of one batch: observation [",
    ),
    "update: swapped": (lambda: METHOD.phases[0].update(DATA, STATE, KEY), TypeError, "state must be what init"),
    "update: a key": (lambda: METHOD.phases[0].update(STATE, KEY, DATA), TypeError, "batch must be of type Transition"),
    "update: no key": (lambda: METHOD.phases[0].update(STATE, DATA, 3), TypeError, "pass jax.random.key(0)"),
    "update: an offline state": (
        lambda: ONLINE.phases[0].update(STATE, DATA, KEY), TypeError,
        "state must be one of o2o_jax.online.o2td3.algorithm, got one of o2o_jax.offline.td3_bc.algorithm: pass what",
    ),
    "updates: an offline state": (
        lambda: o2o.run_updates(ONLINE.phases[1].update, STATE, DATA, KEY, 1, 4), TypeError, "state must be one of o2o",
    ),
    "prepare: an offline state": (
        lambda: ONLINE.phases[0].prepare(STATE, EPISODES), TypeError, "state must be one of o2o_jax.online.o2td3",
    ),
    "update: an online state": (
        lambda: METHOD.phases[0].update(ONLINE.init(KEY), DATA, KEY), TypeError, "state must be one of o2o_jax.offline",
    ),
    "online: an offline state": (lambda: ONLINE.online.update(STATE, DATA, KEY), TypeError, "state must be one of o2o"),
    "act: an offline state": (
        lambda: ONLINE.online.act(STATE, (), ROWS[0, :3], 0.0, KEY), TypeError, "state must be one of o2o_jax.online",
    ),
    "begin: an offline state": (lambda: ONLINE.online.begin(STATE, True), TypeError, "state must be one of o2o_jax.on"),
    "spec: of other observations": (
        lambda: o2td3.make(o2td3.Config(), o2o.Spec(5, 1)).init(KEY, clone()), ValueError,
        "the policy is of 3 observations and 1 actions, but the spec has 5 observations and 1 actions: make the method",
    ),
    "spec: of another normalizer": (
        lambda: td3_bc.make(td3_bc.Config(), o2o.Spec(5, 1)).init(KEY, DATASET.normalizer()), ValueError,
        "the normalizer is of 3 observations, but the spec has 5 observations and 1 actions: pass the spec of the data",
    ),
    "json: a list": (lambda: OfflineJob.from_json([]), TypeError, "got list: pass what to_json of a job returned"),
    "json: nothing": (lambda: OnlineJob.from_json({}), ValueError, "expected a job of finetune, got one of None"),
    "json: no algorithm": (lambda: OfflineJob.from_json({"script": "offline"}), ValueError, "it lacks 'algorithm'"),
    "json: no config": (
        lambda: OfflineJob.from_json({"script": "offline", "algorithm": "td3_bc"}), ValueError, "it lacks 'config'",
    ),
    "json: a number": (
        lambda: OfflineJob.from_json({"script": "offline", "algorithm": "td3_bc", "config": 3}),
        ValueError, "config is 3, expected an object",
    ),
    "json: of a task": (lambda: envs.get_task("gym/Pendulum-v1").from_json([]), ValueError, "must have name, env_id"),
    "URL: a job": (
        lambda: OfflineJob(**TD3_BC, dataset="s3://a/b.npz").plan(seed_mesh(1)), ValueError, "s3://a/b.npz is a URL",
    ),
    "URL: load": (lambda: o2o.load_policy("s3://a/b"), ValueError, "s3://a/b is a URL: give a local path"),
    "URL: save": (lambda: o2o.save_policy(METHOD.policy(STATE), "gs://a/b"), ValueError, "gs://a/b is a URL"),
    "observations": (lambda: METHOD.policy(STATE).distribution(ROWS), ValueError, "expected observations of 3 numbers"),
    "spec: text": (lambda: o2o.Spec("3", 1), TypeError, "observation_dim must be of type Integral, got str"),
    "spec: a fraction": (lambda: o2o.Spec(3, 1.5), TypeError, "action_dim must be of type Integral, got float"),
    "replaced: a name": (lambda: o2o.replaced("td3_bc", {}), TypeError, "are expected, such as td3_bc.Config()"),
    "replaced: a class": (lambda: o2o.replaced(td3_bc.Config, {}), TypeError, "settings are expected"),
    "mesh: text": (lambda: seed_mesh("2"), TypeError, "num_seeds must be of type Integral"),
    "mesh: none": (lambda: JOB.plan(None), TypeError, "seed_mesh(seeds)"),
    "job: a policy": (
        lambda: OnlineJob(algorithm="o2td3", config=o2td3.Config(), policy=clone(), schedule="fast"),
        ValueError, "o2o_jax.save_policy",
    ),
    "job: text": (lambda: OfflineJob(**TD3_BC, first_seed="0"), ValueError, "first_seed must be a whole number"),
    "job: a path": (lambda: OfflineJob(**TD3_BC, dataset=Path("x.npz")), ValueError, "dataset must be a string"),
    "job: none": (lambda: OfflineJob(**TD3_BC, env=None), ValueError, "env must be a string, got None"),
    "job: True": (lambda: OfflineJob(**TD3_BC, seeds=True), ValueError, "seeds must be a whole number, got True"),
    "job: below 0": (lambda: OfflineJob(**TD3_BC, eval_every=-1), ValueError, "eval_every must be at least 0, got -1"),
    "job: first below 0": (lambda: OfflineJob(**TD3_BC, first_seed=-1), ValueError, "first_seed must be at least 0"),
    "episodes: text": (lambda: DATASET.hold_out("5"), TypeError, "count must be of type Integral, got str"),
    "episodes: a fraction": (lambda: DATASET.best_episodes(2.5), TypeError, "count must be of type Integral"),
    "histories": (lambda: DT.phases[0].sample(DATA, KEY, 4), TypeError, "what the phase's prepare returns"),
    "train: a job": (lambda: next(train(JOB)), TypeError, "got OnlineJob: pass what the plan of a job returns"),
    "output: a job": (lambda: Output("nowhere", JOB), TypeError, "got OnlineJob: pass what the plan of a job returns"),
    "diagnose: no key": (lambda: o2o.diagnose(None, EPISODES, DATA, None), TypeError, "pass jax.random.key(0)"),
    "diagnose: no episodes": (lambda: o2o.diagnose(KEY, DATA, DATA, None), TypeError, "must be of type Rollout"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_wrong_objects(name):
    call, kind, words = CALLS[name]
    with pytest.raises(kind) as raised:
        call()
    assert words in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


METHODS = [*((offline, name) for name in offline.names()), *((online, name) for name in online.names())]


@pytest.mark.parametrize(("methods", "name"), METHODS, ids=[f"{methods.__name__}.{name}" for methods, name in METHODS])
def test_every_method_looks_at_what_it_is_made_of(methods, name):
    module = methods.load(name)
    with pytest.raises(TypeError, match=rf"config must be of type Config, got Spec: pass {name}\.Config\(\)"):
        module.make(SPEC, module.Config())
    with pytest.raises(TypeError, match=r"spec must be of type Spec, got Dataset: pass o2o_jax\.Spec"):
        module.make(module.Config(), DATASET)
    with pytest.raises(TypeError, match=r"task must be of type Task, got str: pass o2o_jax\.envs\.get_task"):
        module.Config.for_task("mujoco/hopper-medium")
    assert module.Config.for_task(envs.get_task("mujoco/hopper-medium"))
    with pytest.raises(TypeError, match="start must be of type"):
        module.make(module.Config(), SPEC).init(KEY, DATASET)


@pytest.mark.parametrize("enter", [lambda: td3_bc.make(td3_bc.Config(), SPEC), lambda: saved.read("nowhere")])
def test_64_bits_are_refused(enter):
    with jax.enable_x64(True), pytest.raises(ValueError, match="set JAX_ENABLE_X64=0"):
        enter()


def test_rows_of_numpy_are_learnt_from():
    assert int(run_updates()[0].step) == 1


def test_old_keys_are_keys():
    with jax.legacy_prng_key("allow"):
        assert jnp.shape(METHOD.init(jax.random.PRNGKey(0), DATASET.normalizer()).step) == ()
