"""The policy: all that offline training hands to online training, and how one of another kind is made of it.

The only module that knows two heads at once.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from o2o_jax import networks, registry
from o2o_jax.data import history as histories
from o2o_jax.data.dataset import to_float32
from o2o_jax.data.transform import Bounds, Normalizer
from o2o_jax.interfaces import Algorithm, Phase
from o2o_jax.losses import at_every, lowest_value, mean_value, repeated
from o2o_jax.ops.action_optimization import ascend, best_actions
from o2o_jax.ops.advantage import discounted_returns, steps_from_start
from o2o_jax.ops.distributions import LOG_PROB_LIMIT, Deterministic, Distribution, TanhGaussian
from o2o_jax.ops.lagrangian import temperature_loss
from o2o_jax.reading import read_numbers
from o2o_jax.settings import Settings, setting
from o2o_jax.training import gradient_step, measure, run_updates
from o2o_jax.types import (
    Annotated,
    Array,
    Extras,
    History,
    Metrics,
    Params,
    Rollout,
    Spec,
    Transition,
    counter,
    expect,
    expect_key,
    expect_rows,
    expect_state,
)

ONLINE_HIDDEN = {"tanh_gaussian": (256, 256, 256)}  # of O2SAC's actor by default; all others have two layers
SET_HEAD = "set"  # of policies whose critic chooses
OPTIMIZED_HEAD = "optimized"  # of policies whose actions a critic improves
DRAWN_SHARE = 0.1  # of a set's evaluated actions and choices: the authors' epsilon
ENTROPY_WEIGHT_START = 0.1  # c before the first update, as in online decision transformers
CLOSENESS_BATCHES = 40  # that say how close a clone came: 10,000 states
RECALLED_ROWS = 1_024  # whose histories go through a sequence policy at once


@flax.struct.dataclass
class Policy:
    """Maps raw observations to a distribution over actions in [-1, 1].

    Attributes:
      params: parameters of `actor`.
      normalizer: applied to raw observations first.
      actor: the network, static.
    """

    params: Params
    normalizer: Normalizer
    actor: networks.Actor = flax.struct.field(pytree_node=False)

    @property
    def head(self) -> str:
        """Kind of distribution: "deterministic", "gaussian", "gaussian_free" or "tanh_gaussian"."""
        return self.actor.head

    def distribution(self, observation: Array) -> Distribution:
        """Maps raw observations [..., O] to a distribution over actions [..., A]."""
        return self.actor.apply(self.params, self.normalizer(observation))

    def begin(self, episodes: int, key: Array | None = None) -> tuple[()]:
        """Returns its memory where episodes begin: none, and the key [] goes unused, since it doesn't draw."""
        del episodes, key
        return ()

    def act(self, memory: tuple[()], observation: Array, reward: Array) -> tuple[Array, tuple[()]]:
        """Returns modes [E, A] at raw observations [E, O]; the rest is for those that act on more, `SequencePolicy`."""
        del reward
        return self.distribution(observation).mode(), memory


@flax.struct.dataclass
class SampledPolicy:
    """Acts by samples of a policy's distributions, as in training, rather than by their modes.

    Attributes:
      policy: whose samples.
    """

    policy: Policy

    def begin(self, episodes: int, key: Array | None = None) -> Array:
        """Returns the key [] that all further steps draw from.

        Raises:
          ValueError: without a key.
        """
        del episodes
        if key is None:
            raise ValueError("a policy that draws its actions needs a key where episodes begin")
        return key

    def act(self, memory: Array, observation: Array, reward: Array) -> tuple[Array, Array]:
        """Draws samples [E, A] at raw observations [E, O]; returns them and the key [] of the next step."""
        del reward
        key, memory = jax.random.split(memory)
        return self.policy.distribution(observation).sample(key), memory


