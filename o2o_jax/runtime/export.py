"""Policies as programs of other formats, which run without this package. Impure: compiles, writes files."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax import registry
from o2o_jax.data.transform import Bounds
from o2o_jax.envs.registered import require
from o2o_jax.policy import SequencePolicy
from o2o_jax.reading import quiet
from o2o_jax.runtime import files
from o2o_jax.runtime.deployed import DeployedPolicy
from o2o_jax.types import Array, History

DESCRIPTION = "export.json"
FILES = {"stablehlo": "policy.stablehlo", "onnx": "policy.onnx"}  # by the names of formats
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # that a StableHLO program is lowered for
BATCH = "B"  # the one symbolic size
TOLERANCE = 1e-5  # of actions, in units of half the distance between their bounds
NEEDS = {"stablehlo": ("flatbuffers",), "onnx": ("jax2onnx", "onnxruntime")}
EXTRAS = {"stablehlo": "export", "onnx": "onnx"}
HOW_TO_RUN = {
    "stablehlo": [
        "from jax import export  # with flatbuffers installed",
        "policy = export.deserialize(bytearray(open('policy.stablehlo', 'rb').read()))",
        "actions = policy.call({inputs})  # float32, [B, …], B at least 1",
    ],
    "onnx": [
        "import onnxruntime",
        "policy = onnxruntime.InferenceSession('policy.onnx')",
        "(actions,) = policy.run(None, {{{feed}}})  # float32, [B, …]",
    ],
}


class Program(NamedTuple):
    """A policy as a function of arrays alone.

    Attributes:
      function: arrays [B, ...] to actions [B, A] in the environment's units, pure.
      inputs: name -> its shape without B.
      notes: of the inputs, for people.
    """

    function: Callable[..., Array]
    inputs: dict[str, tuple[int, ...]]
    notes: list[str]

    def examples(self, batch: int) -> list[np.ndarray]:
        """Returns inputs [batch, ...] to try it with."""
        random = np.random.default_rng(batch)
        found = {name: random.normal(size=(batch, *shape)).astype(np.float32) for name, shape in self.inputs.items()}
        if "valid" in found:
            found["valid"] = (np.cumsum(found["valid"] > 0, axis=1) > 0).astype(np.float32)  # padding in front
            found["valid"][:, -1] = 1.0
        return list(found.values())


def program_of(deployed: DeployedPolicy) -> Program:
    """Returns a policy's mode, normaliser and bounds included, as a function of observations or of histories.

    A policy on histories becomes a function of its whole window: whoever runs it keeps the last C steps.

    Args:
      deployed: the policy.
    """
    policy, bounds, spec = deployed.policy, deployed.bounds, deployed.spec
    if not isinstance(policy, SequencePolicy):
        inputs: dict[str, tuple[int, ...]] = {"observation": (spec.observation_dim,)}
        return Program(lambda observation: bounds.to_own(policy.distribution(observation).mode()), inputs, [])
    context = policy.context
    inputs = {
        "observation": (context, spec.observation_dim),
        "past_action": (context, spec.action_dim),
        "return_to_go": (context,),
        "valid": (context,),
    }
    notes = [
        f"the last {context} steps of an episode, the present one last, and zeros in front where there were fewer",
        "past_action: what was done in each, in the environment's units; zeros for the present, which don't count",
        f"return_to_go: {float(policy.target_return):g}, or what else is asked for, less the rewards before each step",
        "valid: 1 for a step, 0 for zeros in front",
    ]
    return Program(_on_windows(policy, bounds), inputs, notes)


def _on_windows(policy: SequencePolicy, bounds: Bounds) -> Callable[..., Array]:
    """A policy on histories as a function of its window [B, C]."""

    def act(observation: Array, past_action: Array, return_to_go: Array, valid: Array) -> Array:
        history = History(observation, bounds.from_own(past_action), return_to_go, valid)
        return bounds.to_own(policy.distribution(history).mode())

    return act


def write(deployed: DeployedPolicy, folder: str | os.PathLike, kind: str) -> Path:
    """Writes a policy as a program and a description of it to a new folder, once it does what the policy does.

    Args:
      deployed: the policy, whose mode is exported with its normaliser and its bounds of actions.
      folder: that does not exist.
      kind: "stablehlo", a program of `jax.export`, or "onnx".

    Returns:
      The folder.

    Raises:
      FileExistsError: there is something of that name.
      ValueError: no such format, a package that writes it is missing, or the format can't express the policy.
    """
    if kind not in FILES:
        raise ValueError(registry.unknown("format", kind, FILES))
    with quiet(*NEEDS[kind]):
        for package in NEEDS[kind]:
            require(package, EXTRAS[kind])
    program = program_of(deployed)
    make = {"stablehlo": _stablehlo, "onnx": _onnx}[kind]
    with files.new_folder(folder) as draft:
        try:
            content, facts = make(program)
        except Exception as error:  # whatever a converter raises of operations that it doesn't know
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            raise ValueError(f"{kind} can't express this {deployed.policy.head} policy: {reason}") from error
        files.write(draft / FILES[kind], content)
        files.write(
            draft / DESCRIPTION,
            (json.dumps(_describe(deployed, program, kind, facts), indent=2, ensure_ascii=False) + "\n").encode(),
        )
        _verify(deployed, program, kind, draft / FILES[kind])
    return Path(folder)


def run(path: str | os.PathLike, kind: str) -> Callable[..., np.ndarray]:
    """Returns a program that `write` wrote as a function of its inputs [B, ...].

    Args:
      path: of its file.
      kind: of its format.
    """
    content = Path(path).read_bytes()
    if kind == "stablehlo":
        from jax import export

        call = export.deserialize(bytearray(content)).call
        return lambda *inputs: np.asarray(call(*inputs))
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))[0]


def _stablehlo(program: Program) -> tuple[bytes, dict[str, Any]]:
    """Bytes of the program, and facts about them."""
    from jax import export

    (batch,) = export.symbolic_shape(BATCH)
    shapes = [jax.ShapeDtypeStruct((batch, *shape), jnp.float32) for shape in program.inputs.values()]
    exported = export.export(jax.jit(program.function), platforms=PLATFORMS)(*shapes)
    facts = {"platforms": list(exported.platforms), "calling_convention": exported.calling_convention_version}
    return bytes(exported.serialize()), facts


def _onnx(program: Program) -> tuple[bytes, dict[str, Any]]:
    """Bytes of the model, and facts about them."""
    import jax2onnx

    shapes: Sequence[Any] = [(BATCH, *shape) for shape in program.inputs.values()]
    with quiet("onnx_ir", "jax2onnx"):
        model = jax2onnx.to_onnx(
            program.function, shapes, model_name="policy", input_names=list(program.inputs), output_names=["action"]
        )
    return model.SerializeToString(), {"opset": model.opset_import[0].version}


def _verify(deployed: DeployedPolicy, program: Program, kind: str, path: Path) -> None:
    """Makes sure that what was written does what the policy does, for batches of several sizes.

    Raises:
      ValueError: it does something else.
    """
    written = run(path, kind)
    half = 0.5 * (deployed.bounds.high - deployed.bounds.low)
    for batch in (1, 3):
        inputs = program.examples(batch)
        expected = np.asarray(jax.jit(program.function)(*inputs))
        error = np.abs(written(*inputs) - expected) / half
        if not error.max() <= TOLERANCE:
            raise ValueError(f"the {kind} program differs from the policy by {error.max():.2g}: export another format")


def _describe(deployed: DeployedPolicy, program: Program, kind: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The description of a program: shapes, how to run it, where it comes from."""
    values = {"inputs": ", ".join(program.inputs), "feed": ", ".join(f"'{name}': {name}" for name in program.inputs)}
    return {
        "format": kind,
        "file": FILES[kind],
        "inputs": [
            {"name": name, "shape": [BATCH, *shape], "dtype": "float32"} for name, shape in program.inputs.items()
        ],
        "notes": program.notes,
        "outputs": [{"name": "action", "shape": [BATCH, deployed.spec.action_dim], "dtype": "float32"}],
        "action_low": deployed.bounds.low.tolist(),
        "action_high": deployed.bounds.high.tolist(),
        "how_to_run": [line.format(**values) for line in HOW_TO_RUN[kind]],
        **facts,
        "made_with": {"jax": jax.__version__},
        "task": deployed.task.to_json() if deployed.task else None,
        "made": dict(deployed.made),
    }
