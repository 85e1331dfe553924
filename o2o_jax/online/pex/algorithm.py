"""PEX: IQL's values go on, its policy is kept, and a new one beside it learns; a softmax of Q chooses."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import optax

from o2o_jax import making, networks
from o2o_jax.critic import QFunction
from o2o_jax.interfaces import Algorithm, Requires
from o2o_jax.losses import lowest_value
from o2o_jax.offline import iql
from o2o_jax.offline.iql.algorithm import Networks, OptStates, imitate, update_values
from o2o_jax.online import continued
from o2o_jax.online.pex.config import Config
from o2o_jax.policy import Handoff, PolicySet
from o2o_jax.types import Array, Metrics, Params, Spec, Transition

REQUIRES = Requires("gaussian", state=True, sources=("iql",))


@flax.struct.dataclass(kw_only=True)
class State(iql.State):
    """State of IQL, whose `actor` is the policy that learns, beside the one that offline training left.

    The other attributes are those of IQL's.

    Attributes:
      kept: parameters of π_0, constant.
    """

    kept: Params


def make_networks(config: Config, spec: Spec) -> Networks:
    """Makes IQL's networks and optimisers, the actor's with a constant rate; a new policy is of Xavier's weights."""
    return iql.algorithm.make_networks(config.update, spec)._replace(
        actor=networks.GaussianActor(spec.action_dim, config.update.hidden, layer_init="xavier"),
        actor_optimizer=optax.adam(config.update.actor_lr),
    )


def init(nets: Networks, config: Config, key: Array, handoff: Handoff | None = None) -> State:
    """Makes the state before the first update: offline values and policy, a random policy, fresh optimisers.

    Args:
      nets: of `make_networks`.
      config: settings.
      key: initialises what the handoff doesn't bring.
      handoff: of IQL, with its state; None for random networks.

    Raises:
      ValueError: see `continued.init`.
    """
    start_key, actor_key = jax.random.split(key)
    method = iql.make(config.update, nets.spec)._replace(name="pex")
    start = continued.init(config, nets.spec, method, REQUIRES, start_key, handoff)
    actor = nets.actor.init(actor_key, jnp.zeros((1, nets.spec.observation_dim)))
    return State(
        actor=actor,
        kept=start.actor,
        critic=start.critic,
        target_critic=start.target_critic,
        value=start.value,
        opt=OptStates(
            actor=nets.actor_optimizer.init(actor),
            critic=nets.critic_optimizer.init(start.critic),
            value=nets.value_optimizer.init(start.value),
        ),
        transform=start.transform,
        step=jnp.zeros((), jnp.int32),
    )


def finetune(nets: Networks, config: Config, state: State, batch: Transition, key: Array) -> tuple[State, Metrics]:
    """Updates values and critics as IQL does, then the new policy towards what the set of both would do.

        ã as the set draws it,   −mean( w log π_1(ã|s) ),   w = min( exp(b (min_k Q̄_k(s, ã) − V(s))), 100 )

    V, Q and Q̄ are those just stepped.

    Args:
      nets: of `make_networks`.
      config: settings.
      state: before the update.
      batch: raw transitions [B].
      key: draws the set's actions.

    Returns:
      The state with `step` advanced, and metrics; `learning_share` of the actions are the new policy's.

    Source: Zhang et al. (arXiv:2302.00935), and its authors' code, whose order this is.
    """
    rows = state.transform(batch)
    state, _, metrics = update_values(nets, config.update, state, rows)
    action, choice = policy(nets, config, state).draw(batch.observation, key)
    advantage = lowest_value(state.target_critic, nets.critic, rows.observation, action) - nets.value.apply(
        state.value, rows.observation
    )
    state, actor_metrics = imitate(nets, config.update, state, rows.observation, action, advantage)
    return state, metrics | actor_metrics | {"learning_share": jnp.mean(choice.astype(jnp.float32))}


def act(nets: Networks, config: Config, state: State, observation: Array, key: Array) -> Array:
    """Draws an action [A] in [-1, 1] at a raw observation [O] as the set does."""
    return policy(nets, config, state).draw(observation, key)[0]


def policy(nets: Networks, config: Config, state: State) -> PolicySet:
    """Returns the set of both policies and the critic that chooses: raw observations [..., O] to actions [..., A]."""
    params = {"kept": state.kept, "learning": state.actor, "critic": state.critic}
    eta = config.expansion.inverse_temperature
    return PolicySet(params, state.transform.normalizer, nets.actor, nets.critic, eta)


@making.checked
def make(config: Config, spec: Spec) -> Algorithm:
    """Binds networks and settings; what comes back are pure functions, not yet jitted."""
    nets = make_networks(config, spec)
    return Algorithm(
        name="pex",
        init=functools.partial(init, nets, config),
        phases=(),
        policy=functools.partial(policy, nets, config),
        critic=functools.partial(QFunction.of, network=nets.critic, discount=config.update.discount),
        requires=REQUIRES,
        online=continued.online_part(
            config, functools.partial(act, nets, config), functools.partial(finetune, nets, config)
        ),
    )