@flax.struct.dataclass
class SequencePolicy:
    """Maps an episode's last steps, and the return that it is asked for, to a distribution over the next action.

    It can be evaluated and cloned. Online algorithms that act on observations start from a clone of it; Online DT from
    itself.

    Attributes:
      params: parameters of `actor`.
      normalizer: applied to raw observations first.
      target_return: [] undiscounted return that an episode is asked for, raw.
      actor: the network, static.
      return_scale: of returns as the network sees them, static.
      context: C, how many steps it looks back on, the present one among them, static.
    """

    params: Params
    normalizer: Normalizer
    target_return: Array
    actor: networks.DecisionTransformer = flax.struct.field(pytree_node=False)
    return_scale: float = flax.struct.field(pytree_node=False)
    context: int = flax.struct.field(pytree_node=False)

    @property
    def head(self) -> str:
        """Kind of policy: "sequence"."""
        return self.actor.head

    def distribution(self, history: History) -> TanhGaussian:
        """Maps raw histories [..., K] to a distribution over the last action [..., A], whatever is in its place."""
        history = histories.normalize(history, self.normalizer, self.return_scale)
        return jax.tree.map(lambda leaf: leaf[..., -1, :], self.actor.apply(self.params, history))

    def begin(self, episodes: int, key: Array | None = None) -> History:
        """Returns histories [E, C] before the first step: padding, and the returns asked for; it doesn't draw."""
        del key
        spec = Spec(self.normalizer.mean.shape[-1], self.actor.action_dim)
        memory = histories.padding(spec, episodes, self.context)
        return memory.replace(return_to_go=jnp.full_like(memory.return_to_go, self.target_return))

    def act(self, memory: History, observation: Array, reward: Array) -> tuple[Array, History]:
        """Takes a step in each of E episodes; arguments as of `look`.

        Returns:
          Modes [E, A], and the memory [E, C] with this step.
        """
        memory = self.look(memory, observation, reward)
        action = self.distribution(memory).mode()
        return action, histories.with_action(memory, action)

    def look(self, memory: History, observation: Array, reward: Array) -> History:
        """Remembers what is seen in each of E episodes, before anything is done about it.

        Args:
          memory: [E, C] what `begin` or the step before left.
          observation: [E, O] raw.
          reward: [E] that the step before earned, 0 in the first; what is asked for falls by it.

        Returns:
          The memory [E, C] with this step, whose action isn't known yet: `data.history.with_action`.
        """
        now = History(
            observation=observation,
            action=jnp.zeros_like(memory.action[:, -1]),
            return_to_go=memory.return_to_go[:, -1] - reward,
            valid=jnp.ones_like(reward),
        )
        return jax.tree.map(lambda past, new: jnp.concatenate([past[:, 1:], new[:, None]], axis=1), memory, now)

    def recall(self, dataset: Rollout) -> TanhGaussian:
        """Returns what it would do in every step of a dataset [N], by its recorded history and `target_return`.

        The return to go in row t is R̂_t = R̂ − Σ r over the rows of its episode before t.

        Returns:
          Distributions over actions [N, A].

        Source: this package.
        """
        first, before = steps_from_start(dataset.ended)
        to_go = discounted_returns(dataset.reward, dataset.ended, 1.0)
        columns = histories.columns(dataset, self.target_return - (to_go[first] - to_go))
        length = jnp.minimum(before + 1, self.context)

        def at(row: Array) -> TanhGaussian:
            return self.distribution(histories.gather(columns, row, length[row], self.context))

        return jax.lax.map(at, jnp.arange(len(length)), batch_size=RECALLED_ROWS)


