"""Makes the documentation's pages of what the repository already says, so that every fact is written down once.

READMEs become pages, their links lead where the pages are, and docstrings become the API reference. The functions
before `on_config` need no mkdocs; those from there on are called by it, see `mkdocs.yml`.
"""

import ast
import functools
import importlib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = (  # files of the repository and their pages; the first pattern that fits counts
    ("README.md", "index.md"),
    ("CONTRIBUTING.md", "contributing.md"),
    ("CHANGELOG.md", "changelog.md"),
    ("docs/*.ipynb", "{0}.md"),
    ("docs/*.md", "{0}.md"),
    ("o2o_jax/online/*/README.md", "algorithms/online/{0}.md"),
    ("o2o_jax/offline/*/README.md", "algorithms/offline/{0}.md"),
    ("o2o_jax/envs/*/README.md", "environments/{0}.md"),
    ("o2o_jax/envs/*/*.md", "environments/{0}-{1}.md"),
    ("o2o_jax/envs/*/*/README.md", "environments/{0}-{1}.md"),
    ("experiments/results/*/README.md", "results/{0}.md"),
    ("benchmarks/README.md", "benchmarks/index.md"),
    ("benchmarks/results/README.md", "benchmarks/results.md"),
    ("benchmarks/NOTES.md", "benchmarks/notes.md"),
    ("tests/golden/README.md", "golden.md"),
)
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
CODE = re.compile(r"(?<![\[`])`([a-z_]\w*(?:\.\w+)*)`(?!\])")
DEPARTURE = re.compile(r"(?<![\w/#-])D-\d\d[a-z]?(?![\w-])")
PACKAGE = "o2o_jax"
INTERNAL = ("cli",)  # whose docstrings are in no reference: the page on flags says what commands take


@functools.cache
def pages() -> dict[str, str]:
    """Returns the page of every file that has one, by paths from the repository's and the documentation's root."""
    found: dict[str, str] = {}
    for pattern, page in PAGES:
        match = re.compile(re.escape(pattern).replace(r"\*", "([^/]+)")).fullmatch
        for path in sorted(ROOT.glob(pattern)):
            source = path.relative_to(ROOT).as_posix()
            found.setdefault(source, page.format(*match(source).groups()))  # type: ignore[union-attr]
    return found


def text_of(source: str) -> str:
    """Returns a file of the repository as Markdown, notebooks converted."""
    text = (ROOT / source).read_text(encoding="utf-8")
    return from_notebook(json.loads(text)) if source.endswith(".ipynb") else text


def from_notebook(notebook: dict[str, Any]) -> str:
    """Returns a notebook's cells as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        code = "".join(cell["source"])
        parts.append(code if cell["cell_type"] == "markdown" else f"```python\n{code}\n```")
        for output in cell.get("outputs", ()):
            parts.append("```text\n" + "".join(output["text"]).rstrip() + "\n```")
    return "\n\n".join(parts) + "\n"


def links(text: str) -> Iterator[str]:
    """Yields the targets of a page's links, those of its images too."""
    for piece in FENCED.split(text)[::2]:
        for match in LINK.finditer(piece):
            yield from (match[3], *links(match[2]))


def is_remote(target: str) -> bool:
    """Tells whether a link leaves the repository."""
    return re.match(r"[a-z]+:", target) is not None


def target_of(source: str, target: str) -> tuple[str, str]:
    """Returns the file or folder of the repository that a link in `source` leads to, and its anchor."""
    path, _, anchor = target.partition("#")
    return (posixpath.normpath(posixpath.join(posixpath.dirname(source), path)) if path else source), anchor


def assets(source: str) -> Iterator[str]:
    """Yields the files without a page, figures and tables of numbers, that a page's links lead to."""
    for target in links(text_of(source)):
        if not is_remote(target):
            path, _ = target_of(source, target)
            if path not in pages() and (ROOT / path).is_file():
                yield path


def relinked(text: str, source: str) -> str:
    """Returns a page's text with its links, which lead through the repository, leading through the documentation."""
    here = posixpath.dirname(pages()[source])

    def link(match: re.Match[str]) -> str:
        image, shown, target = match.groups()
        shown = LINK.sub(link, shown)
        if is_remote(target) or target.startswith("#"):
            return f"{image}[{shown}]({target})"
        path, anchor = target_of(source, target)
        page = pages().get(path) or pages().get(f"{path}/README.md")
        if page is None and (ROOT / path).is_dir():  # of run folders, which have no page, the name
            return f"{shown} (`{path}`)"
        place = posixpath.relpath(page or f"files/{path}", here or ".")
        return f"{image}[{shown}]({place}{'#' * bool(anchor)}{anchor})"

    pieces = FENCED.split(text)
    return "".join(LINK.sub(link, piece) if index % 2 == 0 else piece for index, piece in enumerate(pieces))


