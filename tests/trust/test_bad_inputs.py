"""Every kind of bad input on the command line, and what the one line that refuses it must say."""

import json
import os
import shutil

import h5py
import numpy as np
import pytest

from o2o_jax.cli import offline
from tests import refusals, tiny

SMALL = f"--out=new --set=updates=2 --eval_episodes=1 {' '.join(tiny.SETTINGS)}"  # should it not be refused
OFFLINE = f"offline --algorithm=td3_bc --env={tiny.ENV} {SMALL}"
FINETUNE = f"finetune --algorithm=o2td3 --policy=td3_bc --out=new {' '.join(tiny.ONLINE_SETTINGS)}"
DATASET = f"dataset --env={tiny.ENV} --out=o2o/new-v0 --transitions=20"
BEHAVIOUR = "behaviour --env=mujoco/hopper --out=new"
FREE = f"offline --algorithm=td3_bc {SMALL}"  # without an environment

# a command line, and what the message must hold
COMMAND_LINES = [
    # numbers
    (f"{OFFLINE} --set=alpha=nan", "alpha must be a finite number, got nan"),
    (f"{OFFLINE} --set=alpha=inf", "alpha must be a finite number, got inf"),
    (f"{OFFLINE} --set=alpha=1e309", "alpha must be a finite number"),
    (f"{OFFLINE} --set=alpha=-1", "alpha must be"),
    (f"{OFFLINE} --set=alpha=two", "--set=alpha=two: alpha takes float, not 'two'"),
    (f"{OFFLINE} --set=alpha=", "alpha takes float, not ''"),
    (f"{OFFLINE} --set=discount=1", "discount must lie in (0, 1), got 1.0"),
    (f"{OFFLINE} --set=discount=-0.5", "discount must lie in (0, 1)"),
    (f"{OFFLINE} --set=batch_size=0", "batch_size must be at least 1, got 0"),
    (f"{OFFLINE} --set=batch_size=1.5", "batch_size takes int, not '1.5'"),
    (f"{OFFLINE} --set=batch_size=nan", "batch_size takes int, not 'nan'"),
    (f"{OFFLINE} --set=batch_size=1e309", "batch_size takes int, not '1e309'"),
    (f"{OFFLINE} --set=batch_size=-8", "batch_size must be at least 1, got -8"),
    (f"{OFFLINE} --set=updates=-1", "updates must be at least"),
    (f"{OFFLINE} --set=hidden=0", "hidden must list the widths"),
    (f"{OFFLINE} --set=hidden=", "hidden must list the widths"),
    (f"{OFFLINE} --set=hidden=8,x", "hidden takes a comma-separated list of int, not '8,x'"),
    (f"{OFFLINE} --seeds=0", "--seeds=0"),
    (f"{OFFLINE} --seeds=-1", "--seeds=-1"),
    (f"{OFFLINE} --seeds=nan", "--seeds=nan"),
    (f"{OFFLINE} --seeds=1e309", "--seeds=1e309"),
    (f"{OFFLINE} --seeds=2.5", "--seeds=2.5"),
    (f"{OFFLINE} --first_seed=-1", "--first_seed=-1"),
    (f"{OFFLINE} --first_seed=10000000000", "--first_seed=10000000000"),
    (f"{OFFLINE} --eval_every=-1", "--eval_every=-1"),
    (f"{OFFLINE} --eval_sampled", "policies of td3_bc have no samples: leave out --eval_sampled"),
    (f"{FINETUNE} --eval_every=3", "eval_every must be a multiple of early_stopping.check_every_updates"),
    (f"{OFFLINE} --eval_episodes=nan", "--eval_episodes=nan"),
    (f"{OFFLINE} --devices=0", "--devices=0"),
    (f"{OFFLINE} --devices=1000", "1000 devices can't share 1 seeds evenly: pass --devices=1"),
    (f"{OFFLINE} --devices=7 --seeds=5040", "7 devices asked for"),
    (f"{FINETUNE} --clone_updates=0", "--clone_updates=0"),
    (f"{FINETUNE} --checkpoint_every=0", "--checkpoint_every=0"),
    (f"{FINETUNE} --set=update.discount=nan", "update.discount must be a finite number, got nan"),
    (f"{FINETUNE} --set=constraint.threshold_end=-1", "constraint.threshold_end"),
    (f"{FINETUNE} --set=evaluation.episodes=-1", "evaluation.episodes must be at least 0"),
    (f"{FINETUNE} --set=interaction.warmup_env_steps=-1", "interaction.warmup_env_steps must be"),
    ("diagnose --run=td3_bc --out=new --margin=nan", "--margin", "nan"),
    ("diagnose --run=td3_bc --out=new --margin=inf", "--margin", "inf"),
    ("diagnose --run=td3_bc --out=new --margin=-1", "--margin=-1"),
    ("diagnose --run=td3_bc --out=new --holdout_episodes=0", "--holdout_episodes=0"),
    ("diagnose --run=td3_bc --out=new --holdout_episodes=100000", "100000 cannot be set aside"),
    (f"{DATASET} --transitions=0", "--transitions=0"),
    (f"{DATASET} --transitions=nan", "--transitions=nan"),
    (f"{DATASET} --seed=-1", "--seed=-1"),
    (f"{BEHAVIOUR} --medium=nan", "--medium", "nan"),
    (f"{BEHAVIOUR} --medium=inf", "--medium", "inf"),
    (f"{BEHAVIOUR} --medium=x", "--medium=x"),
    ("play --run=policy --episodes=0", "--episodes=0"),
    ("play --run=policy --seed=-1", "--seed=-1"),
    ("play --run=policy --film_episodes=0", "--film_episodes=0"),
    ("verify --env=mujoco/hopper-random --samples=-1", "--samples=-1"),
    ("export --run=td3_bc --out=new --seed=5", "has the seeds 0 to 1, not 5: choose another --seed"),
    ("demo --seeds=0 --out=new", "--seeds=0"),
    # names
    ("offlin --algorithm=td3_bc", "unknown command 'offlin'. Did you mean 'offline'?"),
    ("nothing", "unknown command 'nothing'"),
    (f"{OFFLINE} --algorithm=td3bc", "unknown offline algorithm 'td3bc'. Did you mean 'td3_bc'?"),
    (f"{OFFLINE} --algorithm=o2td3", "unknown offline algorithm 'o2td3'"),
    (f"{OFFLINE} --algorithm=", "algorithm"),
    (f"{OFFLINE} --algorithm=../td3_bc", "unknown offline algorithm"),
    (f"{FINETUNE} --algorithm=O2TD3", "unknown online algorithm 'O2TD3'. Did you mean 'o2td3'?"),
    (f"{OFFLINE} --env=mujoco/hoper-random", "unknown task 'mujoco/hoper-random'. Did you mean 'mujoco/hopper-random'"),
    (f"{OFFLINE} --env=mujoco/zzz", "unknown task 'mujoco/zzz'"),
    (f"{OFFLINE} --env=mujco/hopper", "unknown environment family 'mujco'. Did you mean 'mujoco'?"),
    (f"{OFFLINE} --env=hopper-random", "unknown environment family 'hopper-random'"),
    (f"{OFFLINE} --env=Hopper-v5", "'Hopper-v5' names no environment family: gymnasium's environments are called gym/"),
    (f"{OFFLINE} --dataset=/", "/ is no Minari dataset, nor any other: pass an .npz file, D4RL's .hdf5 or .h5, or the"),
    (f"{OFFLINE} --env=gym/Nothing-v0", "gymnasium can't make 'Nothing-v0'"),
    (f"{OFFLINE} --env=gym/", "gym/"),
    (f"{OFFLINE} --env=gym/CartPole-v1", "only continuous ones, of a Box, are supported"),
    (f"{OFFLINE} '--env=gym/Hopper-v5?healthy_reward'", "where <argument>=<value> is expected"),
    (f"{OFFLINE} '--env=gym/Hopper-v5?nothing=1'", "gymnasium can't make 'Hopper-v5'", "nothing"),
    (f"{OFFLINE} '--env=gym/Hopper-v5?max_episode_steps=-1'", "max_episode_steps"),
    (f"{OFFLINE} '--env=gym/no_such_module:Hopper-v5'", "no_such_module"),
    ("verify --env=mujoco/hoper-medium", "Did you mean 'mujoco/hopper-medium'?"),
    ("verify --env=mujco --all", "Did you mean 'mujoco'?"),
    ("settings --algorithm=o2tdd3", "unknown algorithm 'o2tdd3'. Did you mean 'o2td3'?"),
    (f"{OFFLINE} --set=aplha=1", "unknown field 'aplha'", "did you mean alpha"),
    (f"{OFFLINE} --set=zzzzzz=1", "unknown field 'zzzzzz'", "docs/settings.md lists all of them"),
    (f"{OFFLINE} --set=alpha", "--set=alpha must read --set=field=value"),
    (f"{OFFLINE} --set==1", "unknown field ''"),
    (f"{OFFLINE} --set={'x' * 2000}=1", "unknown field"),
    (f"{FINETUNE} --set=replay.mode=hlaf", "replay.mode takes", "half"),
    (f"{FINETUNE} --set=replay=1", "replay"),
    (f"{FINETUNE} --set=constraint=none --set=constraint.asymmetry=2", "constraint"),
    (f"{FINETUNE} --schedule=papre", "--schedule=papre", "paper"),
    ("play --run=policy --compare=bets", "unknown policy 'bets'. Did you mean 'best'?"),
    ("play --run=policy --compare=", "compare"),
    ("play --run=td3_bc --compare=lowest", "is an offline run, which has no lowest policy"),
    ("play --run=bare", "the policy knows no environment: pass --env"),
    ("play --run=policy --env=mujoco/walker2d", "choose an --env with as many"),
    ("export --run=policy --out=new --which=wrost", "--which=wrost", "lowest"),
    ("export --run=policy --out=new --which=last", "holds one policy, not the last one"),
    ("export --run=policy --out=new --format=torch", "--format=torch", "onnx"),
    ("export --run=policy --out=new --env=mujoco/walker2d", "name a task that fits"),
    (f"{BEHAVIOUR} --algorithm=ddpg", "--algorithm=ddpg", "ppo"),
    (f"{OFFLINE} --log_to=tensorbord", "unknown sink 'tensorbord'. Did you mean 'tensorboard'?"),
    ("report --runs=o2td3 --out=new.png --scores=episodes", "--scores=episodes", "evaluation"),
    ("report --runs=o2td3 --out=new.png --x=steps", "--x=steps", "training"),
    # flags that are unknown, missing or in conflict
    (f"{OFFLINE} --sedes=2", "Unknown command line flag 'sedes'. Did you mean: seeds"),
    (OFFLINE.replace("--out=new", "--out=~nobodys/new"), "--out=~nobodys/new: there is no such user"),
    (f"{OFFLINE} --lr=1e-3", "a setting of the algorithm is --set=lr=…"),
    (f"{OFFLINE} seeds=2", "unexpected argument 'seeds=2': flags are written --name=value"),
    (f"{OFFLINE} seeds", "unexpected argument 'seeds'"),
    ("study transfer --study=paper/table2", "'transfer' and --study=paper/table2 both name the study: leave"),
    ("offline stray --algorithm=td3_bc", "unexpected argument 'stray': flags are written --name=value"),
    ("offline --algorithm td3_bc --resume stray", "unexpected argument 'stray'"),
    ("offline --algorithm=td3_bc --out=new -- --resume", "unexpected argument '--resume'"),
    ("offline —algorithm=td3_bc --out=new", "'—algorithm=td3_bc': it begins with a dash that is none of --, write"),
    (f"{OFFLINE} –seeds=2", "unexpected argument '–seeds=2': it begins with a dash", "write --seeds=2"),
    (f"{OFFLINE} -–seeds 2", "unexpected argument '-–seeds'", "write --seeds"),
    (f"{OFFLINE} −−seeds=2", "unexpected argument '−−seeds=2'", "write --seeds=2"),
    (f"{OFFLINE} --flagfile=/dev/zero", "Unknown command line flag 'flagfile'"),
    (f"{OFFLINE} --seeds=0,1,2", "it takes one whole number, how many seeds train", "from --first_seed on"),
    (f"{BEHAVIOUR} --medium=40,50", "it takes one number, normalized score wanted"),
    ("offline --algorithm=td3_bc --env=mujoco/hopper-random", "--out=… is missing"),
    ("offline --env=mujoco/hopper-random --out=new", "--algorithm=… is missing"),
    ("offline --algorithm=td3_bc --out=new", "pass --env, a task, or --dataset, its data, or both"),
    ("offline --algorithm=td3_bc --out=new --env=mujoco/hopper", "names no dataset: choose mujoco/hopper-random"),
    ("finetune --algorithm=o2td3 --out=new", "--policy=… is missing"),
    ("report --out=new.png", "--runs=… is missing"),
    ("report --runs= --out=new.png", "runs"),
    ("report --runs=o2td3 --labels=a,b --out=new.png", "--labels names 2 runs, but --runs has 1"),
    (f"report --runs=o2td3 --labels={'x' * 81} --out=new.png", "has 81 characters", "shorten it in --labels"),
    ("report --runs=o2td3 --out=new.gif", "must be a figure, a path that ends in .png, .pdf, .svg"),
    ("report --runs=td3_bc --out=new.png", "is a run of experiments.offline".replace("experiments.", "o2o ")),
    ("report --runs=o2td3+o2td3 --out=new.png", "both have the seed 0: join runs of other seeds"),
    ("report --runs=o2td3,o2td3 --out=new.png", "two runs are called o2td3", "--labels"),
    ("report --runs=o2td3,o2td3 --labels=a,a --out=new.png", "two runs are called a", "--labels"),
    ("report --runs=o2td3+td3_bc --out=new.png", "is a run of o2o offline"),
    ("diagnose --run=td3_bc --set=update.discount=0.9", "--set changes settings of --algorithm, which is missing"),
    ("diagnose --run=o2td3 --algorithm=o2td3", "leave --algorithm out"),
    ("diagnose --run=policy", "holds no run"),
    ("dataset", "--env=… is missing"),
    ("dataset --all --out=o2o/x-v0", "--out and --policy go with one task"),
    ("dataset --all --env=mujoco/hopper-medium", "--all takes a family"),
    (f"{DATASET} --out=o2o/new", "'o2o/new' is no Minari id"),
    (f"{DATASET} --out=../../new-v0", "is no Minari id"),
    ("dataset --env=mujoco/hopper-random", "exists at", "pass --overwrite to replace it, or another --out"),
    ("dataset --env=mujoco/hopper-random --policy=none.npz", "--policy needs --out"),
    (f"{DATASET} --policy=none.npz", "no behaviour policy 'none.npz'"),
    ("verify", "--env=… is missing"),
    ("verify --env=mujoco/hopper", "names no dataset"),
    ("verify --env=mujoco/hopper-medium", "no dataset o2o/hopper/medium-v0", "make one here"),
    (f"{BEHAVIOUR} --choose", "new holds no run"),
    (f"{BEHAVIOUR} --set=evaluation.episodes=0", "evaluation.episodes must be at least 1"),
    (f"{FINETUNE} --seeds=5", "has the seeds 0 to 1, not the seeds 0 to 4"),
    (f"{FINETUNE} --first_seed=7", "has the seeds 0 to 1, not the seed 7"),
    (f"{FINETUNE} --algorithm=iql", "iql"),
    (f"{FINETUNE} --env=mujoco/walker2d", "is of 11 observations and 3 actions, but mujoco/walker2d has 17"),
    (f"{FINETUNE} --set=networks.hidden=16", "set networks.hidden to (8,)"),
    # folders and files
    (OFFLINE.replace("--out=new", "--out=td3_bc"), "already holds a run: choose another --out, or resume it"),
    (OFFLINE.replace("--out=new", "--out=td3_bc") + " --resume --seeds=2", "has other settings"),
    (OFFLINE.replace("--out=new", "--out=o2td3") + " --resume", "has other settings"),
    (OFFLINE.replace("--out=new", "--out=td3_bc/offline.csv"), "offline.csv is not an empty folder"),
    (OFFLINE.replace("--out=new", "--out=td3_bc/offline.csv/x"), "offline.csv"),
    (OFFLINE.replace("--out=new", "--out=minari"), "minari is not an empty folder"),
    (OFFLINE.replace("--out=new", "--out=s3://bucket/x"), "s3://bucket/x is a URL: give a local path, and download"),
    (f"{OFFLINE} --dataset=https://a.b/c.npz", "https://a.b/c.npz is a URL: give a local path, and download"),
    (f"{FINETUNE} --policy=hf://a/b", "hf://a/b is a URL"),
    ("report --runs=o2td3,gs://a/b --out=new.png", "gs://a/b is a URL"),
    ("report --runs=o2td3+gs://a/b --out=new.png", "gs://a/b is a URL"),
    ("report '--runs=zzz*' --out=new.png", "no path matches zzz*"),
    (f"{FINETUNE} --config=/dev/zero", "/dev/zero is a pipe, a socket or a device: pass a file"),
    (f"{FINETUNE} --policy=/dev/zero", "/dev/zero holds no run"),
    (f"{OFFLINE} --dataset=/dev/zero", "'/dev/zero' is neither a file, nor a folder"),
    (OFFLINE.replace("--out=new", "--out='new[1]'"), "has one of * ? [ ] in its path"),
    (OFFLINE.replace("--out=new", "--out="), "--out"),
    (OFFLINE.replace("--out=new", f"--out={'x' * 300}"), "xxx"),
    (OFFLINE.replace("--out=new", "--out=/dev/null/new"), "/dev/null"),
    (OFFLINE.replace("--out=new", "--out='new\udcff'"), "is no text in UTF-8: choose a name"),
    (f"{OFFLINE} --dataset='\udcff.npz'", "is no text in UTF-8: choose a name"),
    ("export --run=policy --out=/dev/null/new", "the folder /dev/null can't be made"),
    ("report --runs=o2td3 --out=/dev/null/new/new.png", "the folder /dev/null/new can't be made"),
    (f"{FINETUNE} --policy=nowhere", "nowhere holds no run"),
    (f"{FINETUNE} --policy=~/nowhere", "/nowhere holds no run"),
    (f"{FINETUNE} --policy=td3_bc/offline.csv", "offline.csv holds no run", "pass the run's own folder, td3_bc"),
    (f"{FINETUNE} --policy=td3_bc/checkpoints/12", "12 holds no run", "pass the run's own folder, td3_bc"),
    (f"{FINETUNE} --policy=.", ". holds no run", "pass one of the runs in it: o2td3, td3_bc"),
    (f"{FINETUNE} --policy={__file__}", "holds no run", "what another library trained by o2o_jax.clone"),
    (f"{FINETUNE} --policy=o2td3", "o2td3 holds no offline run: pass the --out of o2o offline"),
    (f"{FINETUNE} --policy=minari", "minari holds no run"),
    (f"{FINETUNE} --policy=bare", "was trained without an environment: pass --env"),
    (f"{FINETUNE} --reconstruction=nowhere", "nowhere holds no run"),
    (f"{FINETUNE} --reconstruction=td3_bc", "td3_bc holds no fine-tuning run: pass the --out of o2o finetune"),
    (f"{FINETUNE} --reconstruction=o2td3", "has other settings", "or leave --reconstruction out"),
    (f"{FINETUNE} --reconstruction=policy", "policy holds no run"),
    (f"{FINETUNE} --config=nowhere", "--config=nowhere does not exist"),
    (f"{FINETUNE} --config=td3_bc", "has settings of td3_bc, not of o2td3"),
    (f"{FINETUNE} --config=minari", "minari", "does not exist"),
    (f"{FINETUNE} --config=o2td3 --schedule=fast", "is of the schedule paper: pass --schedule=paper"),
    (f"{FINETUNE} --config=o2td3/start.csv", "start.csv is damaged"),
    (f"{FINETUNE} --dataset=o2o/nothing-v0", "no dataset o2o/nothing-v0", "make one here"),
    (f"{OFFLINE} --dataset=nowhere.npz", "no file nowhere.npz"),
    (f"{OFFLINE} --dataset=minari", "minari is no Minari dataset, nor any other", "metadata.json"),
    (f"{OFFLINE} --dataset=td3_bc/offline.csv", "offline.csv"),
    ("play --run=nowhere", "nowhere holds no run"),
    ("play --run=policy --video=film.gif", "a film is an .mp4 file, got film.gif: name it film.mp4"),
    ("play --run=policy --video=no/film.mp4", "no does not exist: make this folder first"),
    ("export --run=policy --out=td3_bc", "td3_bc already exists: choose another folder"),
    ("export --run=nowhere --out=new", "nowhere holds no run"),
    ("report --runs=nowhere --out=new.png", "nowhere"),
    ("report --runs=o2td3 --out=o2td3/evaluation.csv", "must be a figure"),
    ("report --runs=o2td3 --out=o2td3/evaluation.csv/new.png", "evaluation.csv"),
    ("diagnose --run=td3_bc --out=o2td3", "o2td3 already holds a run"),
    ("diagnose --run=td3_bc --out=minari", "minari is not an empty folder"),
    ("diagnose --run=td3_bc --out=new --holdout_dataset=none.npz", "no file none.npz"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "words"), [(line, words) for line, *words in COMMAND_LINES])