@flax.struct.dataclass
class PolicySet:
    """Two policies that each propose an action, and a critic that chooses one of them: policy expansion.

        a_0 = the mode of π_0,   a_1 ~ π_1,   i ~ softmax( η min_k Q_k(s, a_i) )

    Attributes:
      params: "kept" of π_0, "learning" of π_1, both of `actor`, and "critic", leaves [E, ...].
      normalizer: applied to raw observations first.
      actor: the network of both policies, static.
      critic: the ensemble, static.
      inverse_temperature: η, per return unit, static.

    Source: Zhang et al. (arXiv:2302.00935), and its authors' code, which takes the mode of π_0.
    """

    params: dict[str, Params]
    normalizer: Normalizer
    actor: networks.Actor = flax.struct.field(pytree_node=False)
    critic: networks.Critics = flax.struct.field(pytree_node=False)
    inverse_temperature: float = flax.struct.field(pytree_node=False)

    @property
    def head(self) -> str:
        """Kind of policy: "set"."""
        return SET_HEAD

    @property
    def kept(self) -> Policy:
        """π_0, which stays as it is."""
        return Policy(self.params["kept"], self.normalizer, self.actor)

    @property
    def learning(self) -> Policy:
        """π_1."""
        return Policy(self.params["learning"], self.normalizer, self.actor)

    def distribution(self, observation: Array) -> Deterministic:
        """Maps raw observations [..., O] to the more valuable of both modes [..., A], as a point mass."""
        modes = [policy.distribution(observation).mode() for policy in (self.kept, self.learning)]
        return Deterministic(_chosen(modes, jnp.argmax(self._values(observation, modes), axis=0)))

    def draw(self, observation: Array, key: Array, share: float = 1.0) -> tuple[Array, Array]:
        """Draws what to do.

        Args:
          observation: [..., O] raw.
          key: of π_1's actions and of the choices.
          share: of actions and of choices, each for itself, that are drawn; the others are the mode, and the more
            valuable one.

        Returns:
          Actions [..., A], and [...] which policy they are of: 0 or 1.
        """
        action_key, action_share_key, choice_key, choice_share_key = jax.random.split(key, 4)
        shape = observation.shape[:-1]
        learning = self.learning.distribution(observation)
        drawn = jax.random.bernoulli(action_share_key, share, shape)
        proposed = jnp.where(drawn[..., None], learning.sample(action_key), learning.mode())
        actions = [self.kept.distribution(observation).mode(), proposed]
        values = self._values(observation, actions)  # [2, ...]
        choice = jnp.where(
            jax.random.bernoulli(choice_share_key, share, shape),
            jax.random.categorical(choice_key, self.inverse_temperature * values, axis=0),
            jnp.argmax(values, axis=0),
        )
        return _chosen(actions, choice), choice

    def begin(self, episodes: int, key: Array | None = None) -> Any:
        """Returns its memory where episodes begin: the key [] that it draws from; without one () and no draws."""
        del episodes
        return () if key is None else key

    def act(self, memory: Any, observation: Array, reward: Array) -> tuple[Array, Any]:
        """Returns actions [E, A] at raw observations [E, O], a tenth of them drawn, and the memory after them.

        Where `begin` had no key they are the modes of `distribution`.
        """
        del reward
        if isinstance(memory, tuple):
            return self.distribution(observation).mode(), memory
        key, memory = jax.random.split(memory)
        return self.draw(observation, key, DRAWN_SHARE)[0], memory

    def _values(self, observation: Array, actions: list[Array]) -> Array:
        """[2, ...] lowest values of two actions [..., A] at raw observations [..., O]."""
        stacked = jnp.stack(actions)
        normalized = self.normalizer(observation)
        both = jnp.broadcast_to(normalized, (len(actions), *normalized.shape))
        return lowest_value(self.params["critic"], self.critic, both, stacked)


def _chosen(actions: list[Array], choice: Array) -> Array:
    first, second = actions
    return jnp.where((choice == 0)[..., None], first, second)


class ActionOptimization(NamedTuple):
    """Rule by which a critic improves a policy's actions.

    Attributes:
      samples: N actions that the policy proposes at a state.
      kept: K ≤ N of them that go on, the most valuable ones.
      steps: of the gradient that each takes.
      step_size: η, squared action units per return unit.
    """

    samples: int
    kept: int
    steps: int
    step_size: float


