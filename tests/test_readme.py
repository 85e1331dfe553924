"""README and documentation: examples run, commands and flags exist, links lead somewhere, and no page is left out."""

import functools
import importlib
import json
import re
import types

import gymnasium
import jax
import numpy as np
import pytest
import yaml
from absl.flags import FlagValues

import o2o_jax as o2o
from docs import hooks
from o2o_jax import cli, offline, online
from o2o_jax.data import sources
from o2o_jax.settings import paths
from tests import tiny

ROOT = hooks.ROOT
README = "README.md"
PAGES = [page for page in hooks.pages() if page == README or page.startswith("docs/")]
# all of which run here
EXAMPLES = {README: 1, "docs/embedding.ipynb": 6, "docs/data.md": 1, "docs/library.md": 1, "docs/policies.md": 4}
BENCHMARKS = ("updates", "seeds", "loop", "pipeline", "memory", "compare", "time_to_score", "gpu")
FOLDERS = {"experiments": cli.COMMANDS, "benchmarks": BENCHMARKS}


def examples(page):
    """The Python examples of a page, each a screen at most."""
    found = re.findall(r"```python\n(.*?)```", hooks.text_of(page), re.DOTALL)
    assert all(len(example.strip().splitlines()) <= 25 for example in found)
    return found


def run(code, page, **names):
    """Names that code defines beside those that it is given."""
    exec(compile(code, page, "exec"), names)
    return names


@pytest.mark.parametrize("page", PAGES)
def test_no_example_goes_untested(page):
    assert len(examples(page)) == EXAMPLES.get(page, 0)


def test_readme_is_read_in_three_minutes():
    text = (ROOT / README).read_text()
    assert len(text.split()) <= 620
    first = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert len(first.splitlines()) == 3
    assert text.count("\n## ") <= 7


def test_the_examples_of_policies_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = o2o.Spec(observation_dim=11, action_dim=3)
    data = types.SimpleNamespace(on_device=lambda: tiny.random_batch(spec, 64))
    clone = functools.partial(o2o.clone, config=o2o.CloneConfig(hidden=(4,), updates=2, batch_size=4))
    package = types.SimpleNamespace(wrap=o2o.wrap, clone=clone, save_policy=o2o.save_policy)
    model = types.SimpleNamespace(
        action_space=gymnasium.spaces.Box(-2, 2, (3,)), predict=lambda observation, **_: (observation[..., :3], None)
    )
    library = types.SimpleNamespace(SAC=types.SimpleNamespace(load=lambda path: model))
    *calling, keeping, starting = examples("docs/policies.md")
    run(starting, "docs/policies.md", o2o=package, jax=jax, data=data, stable_baselines3=library)
    (tmp_path / "runs").mkdir()
    (tmp_path / "policies" / "mine").rename(tmp_path / "runs" / "o2td3")
    names = run(calling[0], "docs/policies.md", observation=np.zeros(11))
    assert names["action"].shape == (3,)
    run(calling[1], "docs/policies.md", **names | {"env": gymnasium.make("Hopper-v5", max_episode_steps=5)})
    assert run(keeping, "docs/policies.md", **names)["policy"].task.name == "mujoco/hopper-medium"


@pytest.mark.parametrize(("source", "target"), [("td3_bc", "o2td3"), ("iql", "o2sac")])
def test_the_bridge_runs(source, target, monkeypatch):
    spec = o2o.Spec(observation_dim=4, action_dim=2)
    data = tiny.random_rollout(spec)
    sizes = {"hidden": (8, 8), "critic_hidden": (8, 8)}
    with_head = o2o.with_head
    monkeypatch.setattr(o2o, "with_head", lambda *of: with_head(*of, o2o.CloneConfig(hidden=(8, 8), updates=2)))
    start, end = offline.load(source), online.load(target)
    algorithm = start.make(tiny.configure(start.Config, **sizes), spec)
    started = end.make(tiny.configure(end.Config, **sizes), spec)
    names = run(
        examples(README)[0],
        README,
        o2o=o2o,
        offline=algorithm,
        offline_state=jax.jit(algorithm.init)(jax.random.key(0), o2o.Normalizer.fit(data.observation)),
        online=started._replace(init=jax.jit(started.init)),
        data=data,
        key=jax.random.key(1),
    )
    assert names["handoff"].policy.head == names["online"].requires.head
    assert names["handoff"].source == source
    assert names["online"].policy(names["state"]).distribution(data.observation[:2]).mode().shape == (2, 2)