def test_command_lines(line, words, here, capsys):
    refusals.refuse(capsys, line, *words)


ROWS, HOPPER = 6, (11, 3)
RANDOM = np.random.default_rng(0)
COLUMNS = {
    "observations": RANDOM.normal(size=(ROWS, 11)),
    "actions": RANDOM.uniform(-1, 1, (ROWS, 3)),
    "rewards": RANDOM.normal(size=ROWS),
    "terminations": np.arange(ROWS) == 2,
    "truncations": np.arange(ROWS) == ROWS - 1,
    "next_observations": RANDOM.normal(size=(ROWS, 11)),
}
OF_D4RL = {"terminations": "terminals", "truncations": "timeouts"}


def changed(without=(), **changes):
    return {key: value for key, value in (COLUMNS | changes).items() if key not in without}


def with_number(key, number):
    column = np.array(COLUMNS[key], float)
    column[3] = number
    return {key: column}


# what is wrong with the columns of a flat file, and what the message must hold
DATASETS = {
    "nan observation": (
        changed(**with_number("observations", np.nan)), "NaN or infinity in 1 of 6 rows of observation",
    ),
    "nan next observation": (changed(**with_number("next_observations", np.nan)), "rows of next_observation"),
    "large observation": (
        changed(**with_number("observations", -1e38)), "observation as large as 1e+38, first in row ", "a smaller unit",
    ),
    "infinite reward": (changed(**with_number("rewards", np.inf)), "NaN or infinity in 1 of 6 rows of reward"),
    "reward beyond float32": (changed(**with_number("rewards", 1e300)), "NaN or infinity in 1 of 6 rows of reward"),
    "nan action": (changed(**with_number("actions", np.nan)), "NaN or infinity in 1 of 6 rows of action"),
    "wide actions": (
        changed(**with_number("actions", 1.5)),
        "actions outside [-1, 1], the farthest 1.5", "rescale them", "--clip_actions",
    ),
    "padded": (
        changed(**{key: value.reshape(2, 3, *value.shape[1:]) for key, value in COLUMNS.items()}),
        "observations have shape (2, 3, 11)", "episodes", "padd",
    ),
    "padded rewards": (changed(rewards=np.zeros((2, 3))), "rewards have shape (2, 3)", "expected (rows,)"),
    "column of rewards": (changed(rewards=np.zeros((ROWS, 1))), "rewards have shape (6, 1), expected (rows,): reshape"),
    "flat observations": (
        changed(observations=np.zeros(ROWS)), "observations have shape (6,), expected (rows, numbers)",
    ),
    "images": (changed(observations=np.zeros((ROWS, 8, 8, 3), np.uint8)), "observations", "images"),
    "counts": (changed(observations=np.zeros((ROWS, 11), int)), "observations are of type int64"),
    "text": (changed(rewards=np.array(["a"] * ROWS)), "rewards must be one array of numbers"),
    "complex": (changed(rewards=np.zeros(ROWS, complex)), "rewards must be one array of numbers"),
    "discrete actions": (changed(actions=np.zeros((ROWS, 1), int)), "discrete actions are not supported"),
    "short rewards": (changed(rewards=np.zeros(ROWS - 1)), "columns differ in length"),
    "other robot": (
        changed(observations=np.zeros((ROWS, 17)), next_observations=np.zeros((ROWS, 17))),
        "(6, 17), expected (6, 11)", "choose the --env",
    ),
    "next observations of another size": (
        changed(next_observations=np.zeros((ROWS, 5))), "observations differ in size",
    ),
    "flags of three values": (changed(terminations=np.arange(ROWS)), "must be True or False"),
    "no rewards": (changed(["rewards"]), "lacks 'rewards'", "call its arrays, with a row per step, observations"),
    "no ends": (
        changed(["next_observations"], terminations=np.zeros(ROWS, bool), truncations=np.zeros(ROWS, bool)),
        "nothing says which row follows which",
    ),
    "no timeouts": (changed(["truncations"]), "lacks"),
    "scalar": (changed(rewards=np.array(1.0)), "rewards have shape ()"),
    "every row cut": (
        changed(["next_observations"], terminations=np.zeros(ROWS, bool), truncations=np.ones(ROWS, bool)),
        "every row is the last of an episode that was cut: add next_observations",
    ),
    "empty": ({key: value[:0] for key, value in COLUMNS.items()}, "is empty"),
}  # fmt: skip