@flax.struct.dataclass
class OptimizedPolicy:
    """A policy whose actions are improved by critics before they are taken.

        a_1 … a_N ~ π(·|s), the K of highest Q,   each moved η ∇_a Q uphill step by step,   the best of all,
        Q(s, a) = 1/E Σ_i Q_i(s, a)

    Attributes:
      base: π, with a density.
      critic_params: leaves [E, ...].
      critic: the ensemble, static.
      rule: how, static.

    Source: Mark et al. (arXiv:2412.06685).
    """

    base: Policy
    critic_params: Params
    critic: networks.QNetwork = flax.struct.field(pytree_node=False)
    rule: ActionOptimization = flax.struct.field(pytree_node=False)

    @property
    def head(self) -> str:
        """Kind of policy: "optimized"."""
        return OPTIMIZED_HEAD

    @property
    def normalizer(self) -> Normalizer:
        """That of π, which critics see observations by too."""
        return self.base.normalizer

    @property
    def actor(self) -> networks.Actor:
        """The network of π."""
        return self.base.actor

    def candidates(self, observation: Array, key: Array, given: Array | None = None) -> tuple[Array, Array]:
        """Returns improved actions.

        Args:
          observation: [B, O] raw.
          key: draws the N samples.
          given: [B, A] actions that are improved too, in the place of the least valuable ones of the K; None for none.

        Returns:
          Actions [B, K, A] in [-1, 1] and their values [B, K], in return units; no gradient flows through them.
        """
        normalized, rule = self.normalizer(observation), self.rule
        distribution: Any = self.base.distribution(observation)  # a normal, squashed or not
        action = repeated(distribution, rule.samples).sample(key)

        def q(action: Array) -> Array:
            return mean_value(self.critic_params, self.critic, at_every(normalized, action), action)

        action = best_actions(action, q(action), rule.kept)
        if given is not None:
            action = jnp.concatenate([action[:, :-1], given[:, None]], axis=1)
        return ascend(q, action, rule.steps, rule.step_size)

    def best(self, observation: Array, key: Array) -> Array:
        """Returns the most valuable improved actions [B, A] at raw observations [B, O]; `key` draws the samples."""
        action, value = self.candidates(observation, key)
        index = jnp.argmax(value, axis=-1)[:, None, None]
        return jnp.take_along_axis(action, index, axis=1)[:, 0]

    def distribution(self, observation: Array) -> Deterministic:
        """Maps raw observations [..., O] to actions [..., A], as a point mass, by the same noise at every one."""
        best = jnp.vectorize(lambda one: self.best(one[None], jax.random.key(0))[0], signature="(o)->(a)")
        return Deterministic(best(observation))

    def begin(self, episodes: int, key: Array | None = None) -> Any:
        """Returns its memory where episodes begin: the key [] that it draws from; without one () and the same noise."""
        del episodes
        return () if key is None else key

    def act(self, memory: Any, observation: Array, reward: Array) -> tuple[Array, Any]:
        """Returns actions [E, A] at raw observations [E, O], and the memory after them; `reward` [E] goes unused."""
        del reward
        if isinstance(memory, tuple):
            return self.distribution(observation).mode(), memory
        key, memory = jax.random.split(memory)
        return self.best(observation, key), memory


AnyPolicy = Policy | SequencePolicy | PolicySet | OptimizedPolicy  # that an algorithm may leave


@flax.struct.dataclass
class Handoff:
    """Outcome of offline training, from which online training starts.

    Attributes:
      policy: the only part that O2SAC, O2TD3 and O2PPO read, unless offline critics are asked for.
      state: the offline algorithm's whole state, for those who continue from its critics.
      source: name of the offline algorithm.
      closeness: of a clone, metrics of `clone_update` on the finished student: how close it came to its teacher.
    """

    policy: AnyPolicy
    state: Any = None
    source: str = flax.struct.field(pytree_node=False, default="")
    closeness: Metrics | None = None