def test_the_notebook_runs():
    notebook = json.loads((ROOT / "docs" / "embedding.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert (notebook["nbformat"], len({cell["id"] for cell in notebook["cells"]})) == (4, len(notebook["cells"]))
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    names: dict = {}
    for cell in cells:
        names = run("".join(cell["source"]), "docs/embedding.ipynb", **names)
    assert names["actions"].shape == (2, 3)
    assert all(np.isfinite(names["metrics"][term]).all() for term in ("critic_loss", "q"))
    assert int(names["states"].step[0]) == 1


def test_example_of_own_data_runs():
    names = run(examples("docs/data.md")[0], "docs/data.md")
    assert names["data"].size == 995  # five episodes were cut, without an observation after their last step
    assert int(names["state"].step) == 20
    assert np.isfinite(names["metrics"]["critic_loss"])
    action = names["handoff"].policy.distribution(np.zeros((2, 3), np.float32)).mode()
    assert action.shape == (2, 1)


def test_arrays_of_the_npz_file_have_the_names_of_the_example():
    (call,) = re.findall(r"Dataset\.from_arrays\(\n(.*?)\n\)", hooks.text_of("docs/data.md"), re.DOTALL)
    assert tuple(re.findall(r"^ +(\w+)=", call, re.MULTILINE)) == sources.NPZ_KEYS


def flags_of(name):
    values = FlagValues()
    importlib.import_module(f"o2o_jax.cli.{name}").define(values)
    return set(values) | {"help", "debug"}


@pytest.mark.parametrize("page", hooks.pages())
def test_commands_and_their_flags_exist(page):
    text = re.sub(r" \\\n\s*", " ", hooks.text_of(page))
    commands = re.findall(r"(?:python -m (experiments|benchmarks)\.|\b(o2o) +)(\w+)\b((?: +(?:…|--[^`\n]*))?)", text)
    for folder, installed, name, arguments in commands:
        assert name in FOLDERS[folder or "experiments"], name
        if installed or folder == "experiments":
            assert set(re.findall(r"--(\w+)", arguments.partition("#")[0])) <= flags_of(name), (name, arguments)


@pytest.mark.parametrize("page", PAGES)
def test_named_files_of_commands_exist(page):
    for folder, name in set(re.findall(r"\b(experiments|benchmarks)\.(\w+)", hooks.text_of(page))):
        assert (ROOT / folder / f"{name}.py").exists(), name


def slug(heading):
    """Anchor of a heading, as repositories and the documentation make it."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower()).replace(" ", "-")


@pytest.mark.parametrize("page", hooks.pages())
def test_links_lead_somewhere(page):
    for target in hooks.links(hooks.text_of(page)):
        if not hooks.is_remote(target):
            path, anchor = hooks.target_of(page, target)
            assert (ROOT / path).exists(), target
            if anchor:
                headings = re.findall(r"^#+ (.+)$", hooks.text_of(path), re.MULTILINE)
                assert anchor in map(slug, headings), target


def test_links_become_those_of_the_site():
    text = "[a](../o2o_jax/online/o2td3/README.md#two-schedules) [![b](../benchmarks/results/seeds.png)](data.md) [c](https://d)"
    assert hooks.relinked(text, "docs/results.md") == (
        "[a](algorithms/online/o2td3.md#two-schedules) [![b](files/benchmarks/results/seeds.png)](data.md) [c](https://d)"
    )
    text = "[d](walker2d-without-price) [e](../fast/README.md)\n```\n[f](g)\n```\n"
    assert hooks.relinked(text, "experiments/results/o2sac/README.md") == (
        "d (`experiments/results/o2sac/walker2d-without-price`) [e](fast.md)\n```\n[f](g)\n```\n"
    )


def leaves(nav):
    """Pages of a navigation, in its order."""
    for entry in nav:
        value = entry if isinstance(entry, str) else next(iter(entry.values()))
        yield from [value] if isinstance(value, str) else leaves(value)


def test_every_page_is_in_the_navigation_once():
    nav = hooks.navigation(yaml.load((ROOT / "mkdocs.yml").read_text(), yaml.BaseLoader)["nav"])
    assert sorted(leaves(nav)) == sorted({*hooks.pages().values(), *hooks.made()})


METHODS = [page for page in hooks.pages() if re.match(r"o2o_jax/(online|offline)/", page)]


def test_every_method_has_a_page_and_a_line():
    assert len(METHODS) == len(online.names()) + len(offline.names())
    for overview in (README, "docs/algorithms.md"):
        targets = {hooks.target_of(overview, target)[0] for target in hooks.links(hooks.text_of(overview))}
        assert targets >= set(METHODS)


@pytest.mark.parametrize("page", METHODS)
def test_functions_of_equation_tables_exist(page):
    _, kind, name, _ = page.split("/")
    config = {"online": online, "offline": offline}[kind].load(name).Config
    known = {*paths(config()), *(path.rpartition(".")[0] for path in paths(config()))}
    for line in hooks.cross_referenced(hooks.text_of(page), page).splitlines():
        if line.startswith("|"):
            unknown = {name for name in hooks.CODE.findall(line) if "." in name} - known
            assert not {name for name in unknown if not name.startswith(("experiments.", "optax."))}, line


def test_what_the_package_exports_is_in_the_reference():
    named = re.findall(r"^\| \[`\w+`\]\[(.+?)\]", hooks.public_names(), re.MULTILINE)
    assert len(named) == len(o2o.__all__)
    assert set(named) <= hooks.documented()


def test_departures_that_code_and_pages_cite_are_on_their_page():
    page = (ROOT / "docs" / "departures.md").read_text()
    known = set(re.findall(r"^\| (D-\d\d\w?) \|", page, re.MULTILINE))
    files = [path for folder in ("o2o_jax", "experiments", "tests") for path in (ROOT / folder).rglob("*.py")]
    files += [ROOT / page for page in hooks.pages()]
    cited = {number for path in files for number in re.findall(r"\bD-\d\d\b[a-z]?", path.read_text())}
    assert len(known) == 60  # D-01 to D-59, and D-06a
    assert cited
    assert cited <= known


def test_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert f'version="{citation["version"]}"' in (ROOT / "setup.py").read_text()
    (paper,) = citation["references"]
    entry = (ROOT / README).read_text().partition("```bibtex")[2]
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert f"{{{authors}}}" in entry
    assert paper["title"] in re.sub(r"\{(RL)\}", r"\1", entry)
    assert paper["identifiers"][0]["value"] in entry
