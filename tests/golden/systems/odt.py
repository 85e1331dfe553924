"""Online DT, by the authors' code (github.com/facebookresearch/online-dt): updates, acting, histories, its buffer."""

import contextlib
import random
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np

OBSERVATIONS, ACTIONS, ROWS, CONTEXT, EVAL_CONTEXT, WIDTH, LAYERS, HEADS = 5, 3, 32, 4, 3, 16, 2, 2
RATE, WARMUP, DECAY, TEMPERATURE, TEMPERATURE_RATE, SCALE = 0.01, 2, 0.01, 0.1, 0.01, 0.1
STEPS, ASKED = 6, 20.0
STUBS = ("d4rl", "gym", "stable_baselines3", "stable_baselines3.common", "stable_baselines3.common.vec_env", "logger",
         "torch.utils.tensorboard")  # fmt: skip


def record(recording: Any) -> None:
    """Records the phases `update`, `padded`, `act`, `histories` and `queue`."""
    sys.path.insert(0, str(recording.checkout))
    for name in STUBS:  # its main file asks for them, its updates don't
        sys.modules.setdefault(name, mock.MagicMock())
    import main
    import torch
    from decision_transformer.models.decision_transformer import DecisionTransformer

    torch.set_default_dtype(torch.float32)
    model = DecisionTransformer(
        state_dim=OBSERVATIONS,
        act_dim=ACTIONS,
        action_range=[-1 + 1e-6, 1 - 1e-6],
        max_length=CONTEXT,
        eval_context_length=EVAL_CONTEXT,
        max_ep_len=1000,
        hidden_size=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        n_inner=4 * WIDTH,
        activation_function="relu",
        n_positions=1024,
        resid_pdrop=0.0,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        stochastic_policy=True,
        ordering=0,
        init_temperature=TEMPERATURE,
        target_entropy=-ACTIONS,
    )
    names = [name for name, value in model.named_parameters() if _learns(name)]
    shapes = {name: _layout(name, dict(model.named_parameters())[name]).shape for name in names}
    gains = [name for name, shape in shapes.items() if len(shape) == 1 and name.endswith("weight")]
    weights = recording.weights("actor", shapes, gains)
    for phase in ("update", "padded"):
        _load(model, weights)
        _record_updates(recording, phase, model, main)
    _load(model, weights)
    _record_acting(recording, model)
    _record_histories(recording)
    _record_queue(recording)


def _record_updates(recording: Any, phase: str, model: Any, main: Any) -> None:
    """Records three updates; where histories are padded the entropy weighs nothing, since padding is in its mean."""
    import torch
    from lamb import Lamb
    from trainer import SequenceTrainer

    padded = phase == "padded"
    start = 1e-12 if padded else TEMPERATURE
    model.log_temperature = torch.tensor(np.log(start), dtype=torch.float32, requires_grad=True)
    optimizer = Lamb(model.parameters(), lr=RATE, weight_decay=DECAY, eps=1e-8)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda steps: min((steps + 1) / WARMUP, 1))
    temperature_optimizer = torch.optim.Adam([model.log_temperature], lr=TEMPERATURE_RATE, betas=[0.9, 0.999])
    trainer = SequenceTrainer(model, optimizer, temperature_optimizer, scheduler, device="cpu")
    model.eval()  # no dropout
    for step in range(3):
        lengths = recording.random.integers(1, CONTEXT + 1, ROWS) if padded else np.full(ROWS, CONTEXT)
        batch = {
            "observation": recording.normal(ROWS, CONTEXT, OBSERVATIONS),
            "action": 0.9 * recording.uniform(ROWS, CONTEXT, ACTIONS),
            "return_to_go": recording.normal(ROWS, CONTEXT),
            "valid": (np.arange(CONTEXT) >= CONTEXT - lengths[:, None]).astype(np.float32),
        }
        draws = [recording.normal(ROWS, CONTEXT, ACTIONS)]
        columns = {name: torch.as_tensor(value) for name, value in batch.items()}
        nothing = torch.zeros(ROWS, CONTEXT)
        to_go = torch.cat([SCALE * columns["return_to_go"], nothing[:, :1]], dim=1)[..., None]  # one beyond the end
        steps = nothing.long()
        trajs = (
            columns["observation"], columns["action"], nothing, nothing, to_go, steps, steps, columns["valid"],
        )  # fmt: skip
        with _replayed(draws):
            loss, nll, entropy = trainer.train_step_stochastic(_loss(main), trajs)
        log = {"nll": nll} if padded else {"loss": loss, "nll": nll, "entropy": entropy}
        recording.note(phase, step, batch=batch, draw=draws, log=log)
        after = {name: _layout(name, value) for name, value in model.named_parameters() if _learns(name)}
        recording.note_after(phase, step, "actor", {name: value.detach().numpy() for name, value in after.items()})
        if not padded:
            recording.note_after(phase, step, "log_temperature", {"constant": model.log_temperature.detach().numpy()})


def _loss(main: Any) -> Any:
    """The code's loss, a function within another: what an experiment without environments hands to its training."""
    found: list[Any] = []
    variant = {"env": "none", "num_eval_episodes": 0, "max_pretrain_iters": 1, "max_online_iters": 0}
    experiment = types.SimpleNamespace(variant=variant, pretrain=lambda envs, loss: found.append(loss))
    main.args = types.SimpleNamespace(seed=0)
    main.Experiment.__call__(experiment)
    return found[0]