def hand_over(algorithm: Algorithm, state: Any) -> Handoff:
    """Returns what an offline algorithm leaves after training: its policy, and its whole state for those who read it.

    Args:
      algorithm: pure functions of one seed.
      state: its state.

    Raises:
      TypeError: one is something else.
    """
    expect(algorithm, Algorithm, "algorithm", "pass what make returns, and its state after it")
    expect_state(state)
    return Handoff(algorithm.policy(state), state=state, source=algorithm.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloneConfig(Settings):
    """Settings of cloning. The source fixes none of them."""

    hidden: tuple[int, ...] | None = setting(
        None,
        "widths of the policy's hidden layers; None: what the online algorithm has by default, by the head",
        unit="units",
        source="this package",
    )
    updates: int = setting(100_000, "updates of the run", unit="updates", source="this package; 10,000 under fast")
    batch_size: int = setting(256, "transitions per update", unit="transitions", source="this package, as offline")
    lr: float = setting(3e-4, "learning rate of the policy", source="this package, as offline")
    entropy_lr: float = setting(3e-4, "learning rate of log c, the entropy's weight", source="this package")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden is not None:
            self._widths("hidden")
        self._counts("updates", "batch_size")
        self._positive("lr", "entropy_lr")


@flax.struct.dataclass
class CloneState:
    """Arrays only: vmaps over seeds, saves as it is.

    Attributes:
      student: the policy that learns.
      teacher: the policy that it imitates, constant; None where the dataset's actions are the teacher's.
      log_entropy_weight: [] log c; unused by a deterministic student.
      opt: Adam of the student's parameters.
      entropy_opt: Adam of log c.
      step: [] int32, updates so far.
    """

    student: Policy
    teacher: AnyPolicy | None
    log_entropy_weight: Array
    opt: Any
    entropy_opt: Any
    step: Array = counter()


def with_head(
    handoff: Handoff, head: str, dataset: Transition, key: Array, config: CloneConfig | None = None
) -> Handoff:
    """Returns a handoff whose policy has the wanted head: itself, or a clone that learnt on the dataset's states.

    Args:
      handoff: of one seed; `head` being static, it may be traced and mapped over seeds.
      head: "deterministic", "gaussian", "gaussian_free" or "tanh_gaussian".
      dataset: transitions [N], of which only the observations count; a `Rollout` where the policy is a sequence policy,
        which also looks at actions and rewards before.
      key: of initialisation, batches and sampled actions.
      config: settings of a clone.

    Returns:
      `handoff` unchanged where its policy has that head. Otherwise with the clone in the policy's place; critics in the
      offline state go with it as well, since they see actions and not heads, and the clone keeps the normaliser.

    Raises:
      ValueError: no such head, or a sequence policy and no `Rollout`.
      TypeError: an argument is of another type.

    Source: Appendix I, Eq. (52).
    """
    expect(handoff, Handoff, "handoff", "pass what o2o_jax.hand_over or o2o_jax.clone returns")
    config = _expect_cloning(dataset, key, config)
    if handoff.policy.head == head:
        return handoff
    init_key, update_key = jax.random.split(key)
    cloned = _run_clone(config, clone_init(config, head, init_key, handoff.policy), dataset, update_key, handoff.source)
    return cloned.replace(state=handoff.state)


def clone(
    function: Callable[[np.ndarray], Any],
    head: str,
    dataset: Transition,
    key: Array,
    config: CloneConfig | None = None,
    normalizer: Normalizer | None = None,
    source: str = "",
) -> Handoff:
    """Clones any Python function from observations to actions; impure if the function is.

    Args:
      function: raw observations [N, O] to actions [N, A] in [-1, 1], both numpy.
      head: of the clone.
      dataset: transitions [N], of which only the observations count.
      key: of initialisation and batches.
      config: settings of the clone.
      normalizer: of the clone; None fits one to the dataset.
      source: name of where the function comes from.

    Returns:
      The clone.

    Raises:
      ValueError: no such head, or unusable actions; see `label`.
      TypeError: an argument is of another type.

    Source: Appendix I, Eq. (52).
    """
    config = _expect_cloning(dataset, key, config)
    if isinstance(function, Policy | SequencePolicy):
        raise TypeError("a policy of this package is cloned by o2o_jax.with_head: pass it in a Handoff")
    if not callable(function):
        raise TypeError(
            f"a policy is a function of observations, got {type(function).__name__}: pass o2o_jax.wrap(model) of a "
            "model that has predict"
        )
    dataset = jax.tree.map(jnp.asarray, label(function, dataset))
    normalizer = normalizer or Normalizer.fit(dataset.observation)
    init_key, update_key = jax.random.split(key)
    state = clone_init(config, head, init_key, None, normalizer, dataset.action.shape[-1])
    return _run_clone(config, state, dataset, update_key, source)


def _expect_cloning(dataset: Transition, key: Array, config: CloneConfig | None) -> CloneConfig:
    """Settings of a clone, once all that it is made with has been looked at."""
    expect_rows(dataset)
    expect_key(key)
    config = config or CloneConfig()
    expect(config, CloneConfig, "config", "pass o2o_jax.CloneConfig(updates=…)")
    return config


def _run_clone(config: CloneConfig, state: CloneState, dataset: Transition, key: Array, source: str) -> Handoff:
    """The clone after all updates, with its closeness; arguments as of `run_updates`."""
    state, extras = clone_prepare(state, dataset)
    annotated, update = Annotated.of(dataset, extras), functools.partial(clone_update, config)
    state, _ = run_updates(update, state, annotated, key, config.updates, config.batch_size)
    closeness = measure(update, state, annotated, key, CLOSENESS_BATCHES, config.batch_size)
    return Handoff(state.student, source=source, closeness=closeness)


def wrap(
    policy: Any, low: ArrayLike | None = None, high: ArrayLike | None = None, batched: bool = True
) -> Callable[[np.ndarray], np.ndarray]:
    """Wraps a foreign policy as `clone` takes one.

        teacher = wrap(stable_baselines3.SAC.load("sac.zip"))
        handoff = clone(teacher, "tanh_gaussian", dataset, jax.random.key(0))

    Args:
      policy: observations to actions, both numpy, in the environment's units; or a model whose `predict(observations,
        deterministic=True)` returns actions and a state, as those of Stable-Baselines3.
      low: [A] lower bounds of its actions; None for those of its `action_space`, or -1 where it has none.
      high: [A] upper bounds, likewise, or 1.
      batched: whether it takes observations [N, O] to actions [N, A]; else [O] to [A], one after the other.

    Returns:
      Raw observations [N, O] to actions [N, A] in [-1, 1]; what lies outside the bounds is clipped. Where nothing says
      what they are, a note does at the first clipped action.

    Raises:
      ValueError: one bound without the other, or bounds that are no numbers, not finite or not in their order.
      TypeError: it can neither be called nor predict.
    """
    predict = getattr(policy, "predict", None)
    if predict is None and not callable(policy):
        raise TypeError(f"a policy is a function of observations, or has predict, got {type(policy).__name__}")
    if (low is None) != (high is None):
        raise ValueError("pass both low and high, the bounds of the policy's actions, or neither")
    space = getattr(policy, "action_space", None)
    if low is None and hasattr(space, "low"):
        low, high = space.low, space.high  # type: ignore[union-attr]
    bounds = None
    if low is not None and high is not None:
        low, high = (np.ravel(read_numbers(bound, "low and high")) for bound in (low, high))
        bounds = Bounds.of(len(low), low, high)
        if bounds.low.shape != bounds.high.shape or not np.all((bounds.low < bounds.high) & np.isfinite(bounds.high)):
            raise ValueError(f"low must lie below high, both finite, one number per action, got {low} and {high}")

    def act(observations: np.ndarray) -> np.ndarray:
        found = policy(observations) if predict is None else predict(observations, deterministic=True)[0]
        return read_numbers(found, "the policy's actions")

    said = False

    def actions(observations: np.ndarray) -> np.ndarray:
        nonlocal said
        found = act(observations) if batched else np.stack([act(observation) for observation in observations])
        if bounds is None:
            widest = np.abs(found, where=np.isfinite(found), out=np.zeros(found.shape)).max(initial=0.0)
            if widest > 1.0 and not said:
                said = True
                print(
                    f"note: the policy's actions reach {widest:.6g} and are clipped to [-1, 1]: pass low and high to "
                    "o2o_jax.wrap, if they are in the environment's units"
                )
            return np.where(np.isfinite(found), np.clip(found, -1.0, 1.0), found)
        return np.asarray(bounds.from_own(jnp.asarray(found)))

    return actions


def label(function: Callable[[np.ndarray], Any], dataset: Transition, rows: int = 10_000) -> Transition:
    """Replaces a dataset's actions by those of a Python function; impure if the function is.

    Args:
      function: raw observations [N, O] to actions [N, A] in [-1, 1], both numpy.
      dataset: transitions [N].
      rows: the most observations that the function gets at once.

    Returns:
      Transitions [N].

    Raises:
      ValueError: no numbers, or actions of another shape, not finite, or outside [-1, 1].
    """
    observations = np.asarray(dataset.observation)
    actions = []
    for start in range(0, len(observations), rows):
        given = observations[start : start + rows]
        action = to_float32(read_numbers(function(given), "the policy's actions"))
        expected = (len(given), *dataset.action.shape[1:])
        if action.shape != expected:
            raise ValueError(f"the policy maps observations {given.shape} to actions {action.shape}, not to {expected}")
        if not np.isfinite(action).all():
            raise ValueError("the policy's actions are not all finite: NaN or infinity cannot be cloned")
        if np.abs(action).max() > 1.0:
            raise ValueError(
                f"the policy's actions reach {np.abs(action).max():.6g}: clip or rescale them to [-1, 1] before cloning"
            )
        actions.append(action)
    return dataset.replace(action=np.concatenate(actions))


def clone_init(
    config: CloneConfig,
    head: str,
    key: Array,
    teacher: AnyPolicy | None,
    normalizer: Normalizer | None = None,
    action_dim: int | None = None,
) -> CloneState:
    """Makes the state before the first update: a random student.

    Args:
      config: settings.
      head: of the student.
      key: initialises the student.
      teacher: the policy to imitate; None where the dataset's actions are the teacher's, see `label`.
      normalizer: of the student; only without a teacher, whose own it is otherwise.
      action_dim: A; likewise.

    Returns:
      The state of one seed, its `step` [] at 0.

    Raises:
      ValueError: no such head, or neither a teacher nor a replacement for it.
    """
    if head not in networks.HEADS:
        raise ValueError(registry.unknown("head", head, networks.HEADS))
    if teacher is not None:
        normalizer, action_dim = teacher.normalizer, teacher.actor.action_dim
    if normalizer is None or action_dim is None:
        raise ValueError("clone_init needs a normalizer and an action_dim where there is no teacher to take them from")
    hidden = config.hidden or ONLINE_HIDDEN.get(head, (256, 256))
    return clone_state(config, networks.HEADS[head](action_dim, hidden), normalizer, key, teacher)


def clone_state(
    config: CloneConfig,
    actor: networks.Actor,
    normalizer: Normalizer,
    key: Array,
    teacher: AnyPolicy | None = None,
) -> CloneState:
    """Makes the state before the first update of any student, `step` [] at 0; arguments as of `clone_init`."""
    params = actor.init(key, jnp.zeros((1, normalizer.mean.shape[-1])))
    log_entropy_weight = jnp.asarray(math.log(ENTROPY_WEIGHT_START), jnp.float32)
    return CloneState(
        student=Policy(params, normalizer, actor),
        teacher=teacher,
        log_entropy_weight=log_entropy_weight,
        opt=optax.adam(config.lr).init(params),
        entropy_opt=optax.adam(config.entropy_lr).init(log_entropy_weight),
        step=jnp.zeros((), jnp.int32),
    )


def clone_prepare(state: CloneState, dataset: Transition) -> tuple[CloneState, Extras]:
    """Writes down, before cloning, what a sequence teacher does in every row, since a batch has no histories.

    Args:
      state: before or within the phase.
      dataset: transitions [N], with a sequence teacher a `Rollout`.

    Returns:
      The same state, and extras: the teacher's distributions [N, A]; empty where a batch's observations suffice.

    Raises:
      ValueError: a sequence teacher and rows that don't say where episodes end.
    """
    if not isinstance(state.teacher, SequencePolicy):
        return state, Extras()
    if not isinstance(dataset, Rollout):
        raise ValueError("a sequence policy acts on histories: clone it on a Rollout, such as Dataset.rollout() gives")
    return state, Extras(own=state.teacher.recall(dataset))


def clone_phase(config: CloneConfig, head: str) -> Phase:
    """Returns cloning to a head as a phase on a dataset; its state is that of `clone_init`."""
    update = functools.partial(clone_update, config)
    show = ("mse",) if head == "deterministic" else ("mse", "log_likelihood")
    return Phase("clone", update, config.updates, config.batch_size, clone_prepare, show=show)


def clone_update(config: CloneConfig, state: CloneState, batch: Transition, key: Array) -> tuple[CloneState, Metrics]:
    """Updates the student and, if it is stochastic, the weight that holds its entropy.

    Args:
      config: settings.
      state: before the update.
      batch: raw transitions [B], with a sequence teacher those that `clone_prepare` annotated.
      key: draws the teacher's actions, if it is stochastic, and the student's.

    Returns:
      The state with `step` advanced, and metrics: `mse` between the modes of both; of a stochastic student also
      `log_likelihood` of the teacher's actions, `entropy` and `entropy_weight`.

    Source: Appendix I, Eq. (52).
    """
    teacher_key, student_key = jax.random.split(key)
    mode, sample = _teacher_actions(state.teacher, batch, teacher_key)
    student = state.student
    if student.head == "deterministic":
        (_, metrics), gradient = jax.value_and_grad(imitation_loss, has_aux=True)(
            student.params, student, batch.observation, mode
        )
        log_weight, entropy_opt = state.log_entropy_weight, state.entropy_opt
    else:
        weight = jnp.exp(state.log_entropy_weight)
        (_, (log_prob, metrics)), gradient = jax.value_and_grad(likelihood_loss, has_aux=True)(
            student.params, student, batch.observation, sample, mode, student_key, weight
        )
        entropy_gradient = jax.grad(temperature_loss)(state.log_entropy_weight, log_prob, -float(mode.shape[-1]))
        log_weight, entropy_opt = gradient_step(
            optax.adam(config.entropy_lr), entropy_gradient, state.entropy_opt, state.log_entropy_weight
        )
        metrics |= {"entropy_weight": weight}
    params, opt = gradient_step(optax.adam(config.lr), gradient, state.opt, student.params)
    state = state.replace(
        student=student.replace(params=params),
        log_entropy_weight=log_weight,
        opt=opt,
        entropy_opt=entropy_opt,
        step=state.step + 1,
    )
    return state, metrics


def imitation_loss(params: Params, student: Policy, observation: Array, action: Array) -> tuple[Array, Metrics]:
    """Computes the squared error of a deterministic student, the mean over batch and dimensions.

        mean ( π_θ(s) − a )²

    Args:
      params: of the student, differentiated.
      student: whose own parameters are not used.
      observation: [B, O] raw.
      action: [B, A] the teacher's, constant.

    Returns:
      [] loss, and the same as a metric.

    Source: Appendix I.
    """
    loss = jnp.mean(jnp.square(student.replace(params=params).distribution(observation).mode() - action))
    return loss, {"mse": loss}


def likelihood_loss(
    params: Params, student: Policy, observation: Array, action: Array, mode: Array, key: Array, weight: Array
) -> tuple[Array, tuple[Array, Metrics]]:
    """Computes the negative log-likelihood of the teacher's actions, less the student's weighted entropy.

        −mean[ log π_θ(a|s) + c H(π_θ(·|s)) ],   H by one sample

    Args:
      params: of the student, differentiated.
      student: with a density; its own parameters are not used.
      observation: [B, O] raw.
      action: [B, A] drawn from the teacher, constant; it counts as inside ±(1 − 1e-4).
      mode: [B, A] the teacher's modes, for the metric alone.
      key: draws the student's actions.
      weight: [] c ≥ 0, constant.

    Returns:
      [] loss; the log-density [B] of the student's own actions, nats; metrics.

    Source: Appendix I, Eq. (52).
    """
    distribution = student.replace(params=params).distribution(observation)
    log_likelihood = jnp.mean(distribution.log_prob(jnp.clip(action, -LOG_PROB_LIMIT, LOG_PROB_LIMIT)))
    log_prob = own_log_prob(distribution, key)
    entropy = -jnp.mean(log_prob)
    mse = jnp.mean(jnp.square(distribution.mode() - mode))
    metrics = {"mse": mse, "log_likelihood": log_likelihood, "entropy": entropy}
    return -log_likelihood - weight * entropy, (log_prob, metrics)


def _teacher_actions(teacher: AnyPolicy | None, batch: Transition, key: Array) -> tuple[Array, Array]:
    """The teacher's modes [B, A] and sampled actions [B, A] in a batch's steps."""
    if teacher is None:
        return batch.action, batch.action
    distribution: Distribution = (
        batch.extras.own if isinstance(teacher, SequencePolicy) else teacher.distribution(batch.observation)
    )
    return distribution.mode(), distribution.sample(key)


def own_log_prob(distribution: Any, key: Array) -> Array:
    """Returns the log-density [...] of reparameterised samples, nats; for a plain normal of samples not clipped."""
    if isinstance(distribution, TanhGaussian):
        return distribution.sample_and_log_prob(key)[1]
    noise = jax.random.normal(key, distribution.mean.shape)
    std = jnp.broadcast_to(jnp.exp(distribution.log_std), distribution.mean.shape)
    return distribution.log_prob(distribution.mean + std * noise)