def write_npz(path, columns):
    np.savez(path, **columns)


def write_hdf5(path, columns):
    with h5py.File(path, "w") as file:
        for key, column in columns.items():
            text = column.dtype.kind == "U"
            file[OF_D4RL.get(key, key)] = column.astype(object) if text else column


@pytest.mark.parametrize("write", [write_npz, write_hdf5], ids=["npz", "hdf5"])
@pytest.mark.parametrize("name", DATASETS)
def test_flat_datasets(name, write, here, tmp_path, capsys):
    columns, *words = DATASETS[name]
    path = tmp_path / f"data.{'npz' if write is write_npz else 'hdf5'}"
    write(path, columns)
    refusals.refuse(capsys, f"{OFFLINE} --dataset={path}", str(path), *words)


def write(content):
    return lambda path: path.write_bytes(content)


def link_to_nothing(path):
    with h5py.File(path, "w") as file:
        for key, column in COLUMNS.items():
            file[OF_D4RL.get(key, key)] = column
        del file["rewards"]
        file["rewards"] = h5py.ExternalLink("nowhere.hdf5", "/rewards")


def groups_of_episodes(path):
    with h5py.File(path, "w") as file:
        for key, column in COLUMNS.items():
            file[f"data/demo_0/{key}"] = column


FILES = {
    "pipe.npz": (os.mkfifo, "no file", "pipe.npz"),
    "pipe.h5": (os.mkfifo, "no file", "pipe.h5"),
    "groups.hdf5": (groups_of_episodes, "lacks 'observations'; it has data: call its arrays"),
    "nothing.npz": (write(b""), "nothing.npz"),
    "bytes.npz": (write(bytes(range(256))), "bytes.npz is damaged or no npz file"),
    "zip.npz": (write(b"PK\x03\x04" + bytes(100)), "zip.npz is damaged or no npz file"),
    "bytes.hdf5": (write(bytes(range(256))), "bytes.hdf5 is damaged or no HDF5 file"),
    "bytes.h5": (write(b""), "bytes.h5 is damaged or no HDF5 file"),
    "data.pkl": (write(b"\x80\x04."), "data.pkl", ".npz", ".hdf5"),
    "data.csv": (write(b"1,2\n"), "data.csv", ".npz", ".hdf5"),
    "frame.png": (write(b"\x89PNG"), "frame.png", ".npz", ".hdf5"),
    "folder.npz": (lambda path: path.mkdir(), "folder.npz"),
    "link.hdf5": (link_to_nothing, "rewards is a link that leads nowhere"),
    "folder.hdf5": (lambda path: path.mkdir(), "folder.hdf5"),
    "objects.npz": (
        lambda path: np.savez(path, **COLUMNS | {"rewards": np.array([None] * ROWS, object)}),
        "objects.npz: rewards is an array of Python objects, not of numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_datasets(name, here, tmp_path, capsys):
    make, *words = FILES[name]
    make(tmp_path / name)
    for command in (OFFLINE, FREE):
        refusals.refuse(capsys, f"{command} --dataset={tmp_path / name}", *words)


def of_file(change):
    """Changes the HDF5 file of a Minari dataset."""

    def change_file(folder):
        with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
            change(file)

    return change_file


def replace(key, value):
    def change(file):
        del file[key]
        if value is not None:
            file[key] = value

    return of_file(change)


def says(**values):
    """Changes the metadata of a Minari dataset."""

    def change(folder):
        path = folder / "data" / "metadata.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def text(name, content):
    return lambda folder: (folder / "data" / name).write_bytes(content)


def columns_of_rewards(file):
    for episode in file.values():
        rewards = episode["rewards"][()]
        del episode["rewards"]
        episode["rewards"] = rewards[:, None]


def nan_reward(file):
    file["episode_0/rewards"][0] = np.nan


def wide_action(file):
    file["episode_0/actions"][0] = 1.5


def no_episodes(file):
    for key in list(file):
        del file[key]


MINARI = {
    "no rewards": (replace("episode_0/rewards", None), "episode 0", "lacks 'rewards'"),
    "columns of rewards": (of_file(columns_of_rewards), "rewards", "1)"),
    "nan": (of_file(nan_reward), "NaN or infinity in 1 of 200 rows of reward"),
    "wide actions": (of_file(wide_action), "actions outside [-1, 1]", "rescale them", "--clip_actions"),
    "text": (replace("episode_0/rewards", "much"), "rewards"),
    "texts": (replace("episode_0/rewards", ["a", "b"]), "rewards"),
    "a number": (replace("episode_0/rewards", 1.0), "rewards"),
    "images": (replace("episode_0/observations", np.zeros((9, 4, 4, 3), np.uint8)), "observations"),
    "flat": (replace("episode_0/observations", np.zeros(9)), "observations"),
    "of other sizes": (replace("episode_0/observations", np.zeros((9, 4))), "observations"),
    "not a group": (replace("episode_0", np.zeros(3)), "episode 0"),
    "no episodes": (of_file(no_episodes), "0 episodes where its metadata counts"),
    "no file": (lambda folder: (folder / "data" / "main_data.hdf5").unlink(), "no file", "main_data.hdf5"),
    "half a file": (text("main_data.hdf5", b"\x89HDF\r\n\x1a\n" + bytes(50)), "main_data.hdf5 is damaged"),
    "no metadata": (lambda folder: (folder / "data" / "metadata.json").unlink(), "metadata.json"),
    "empty metadata": (text("metadata.json", b""), "metadata.json is damaged"),
    "half of the metadata": (text("metadata.json", b'{"total_ep'), "metadata.json is damaged"),
    "metadata of bytes": (text("metadata.json", b"\xff\xfe\x00"), "metadata.json is damaged"),
    "metadata as a list": (text("metadata.json", b"[]"), "metadata.json"),
    "another format": (says(data_format="arrow"), "arrow"),
    "counts as text": (says(total_episodes="many"), "many"),
    "an environment as a number": (says(env_spec=3), "metadata.json", "env_spec"),
    "an environment that is no JSON": (says(env_spec="{"), "metadata.json", "env_spec"),
    "an environment without an id": (says(env_spec='{"kwargs": {}}'), "metadata.json", "env_spec"),
    "another environment": (
        says(env_spec=json.dumps({"id": "Walker2d-v5"})), "recorded in Walker2d-v5", "choose the --env",
    ),
    "an action space as a number": (says(action_space=3), "metadata.json", "action_space"),
    "discrete actions": (says(action_space=json.dumps({"type": "Discrete"})), "Discrete actions"),
    "bounds of text": (says(action_space=json.dumps({"type": "Box", "low": "a"})), "metadata.json", "action_space"),
    "bounds without a width": (
        says(action_space=json.dumps({"type": "Box", "low": [1, 1, 1], "high": [1, 1, 1]})),
        "says that its actions lie between",
    ),
    "bounds of another number": (
        says(action_space=json.dumps({"type": "Box", "low": [-2, -2], "high": [2, 2]})),
        "action_space",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MINARI)
def test_minari_datasets(name, here, tmp_path, capsys):
    change, *words = MINARI[name]
    folder = tmp_path / "data-v0"
    shutil.copytree(here / "minari" / "o2o" / "hopper" / "random-v0", folder)
    change(folder)
    refusals.refuse(capsys, f"{OFFLINE} --dataset={folder}", *words)


def setting(path, value):
    """Changes a value of a run's config.json, by its path; None takes it out."""

    def change(folder):
        file = folder / "config.json"
        content = json.loads(file.read_text())
        *above, name = path.split(".")
        inner = content
        for part in above:
            inner = inner[part]
        if value is None:
            del inner[name]
        else:
            inner[name] = value
        file.write_text(json.dumps(content))

    return change


def file_of(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def checkpoint(change):
    """Changes the metadata of a run's newest checkpoint."""

    def change_metadata(folder):
        (path,) = (folder / "checkpoints").glob("*/meta/metadata")
        content = change(path.read_bytes())
        path.unlink() if content is None else path.write_bytes(content)

    return change_metadata


def in_checkpoint(**values):
    return checkpoint(lambda content: json.dumps(json.loads(content) | values).encode())


def renamed_checkpoint(folder):
    shutil.copytree(folder / "checkpoints" / "12", folder / "checkpoints" / "99")


def without_checkpoint(folder):
    shutil.rmtree(folder / "checkpoints")


def cut_arrays(folder):
    for path in (folder / "checkpoints").glob("*/state/**/*"):
        if path.is_file() and path.stat().st_size > 1_000:
            path.write_bytes(path.read_bytes()[:200])


START = FINETUNE.replace("--policy=td3_bc", "--policy={}")
REPORT = "report --runs={} --out=new.png"
EXPORT = "export --run={} --out=new"
RUNS = {
    "config: empty": ("td3_bc", file_of("config.json", b""), START, "config.json is damaged"),
    "config: half written": ("td3_bc", file_of("config.json", b'{"script": "off'), START, "config.json is damaged"),
    "config: bytes": ("td3_bc", file_of("config.json", b"\xff\xfe{}"), START, "config.json is damaged"),
    "config: a list": ("td3_bc", file_of("config.json", b"[1]"), START, "config.json"),
    "config: nothing in it": ("td3_bc", file_of("config.json", b"{}"), START, "holds no offline run"),
    "config: deep": ("td3_bc", file_of("config.json", b"[" * 100_000), START, "config.json is damaged"),
    "config: a folder": (
        "td3_bc", lambda folder: ((folder / "config.json").unlink(), (folder / "config.json").mkdir()), START,
        "holds no run",
    ),
    "config: sizes of another kind": ("td3_bc", setting("spec.observation_dim", []), START, "config.json", "damaged"),
    "config: seeds as text": ("td3_bc", setting("seeds", "two"), START, "config.json", "seeds"),
    "config: seeds below 1": ("td3_bc", setting("seeds", 0), START, "config.json", "seeds"),
    "config: no seeds": ("td3_bc", setting("seeds", None), START, "config.json", "seeds"),
    "config: no algorithm": ("td3_bc", setting("algorithm", None), START, "config.json", "algorithm"),
    "config: algorithm as a number": ("td3_bc", setting("algorithm", 3), START, "config.json", "algorithm"),
    "config: an unknown algorithm": ("td3_bc", setting("algorithm", "td4_bc"), START, "unknown", "td4_bc"),
    "config: settings as a list": ("td3_bc", setting("config", [1]), START, "config.json", "config"),
    "config: no settings": ("td3_bc", setting("config", None), START, "config.json", "config"),
    "config: a setting of another version": (
        "td3_bc", setting("config.forgotten", 1), START, "another version", "forgotten",
    ),
    "config: a setting of another type": ("td3_bc", setting("config.alpha", "much"), START, "alpha must be", "much"),
    "config: a setting that is refused": (
        "td3_bc", setting("config.discount", 7), START, "discount must lie in (0, 1)",
    ),
    "config: other settings than its checkpoint's": (
        "td3_bc", setting("config.alpha", 1.0), START, "has other settings",
    ),
    "config: task as text": ("td3_bc", setting("task", "hopper"), EXPORT, "config.json", "task"),
    "config: half a task": ("td3_bc", setting("task.spec", None), EXPORT, "config.json", "task"),
    "config: an unknown environment": ("td3_bc", setting("env", "mujoco/zzz"), START, "unknown task 'mujoco/zzz'"),
    "config: an environment as a number": ("td3_bc", setting("env", 3), START, "config.json", "env"),
    "config: a module to import": (
        "td3_bc", setting("env", "gym/evil:Hopper-v5"), START, "would import the module evil",
    ),
    "config: data that is gone": ("td3_bc", setting("dataset", "gone.npz"), START, "has other settings: dataset is"),
    "config: seeds that its checkpoint hasn't": (
        "td3_bc", setting("seeds", 5), f"{START} --seeds=5", "seeds is 2 there and 5 now. Bring back the run's own",
    ),
    "config: data as a number": ("td3_bc", setting("dataset", 3), START, "config.json", "dataset"),
    "config: of reports": ("o2td3", file_of("config.json", b"[1]"), REPORT, "config.json"),
    "config: steps as text": (
        "o2td3", setting("config.env_steps", "x"), REPORT, "config.json",
    ),
    "config: scores as text": (
        "o2td3", setting("task.expert_score", "x"), EXPORT, "config.json", "expert_score",
    ),
    "config: no source": ("o2td3", setting("source", None), "diagnose --run={} --out=new", "source.algorithm is"),
    "config: of diagnose": ("td3_bc", file_of("config.json", b"3"), "diagnose --run={} --out=new", "config.json"),
    "config: of --config": ("o2td3", file_of("config.json", b"\xff"), FINETUNE + " --config={}", "config.json"),
    "config: of --config, deep": (
        "o2td3", file_of("config.json", b"[" * 100_000), FINETUNE + " --config={}", "config.json",
    ),
    "config: of --config, a wrong type": (
        "o2td3", setting("config.update", 3), FINETUNE + " --schedule=paper --config={}", "config.json", "update",
    ),
    "config: of --reconstruction": (
        "o2td3", setting("config.align", "x"), FINETUNE + " --reconstruction={}", "align",
    ),
    "config: of --choose": ("o2td3", file_of("config.json", b"[]"), "behaviour --choose --out={}", "config.json"),
    "config: no env for --choose": ("o2td3", setting("env", None), "behaviour --choose --out={}", "config.json", "env"),
    "config: of --resume": (
        "td3_bc", file_of("config.json", b"{"), OFFLINE.replace("--out=new", "--out={}") + " --resume", "config.json",
    ),
    "checkpoint: one under another name": (
        "td3_bc", renamed_checkpoint, START, "(it is the one of step 12, under another name)", "move it aside",
    ),
    "checkpoint: gone": ("td3_bc", without_checkpoint, START, "is not finished: 0 of 12 updates are saved"),
    "checkpoint: no metadata": ("td3_bc", checkpoint(lambda content: None), START, "the checkpoint", "is damaged"),
    "checkpoint: empty metadata": ("td3_bc", checkpoint(lambda content: b""), START, "the checkpoint", "is damaged"),
    "checkpoint: half of its metadata": (
        "td3_bc", checkpoint(lambda content: content[: len(content) // 2]), START, "the checkpoint", "is damaged",
    ),
    "checkpoint: metadata of bytes": ("td3_bc", checkpoint(lambda content: b"\xff\xfe"), START, "the checkpoint"),
    "checkpoint: metadata as a list": ("td3_bc", checkpoint(lambda content: b"[]"), START, "the checkpoint"),
    "checkpoint: metadata without anything": ("td3_bc", checkpoint(lambda content: b"{}"), START, "the checkpoint"),
    "checkpoint: settings as a number": ("td3_bc", in_checkpoint(config=3), START, "the checkpoint"),
    "checkpoint: layout as a list": ("td3_bc", in_checkpoint(layout=[1]), START, "the checkpoint"),
    "checkpoint: layout of numbers": ("td3_bc", in_checkpoint(layout={"agent": 3}), START, "the checkpoint"),
    "checkpoint: a layout of nothing": ("td3_bc", in_checkpoint(layout={}), START, "does not fit this state"),
    "checkpoint: a strange layout": (
        "o2td3", in_checkpoint(layout={"episodes.x": "float99[a]"}), EXPORT, "the checkpoint",
    ),
    "checkpoint: cut arrays": ("td3_bc", cut_arrays, START, "the checkpoint", "is damaged"),
    "log: empty": ("o2td3", file_of("evaluation.csv", b""), REPORT, "evaluation.csv"),
    "log: text": (
        "o2td3", file_of("evaluation.csv", b"step,seed,score\n1,0,good\n"), REPORT,
        "evaluation.csv is not a metrics file", "good",
    ),
    "log: steps of text": (
        "o2td3", file_of("evaluation.csv", b"step,seed,score\nx,0,1\n"), REPORT,
        "evaluation.csv is not a metrics file",
    ),
    "log: infinite steps": (
        "o2td3", file_of("evaluation.csv", b"step,seed,score\ninf,0,1\n"), REPORT,
        "evaluation.csv is not a metrics file",
    ),
    "log: bytes": (
        "o2td3", file_of("evaluation.csv", b"step,seed,score\n\xff\xfe,0,1\n"), REPORT,
        "evaluation.csv",
    ),
    "log: other columns": (
        "o2td3", file_of("evaluation.csv", b"a,b\n1,2\n"), REPORT,
        "evaluation.csv is not a metrics file: expected the columns step, seed",
    ),
    "log: no scores": (
        "o2td3", file_of("evaluation.csv", b"step,seed,x\n1,0,1\n"), REPORT,
        "has no column 'score'",
    ),
    "log: a start without its seeds": (
        "o2td3", file_of("start.csv", b"step,seed,offline_score\n0,0,x\n"), REPORT, "start.csv",
    ),
    "log: a pipe": (
        "o2td3", lambda folder: ((folder / "start.csv").unlink(), os.mkfifo(folder / "start.csv")), REPORT,
        "start.csv is a pipe, a socket or a device: pass a file, into which you copy what it gives",
    ),
    "provenance: half written": (
        "td3_bc", file_of("provenance.jsonl", b'{"command'), START, "provenance.jsonl is damaged",
    ),
    "provenance: bytes": ("td3_bc", file_of("provenance.jsonl", b"\xff\xfe"), START, "provenance.jsonl"),
    "provenance: a number": ("td3_bc", file_of("provenance.jsonl", b"3\n"), START, "provenance.jsonl"),
    "policy: empty": ("policy", file_of("policy.json", b""), START, "policy.json is damaged"),
    "policy: deep": ("policy", file_of("policy.json", b"[" * 100_000), START, "policy.json is damaged"),
    "policy: a list": ("policy", file_of("policy.json", b"[]"), START, "policy.json is damaged"),
    "policy: no arrays": ("policy", lambda folder: (folder / "arrays.npz").unlink(), START, "lacks arrays.npz"),
    "policy: bytes": ("policy", file_of("arrays.npz", b"\xff" * 50), "play --run={}", "arrays.npz is damaged"),
    "policy: other arrays": (
        "policy", lambda folder: np.savez(folder / "arrays.npz", x=1), EXPORT, "doesn't have the arrays",
    ),
    "policy: parameters of another run": (
        "policy", lambda folder: shutil.copy("bare/policy.json", folder), START, "save the policy again",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_runs_and_policies(name, here, tmp_path, capsys):
    original, change, line, *words = RUNS[name]
    shutil.copytree(here / original, tmp_path / original)
    change(tmp_path / original)
    before = refusals.contents(tmp_path)
    refusals.refuse(capsys, line.format(tmp_path / original), *words)
    assert refusals.contents(tmp_path) == before


def test_there_are_many():
    assert len(COMMAND_LINES) + len(DATASETS) + len(FILES) + len(MINARI) + len(RUNS) >= 150


def test_data_of_a_run_are_looked_for_where_it_was_started(here, tmp_path, capsys, monkeypatch):
    write_npz(tmp_path / "mine.npz", COLUMNS)
    run = tmp_path / "run"
    with monkeypatch.context() as there:
        there.chdir(tmp_path)
        tiny.call(offline, "--algorithm=td3_bc", "--dataset=mine.npz", "--out=run", "--set=updates=1", *tiny.SETTINGS)
    words = f"no file mine.npz in {here}; {run} was trained on it", "say where it is now with --dataset"
    refusals.refuse(capsys, FINETUNE.replace("td3_bc", f"{run} --env={tiny.ENV}"), *words)
    refusals.refuse(capsys, f"diagnose --run={run} --out=new", *words)