class _Scripted:
    """A vector environment of one, whose observations and rewards are those of an array whatever is done."""

    num_envs = 1

    def __init__(self, observations: np.ndarray, rewards: np.ndarray) -> None:
        self._observations, self._rewards, self._at = observations, rewards, 0

    def reset(self) -> np.ndarray:
        """Returns the first observation [1, O]."""
        return self._observations[:1]

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        """Returns what comes next, whatever the action."""
        del action
        self._at += 1
        reward, done = self._rewards[self._at - 1 : self._at], np.array([self._at == len(self._rewards)])
        return self._observations[self._at : self._at + 1], reward, done, {}


def _record_acting(recording: Any, model: Any) -> None:
    """Records an episode: drawn actions, and the modes of another one."""
    from evaluation import vec_evaluate_episode_rtg

    batch = {"observation": recording.normal(STEPS + 1, OBSERVATIONS), "reward": recording.normal(STEPS)}
    draws = [recording.normal(CONTEXT, ACTIONS) for _ in range(STEPS)]  # a draw of every step that it looks back on
    for mode in (False, True):
        with _replayed(draws):
            *_, trajectories = vec_evaluate_episode_rtg(
                _Scripted(batch["observation"], batch["reward"]),
                OBSERVATIONS,
                ACTIONS,
                model,
                target_return=[ASKED * SCALE],
                reward_scale=SCALE,
                state_mean=np.zeros(OBSERVATIONS, np.float32),
                state_std=np.ones(OBSERVATIONS, np.float32),
                device="cpu",
                use_mean=mode,
            )
        recording.note("act", int(mode), batch=batch | {"action": trajectories[0]["actions"]}, draw=draws)


def _record_histories(recording: Any) -> None:
    """Records the histories of a trajectory of `STEPS` steps, one from each of them on."""
    from data import TransformSamplingSubTraj

    mean, std = recording.normal(OBSERVATIONS), np.exp(recording.normal(OBSERVATIONS))
    trajectory = {
        "observations": recording.normal(STEPS, OBSERVATIONS),
        "actions": 0.9 * recording.uniform(STEPS, ACTIONS),
        "rewards": recording.normal(STEPS),
        "terminals": np.zeros(STEPS),
    }
    transform = TransformSamplingSubTraj(
        CONTEXT, OBSERVATIONS, ACTIONS, mean, std, SCALE, action_range=[-1 + 1e-6, 1 - 1e-6]
    )
    for first in range(STEPS):
        with mock.patch.object(random, "randint", lambda low, high, first=first: first):
            observation, action, _, _, to_go, _, _, valid = (np.asarray(value) for value in transform(trajectory))
        found = {"observation": observation, "action": action, "return_to_go": to_go[:-1, 0], "valid": valid}
        recording.note("histories", first, batch=trajectory | {"mean": mean, "std": std}, history=found)


def _record_queue(recording: Any) -> None:
    """Records the returns of the episodes that its buffer of three holds, before each of eight fresh ones."""
    from replay_buffer import ReplayBuffer

    returns = recording.normal(5)
    episode = lambda value: {"rewards": np.array([value])}
    for name, theirs in (("full", returns), ("room", returns[:2])):
        fresh = recording.normal(8)
        buffer = ReplayBuffer(3, [episode(value) for value in np.sort(theirs)])
        held = []
        for value in fresh:
            held.append(np.pad([each["rewards"][0] for each in buffer.trajectories], (0, 3 - len(buffer))))
            buffer.add_new_trajs([episode(value)])
        recording.note("queue", int(name == "room"), batch={"dataset": theirs, "fresh": fresh, "held": np.array(held)})


def _learns(name: str) -> bool:
    """True of the parts that an update moves: states and returns aren't predicted, times and words not embedded."""
    return not name.startswith(("embed_timestep", "predict_state", "predict_return", "transformer.wte"))


def _layout(name: str, tensor: Any) -> Any:
    """A tensor as (out, in), or the other way round of one so: a block's layers are (in, out)."""
    return tensor.T if ".c_" in name and tensor.ndim == 2 else tensor


def _load(model: Any, weights: Mapping[str, np.ndarray]) -> None:
    """Puts weights in the place of the model's own."""
    import torch

    tensors = {name: _layout(name, torch.as_tensor(np.array(value))) for name, value in weights.items()}
    model.load_state_dict(model.state_dict() | tensors)


@contextlib.contextmanager
def _replayed(draws: Sequence[np.ndarray]) -> Iterator[None]:
    """Within it, the code's normal draws are these."""
    import torch
    import torch.distributions as td

    remaining = [torch.as_tensor(draw) for draw in draws]

    def drawn(self: Any, sample_shape: Any = ()) -> Any:
        return self.loc + self.scale * remaining.pop(0).reshape(*sample_shape, *self.loc.shape)

    with mock.patch.object(td.Normal, "rsample", drawn), mock.patch.object(td.Normal, "sample", drawn):
        yield
    assert not remaining, "the code drew less than was foreseen"