@functools.cache
def modules() -> dict[str, str]:
    """Returns the reference page of every public module: one for each, and one for a folder of a method or a family."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        *folders, name = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        if not any(part in INTERNAL or part.startswith("_") for part in (*folders, name.replace("__init__", ""))):
            own = [*folders] if name == "__init__" else [*folders, name]
            page = "/".join(own[:2]) or "index"
            is_package = len(own) == 1 and name == "__init__"
            found[".".join((PACKAGE, *own))] = f"reference/{page}{'/index' * (is_package and bool(own))}.md"
    return found


@functools.cache
def documented() -> frozenset[str]:
    """Returns the dotted names that the reference explains: modules, their functions and classes, methods."""
    names = set(modules())
    for module in modules():
        names |= {f"{module}.{name}" for name in _names(ast.parse(_file(module).read_text(encoding="utf-8")))}
    return frozenset(names)


def _file(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _names(body: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(body):
        if (
            isinstance(node, ast.FunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and ast.get_docstring(node)
        ):
            yield node.name
            if isinstance(node, ast.ClassDef):
                yield from (f"{node.name}.{name}" for name in _names(node))


def cross_referenced(text: str, source: str) -> str:
    """Returns a method's page with the functions that it names leading to the reference.

    A name is looked up in the method's own package, beside it, and from the top; one without a module in that of the
    name before it in the same line.
    """
    package = posixpath.dirname(source).replace("/", ".")
    scopes = [package, package.rpartition(".")[0], PACKAGE]

    def line(text: str) -> str:
        before: list[str] = []

        def reference(match: re.Match[str]) -> str:
            name = match[1].removeprefix(f"{PACKAGE}.")
            for scope in scopes if "." in name else before:
                if (full := f"{scope}.{name}") in documented():
                    before[:] = [full.rpartition(".")[0]]
                    return f"[`{match[1]}`][{full}]"
            return match[0]

        return CODE.sub(reference, text) if text.startswith("|") else text

    return "\n".join(map(line, text.split("\n")))


def reference_pages() -> Iterator[tuple[str, str]]:
    """Yields the pages of the API reference and their text."""
    of_page: dict[str, list[str]] = {}
    for module, page in modules().items():
        of_page.setdefault(page, []).append(module)
    for page, names in of_page.items():
        if page == "reference/index.md":
            yield page, public_names()
        else:
            yield page, "\n".join(_reference(name, level=1 + (name != names[0])) for name in names)


def _reference(module: str, level: int) -> str:
    """Directive for a module: of a package what its own file defines, and not what it takes from others."""
    path = _file(module)
    options = f"heading_level: {level}"
    if path.name == "__init__.py":
        own = [name for name in _names(ast.parse(path.read_text(encoding="utf-8"))) if "." not in name]
        options += f", members: {json.dumps(own) if own else 'false'}"
    return f"::: {module}\n    options: {{{options}}}\n"


def public_names() -> str:
    """Returns the page of what `import o2o_jax` gives, each name with the first line of its docstring."""
    package = importlib.import_module(PACKAGE)
    lines = ["# API reference", "", "What `import o2o_jax as o2o` gives:", "", "| | |", "|---|---|"]
    for name in package.__all__:
        value = getattr(package, name)
        full = value.__name__ if hasattr(value, "__path__") else f"{value.__module__}.{name}"
        lines.append(f"| [`{name}`][{full}] | {(value.__doc__ or '').strip().splitlines()[0]} |")
    return "\n".join([*lines, "", "The modules are on the pages of this section, by their names.", ""])


def flags_page() -> str:
    """Returns the page of every command's flags."""
    absl_flags = importlib.import_module("absl.flags")
    commands = importlib.import_module(f"{PACKAGE}.cli").COMMANDS
    parts = ["# Flags\n", "What `o2o <command> --help` says, on one page.\n"]
    for name in commands:
        command = importlib.import_module(f"{PACKAGE}.cli.{name}")
        values = absl_flags.FlagValues()
        command.define(values)
        explained = re.sub(
            r"^(?! {4})[^`\n]*", lambda line: line[0].replace("<", "&lt;"), command.__doc__ or "", flags=re.M
        )
        parts += [f"## o2o {name}\n", explained, "| flag | default | |\n|---|---|---|"]
        for flag in values:
            default = (values[flag].default_as_str or "").strip("'")
            parts.append(f"| `--{flag}` | {f'`{default}`' if default else ''} | {_plain(values[flag].help)} |")
        parts.append("")
    return "\n".join(parts)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, in a cell of a table."""
    return re.sub(r"([|*_])", r"\\\1", " ".join(text.split()).replace("<", "&lt;"))


def title_of(page: str, text: str) -> str:
    """Returns what the navigation calls a page: studies and modules by their names, others by their headings."""
    name = posixpath.basename(page).removesuffix(".md")
    if page.startswith(("results/", "reference/")):
        return name
    heading = re.search(r"^# (.+)$", text, re.MULTILINE)
    return heading[1] if heading else name


def expanded(nav: Iterable[Any], titles: dict[str, str]) -> list[Any]:
    """Returns a navigation in which an entry that ends in a slash, a folder, has become all pages in it."""
    entries: list[Any] = []
    for entry in nav:
        if isinstance(entry, str):
            entries += _folder(entry, titles) if entry.endswith("/") else [entry]
            continue
        ((name, value),) = entry.items()
        if isinstance(value, list):
            value = expanded(value, titles)
        elif value.endswith("/"):
            value = _folder(value, titles)
        entries.append({name: value})
    return entries


def _folder(prefix: str, titles: dict[str, str]) -> list[Any]:
    """Navigation of the pages under a folder, its own page first, folders within it as sections."""
    inside = sorted((page for page in titles if page.startswith(prefix)), key=lambda page: page.removesuffix(".md"))
    entries: list[Any] = [page for page in inside if page == f"{prefix}index.md"]
    for page in inside:
        folder, slash, _ = page.removeprefix(prefix).partition("/")
        if slash and {folder: None}.keys() not in [entry.keys() for entry in entries if isinstance(entry, dict)]:
            entries.append({folder: _folder(f"{prefix}{folder}/", titles)})
        elif not slash and page not in entries:
            entries.append({titles[page]: page})
    return entries


@functools.cache
def made() -> dict[str, str]:
    """Returns the pages that no file of `docs/` is, and their text."""
    found = {page: text_of(source) for source, page in pages().items() if f"docs/{page}" != source}
    return found | {"flags.md": flags_page()} | dict(reference_pages())


def navigation(nav: Iterable[Any]) -> list[Any]:
    """Returns the navigation of `mkdocs.yml` with all pages in it."""
    return expanded(nav, {page: title_of(page, text) for page, text in made().items()})


def on_config(config: Any) -> Any:
    """Completes the navigation. Called by mkdocs, also when a file has changed while it serves the pages."""
    for cached in (pages, modules, documented, made):
        cached.cache_clear()
    config.nav = navigation(config.nav)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are made, and figures and tables that pages lead to. Called by mkdocs."""
    from mkdocs.structure.files import File

    for page, text in made().items():
        files.append(File.generated(config, page, content=text))
    for path in sorted({path for source in pages() for path in assets(source)}):
        files.append(File.generated(config, f"files/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Leads links through the site. Called by mkdocs."""
    sources = {page: source for source, page in pages().items()}
    source = sources.get(page.file.src_uri)
    if source is None:
        return markdown
    if source.startswith(f"{PACKAGE}/o"):  # offline, online
        markdown = cross_referenced(markdown, source)
    if source == "docs/departures.md":
        markdown = re.sub(r"^\| (D-\d\d[a-z]?) \|", r'| <span id="\1">\1</span> |', markdown, flags=re.MULTILINE)
    return relinked(markdown, source)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Leads each mention of a departure to its line. Called by mkdocs."""
    if page.file.src_uri in ("departures.md", "changelog.md"):
        return html
    place = posixpath.relpath("departures.html", posixpath.dirname(page.file.src_uri) or ".")
    open_tags: list[str] = []

    def text(piece: str) -> str:
        if piece.startswith("<"):
            name = re.match(r"</?(\w*)", piece)[1]  # type: ignore[index]
            if name in ("a", "code", "pre", "h1", "h2", "h3"):
                if piece.startswith("</"):
                    open_tags.pop()
                else:
                    open_tags.append(name)
            return piece
        if open_tags:
            return piece
        return DEPARTURE.sub(lambda match: f'<a class="departure" href="{place}#{match[0]}">{match[0]}</a>', piece)

    return "".join(map(text, re.split(r"(<[^>]*>)", html)))
