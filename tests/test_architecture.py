"""Imports go one way, side effects and compilation stay where they belong, importing the package is light, and
docstrings say what they have to.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "o2o_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A module may import from its own layer and from those below.
LAYERS = [
    {"types", "reading", "registry", "settings"},
    {"interfaces", "ops"},
    {"networks"},
    {"policy", "critic", "data", "training", "losses", "diagnosis", "operations", "making"},
    {"offline", "online", "envs"},
    {"runtime"},
    {"jobs"},
    {"studies"},
    {"cli"},
]
HEIGHT = {part: height for height, layer in enumerate(LAYERS) for part in layer}
# ... but in one layer these are strangers.
# A door that opens one way: online methods may continue an offline update, offline ones know of none online.
STRANGERS = {
    "offline": {"online", "envs"}, "online": {"envs"}, "envs": {"offline", "online"}, "runtime": {"offline", "online"},
}  # fmt: skip
ENSEMBLE = PACKAGE / "offline" / "cql_ensemble" / "algorithm.py"
# online methods that continue an offline update
CONTINUED = {"aca", "awac", "cal_ql", "continued", "iql", "odt", "off2on", "pex", "proto_td3"}


def imports(path):
    """Dotted names of everything that a module imports, wherever in it the import is."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def attributes(path):
    """Dotted names like `jax.vmap` that a module mentions."""
    return {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}


def part(path):
    """The part of the package that a module belongs to: its folder or, at the top, its own name."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_go_one_way(path):
    if path == PACKAGE / "__init__.py":
        return
    here = part(path)
    for imported in imports(path):
        package, _, rest = imported.partition(".")
        assert package not in ("experiments", "benchmarks"), f"{name(path)} imports {imported}"
        if package == "o2o_jax":
            there = rest.split(".")[0]
            assert there in HEIGHT, f"{name(path)} imports {imported}, which has no layer"
            assert HEIGHT[there] <= HEIGHT[here], f"{name(path)} imports {imported} from a layer above"
            assert there not in STRANGERS.get(here, ()), f"{name(path)} imports {imported}"
            if (here, there) == ("online", "offline"):
                assert path.relative_to(PACKAGE).with_suffix("").parts[1] in CONTINUED, (
                    f"{name(path)} imports {imported}"
                )


def test_every_part_has_a_layer():
    assert {part(path) for path in MODULES} - {"__init__"} == HEIGHT.keys()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_networks_imports_linen(path):
    if part(path) != "networks":
        assert not any(imported.startswith("flax.linen") for imported in imports(path))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_the_checkpoint_module_imports_orbax(path):
    if path != PACKAGE / "runtime" / "checkpoint.py":
        assert not any(imported.startswith("orbax") for imported in imports(path))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_compilation_is_in_the_shell(path):
    # Updates are pure functions of one seed, so that they can be embedded in anyone's jit, vmap and scan.
    # Acting in a simulator is impure anyway.
    # The agents of an ensemble are several within a seed.
    if part(path) != "runtime" and path not in (PACKAGE / "envs" / "behaviour.py", ENSEMBLE):
        assert not {"jax.jit", "jax.vmap", "jax.pmap", "jax.shard_map"} & (attributes(path) | imports(path))


def test_importing_the_package_is_light():
    heavy = ["matplotlib", "minari", "gymnasium", "mujoco", "h5py", "orbax", "tensorboardX", "wandb", "trackio", "tqdm"]
    code = f"import o2o_jax, sys; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def docstrings(path):
    """First lines of a module's docstrings, its functions' and classes' among them."""
    nodes = ast.walk(ast.parse(path.read_text()))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return [text.splitlines()[0] for node in nodes if isinstance(node, kinds) and (text := ast.get_docstring(node))]


SOURCES = sorted(
    path for folder in ("o2o_jax", "experiments", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")
)
QUESTIONS = {"What", "Who", "Whose", "Whether", "Where", "How", "By", "When", "Why", "Which", "This"}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_docstrings_open_with_a_verb_or_a_noun(path):
    assert [line for line in docstrings(path) if line.split()[0] in QUESTIONS] == []


def public(path):
    """Pairs of a module's public functions and methods, in the file's order, and their docstrings."""
    body = ast.parse(path.read_text()).body
    classes = [node for node in body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    nodes = body + [node for each in classes for node in each.body]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    return [(function, ast.get_docstring(function) or "") for function in functions]


@pytest.mark.parametrize("path", [path for path in MODULES if HEIGHT.get(part(path), 9) < HEIGHT["runtime"]], ids=name)
def test_docstrings_tell_the_errors(path):
    raising = [(f, text) for f, text in public(path) if any(isinstance(node, ast.Raise) for node in ast.walk(f))]
    assert [f.name for f, text in raising if "Raises:" not in text] == []


SHAPE = re.compile(r"\[[\w.,*+−/⌊⌋ ]*\]")  # [], [B], [..., O], [K + 1], [⌊B/2⌋]


def takes_arrays(function):
    """Tells whether arrays other than a random key come in or go out."""
    hints = [arg.annotation for arg in function.args.args if arg.arg != "key"] + [function.returns]
    return any(re.search(r"\b(Array|ndarray)\b", ast.unparse(hint)) for hint in hints if hint is not None)


@pytest.mark.parametrize("path", [path for path in MODULES if HEIGHT.get(part(path), 9) <= HEIGHT["data"]], ids=name)
def test_docstrings_tell_the_shapes(path):
    assert [f.name for f, text in public(path) if takes_arrays(f) and not SHAPE.search(text)] == []
