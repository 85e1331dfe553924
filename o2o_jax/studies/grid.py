"""Grids of runs: a study's file, and the commands that it stands for. `load` reads the disk, the rest is pure."""

import dataclasses
import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from o2o_jax import registry
from o2o_jax.reading import Record, brief, read_text

SHIPPED = Path(__file__).parent
SUFFIX = ".toml"
DATASET, OFFLINE, FINETUNE = "dataset", "offline", "finetune"  # commands that cells are of
NO_NAME = re.compile(r"[^\w.=-]+")  # letters that a folder's name is better without
WAY_OUT = "mend it as the documentation of studies says"

PUBLISHED = ("offline", "aligned", "final")  # scores that papers print
OWN_FLAGS = ("algorithm", "dataset", "env", "out", "policy", "reconstruction", "resume", "seeds", "set")

_KINDS = {
    "title": str, "about": str, "base": str, "tasks": list, "seeds": int, "datasets": dict, "defaults": dict,
    "offline": dict, "online": dict, "published": dict, "published_note": str,
}  # fmt: skip
_DEFAULT_KINDS = {"set": list, "fast": list, "flags": list}
_METHOD_KINDS = {**_DEFAULT_KINDS, "algorithm": str, "label": str, "tasks": list}
_ONLINE_KINDS = {**_METHOD_KINDS, "from": list, "vary": dict, "reconstruction": str}


@dataclasses.dataclass(frozen=True)
class Method:
    """An algorithm of a study, with its settings.

    Attributes:
      name: in the study.
      algorithm: its name.
      label: in reports.
      tasks: names of those that it runs on.
      settings: schedule -> "field=value" each, as of --set.
      flags: others of its command, without their dashes.
      starts: names of offline methods that it starts from; an offline method has none.
      reconstruction: name of the online method whose phases before the first environment step it takes; "" for its own.
    """

    name: str
    algorithm: str
    label: str
    tasks: tuple[str, ...]
    settings: Mapping[str, tuple[str, ...]]
    flags: tuple[str, ...]
    starts: tuple[str, ...] = ()
    reconstruction: str = ""


@dataclasses.dataclass(frozen=True)
class Study:
    """Grid of runs.

    Attributes:
      name: as `find` takes it.
      title: of its report.
      about: what it shows, in words.
      tasks: their full names.
      seeds: of each run, side by side.
      datasets: Minari id or path of a task's data, where they aren't the task's own.
      dataset_flags: of the command that makes a task's own data.
      offline: methods, by name.
      online: likewise, those that vary a setting once for each value.
      published: task -> label -> scores that the study is held against, by `PUBLISHED`.
      published_note: of what they are, and how they compare, in words.
    """

    name: str
    title: str
    about: str
    tasks: tuple[str, ...]
    seeds: int
    datasets: Mapping[str, str]
    dataset_flags: tuple[str, ...]
    offline: Mapping[str, Method]
    online: Mapping[str, Method]
    published: Mapping[str, Mapping[str, Mapping[str, float]]]
    published_note: str


@dataclasses.dataclass(frozen=True)
class Cell:
    """One command of a study.

    Cells of two studies that are the same, down to what they start from, have one name: whoever needs one makes it.

    Attributes:
      name: of its folder, below that of all studies.
      command: DATASET, OFFLINE or FINETUNE.
      task: full name.
      arguments: of the command, without folders.
      needs: names of cells that must be done before, by the flag that takes their folder, "" for what it only needs.
      label: in reports, with where it starts.
      method: name of its method in the study.
    """

    name: str
    command: str
    task: str
    arguments: tuple[str, ...]
    needs: tuple[tuple[str, str], ...] = ()
    label: str = ""
    method: str = ""

    def argv(self, root: Path) -> list[str]:
        """Returns the command line of `o2o`, which does no harm when it is repeated.

        Args:
          root: folder of all studies.
        """
        folders = [f"--{flag}={root / name}" for flag, name in self.needs if flag]
        out = [] if self.command == DATASET else [f"--out={root / self.name}", "--resume"]
        return [self.command, *self.arguments, *folders, *out]


def names() -> list[str]:
    """Returns the names of the studies that come with the package, sorted."""
    return sorted(str(path.relative_to(SHIPPED).with_suffix("")) for path in SHIPPED.rglob(f"*{SUFFIX}"))


def load(name: str) -> Study:
    """Reads a study. Impure.

    Args:
      name: of one of `names()`, or a path that ends in .toml.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: no such study, or the file is damaged.
    """
    values, bases = _read(name), [name]
    while base := values.at("base", str, ""):
        if base in bases:
            raise values.refusal(f"it is its own base, by way of {base}")
        bases.append(base)
        values.pop("base")
        values = Record({**_read(base), **values}, values.name, WAY_OUT)
    return parse(Path(name).stem if name.endswith(SUFFIX) else name, values)


def _read(name: str) -> Record:
    """Returns the values of a study's file. Impure.

    Raises:
      FileNotFoundError, ValueError: see `load`.
    """
    if name.endswith(SUFFIX):
        path = Path(name)
        if not path.is_file():
            raise FileNotFoundError(f"the study {path} does not exist: pass a file, or one of {', '.join(names())}")
    elif name in names():
        path = SHIPPED / f"{name}{SUFFIX}"
    else:
        raise ValueError(f"{registry.unknown('study', name, names())}; one of your own is a path that ends in {SUFFIX}")
    try:
        return Record(tomllib.loads(read_text(path, WAY_OUT)), str(path), WAY_OUT)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is damaged ({brief(error)}): {WAY_OUT}") from error


def parse(name: str, values: Record) -> Study:
    """Returns the study that a file's values declare.

    Args:
      name: of the study.
      values: of the file.

    Raises:
      ValueError: a value is of another kind, a name unknown to the file, or nothing is declared.
    """
    _known(values, _KINDS)
    tasks, seeds = _texts(values, "tasks"), values.at("seeds", int, 1)
    if not tasks:
        raise values.refusal("tasks names none")
    if seeds < 1:
        raise values.refusal(f"seeds is {seeds}")
    defaults = Record(values.at("defaults", dict, {}), f"defaults of {values.name}", WAY_OUT)
    _known(defaults, {DATASET: dict, OFFLINE: dict, "online": dict})
    made: dict[str, dict[str, Method]] = {}
    for kind, kinds in ((OFFLINE, _METHOD_KINDS), ("online", _ONLINE_KINDS)):
        common = _table(defaults, kind, _DEFAULT_KINDS)
        tables = Record(values.at(kind, dict, {}), f"{kind} of {values.name}", WAY_OUT)
        methods = [_methods(each, _table(tables, each, kinds), common, tasks) for each in tables]
        made[kind] = {method.name: method for method in itertools.chain(*methods)}
    if not made[OFFLINE]:
        raise values.refusal("it declares no [offline.<method>], from which others start")
    for method in made["online"].values():
        if not method.starts:
            raise values.refusal(f"online.{method.name}: from names no offline method")
        for start in method.starts:
            if start not in made[OFFLINE]:
                raise values.refusal(f"online.{method.name}: {registry.unknown('start', start, made[OFFLINE])}")
        shared = method.reconstruction
        if shared and (shared not in made["online"] or made["online"][shared].reconstruction or shared == method.name):
            options = [each.name for each in made["online"].values() if not each.reconstruction]
            raise values.refusal(f"online.{method.name}: {registry.unknown('reconstruction', shared, options)}")
    published = Record(values.at("published", dict, {}), f"published of {values.name}", WAY_OUT)
    return Study(
        name=name,
        title=values.at("title", str, name),
        about=values.at("about", str, ""),
        tasks=tasks,
        seeds=seeds,
        datasets=_datasets(values),
        offline=made[OFFLINE],
        online=made["online"],
        dataset_flags=_flags(_table(defaults, DATASET, {"flags": list})),
        published={task: _scores(published, task) for task in published},
        published_note=values.at("published_note", str, ""),
    )


def cells(study: Study, schedule: str, seeds: int | None = None, only: Sequence[str] = ()) -> list[Cell]:
    """Returns the cells of a study, each after those that it needs.

    Args:
      study: of them.
      schedule: "paper" or "fast", that settings of online methods start from.
      seeds: of each run; None for those of the study.
      only: names of tasks and methods, or parts of them; those of tasks leave other tasks out, those of methods other
        methods. What is left brings what it needs.

    Raises:
      ValueError: a part is in no name.
    """
    common = (f"--seeds={seeds or study.seeds}",)
    found: dict[str, Cell] = {}

    def add(command: str, task: str, method: Method, arguments: Iterable[str], needs: Mapping[str, Cell]) -> Cell:
        settings = [f"--set={each}" for each in method.settings[schedule]]
        arguments = (*arguments, *settings, *(f"--{each}" for each in method.flags))
        path = [cell.method for flag, cell in needs.items() if flag == "policy"] + [method.name]
        needed = {flag: cell.name for flag, cell in needs.items()}
        starts = [study.offline[name].label for name in path[:-1]] if len(method.starts) > 1 else []
        cell = Cell(
            name=f"{_slug(task)}/{_slug('-'.join(path))}-{_digest([command, task, arguments, needed])}",
            command=command,
            task=task,
            arguments=arguments,
            needs=tuple(needed.items()),
            label=" → ".join([*starts, method.label]),
            method=method.name,
        )
        return found.setdefault(cell.name, cell)

    def data(task: str) -> Cell:
        arguments = (f"--env={task}", *(f"--{each}" for each in study.dataset_flags))
        cell = Cell(f"{_slug(task)}/dataset", DATASET, task, arguments)
        return found.setdefault(cell.name, cell)

    def offline(task: str, name: str) -> Cell:
        method, own = study.offline[name], study.datasets.get(task)
        arguments = [f"--algorithm={method.algorithm}", f"--env={task}", *common]
        if own:
            return add(OFFLINE, task, method, [*arguments, f"--dataset={own}"], {})
        return add(OFFLINE, task, method, arguments, {"": data(task)})

    def finetune(task: str, start: str, method: Method) -> Cell:
        needs = {"policy": offline(task, start)}
        if method.reconstruction:
            needs["reconstruction"] = finetune(task, start, study.online[method.reconstruction])
        return add(
            FINETUNE, task, method, [f"--algorithm={method.algorithm}", f"--schedule={schedule}", *common], needs
        )

    for task in study.tasks:
        for method in [*study.online.values()] or [*study.offline.values()]:
            if task in method.tasks:
                for start in method.starts:
                    finetune(task, start, method)
                if not method.starts:
                    offline(task, method.name)
    return _chosen(study, found, only)


def _chosen(study: Study, found: Mapping[str, Cell], only: Sequence[str]) -> list[Cell]:
    """Returns the cells that `only` asks for, and those that they need.

    Raises:
      ValueError: see `cells`.
    """
    methods, tasks = {**study.offline, **study.online}, {name for task in study.tasks for name in _task_names(task)}
    for part in only:
        if not any(part in name for name in (*tasks, *methods)):
            raise ValueError(registry.unknown("part of a task's or method's name", part, (*study.tasks, *methods)))
    of_tasks = [part for part in only if any(part in name for name in tasks)]
    of_methods = [part for part in only if part not in of_tasks]

    def meant(part: str, names: Iterable[str], whole: Collection[str]) -> bool:
        # a whole name is that of its bearer, even where it is part of another's
        return part in names if part in whole else any(part in name for name in names)

    def asked(cell: Cell) -> bool:
        names = [cell.method, *(found[name].method for _, name in cell.needs)]
        return (not of_tasks or any(meant(part, _task_names(cell.task), tasks) for part in of_tasks)) and (
            not of_methods or any(meant(part, names, methods) for part in of_methods)
        )

    chosen = {name for name, cell in found.items() if cell.command != DATASET and asked(cell)}
    for cell in reversed([*found.values()]):  # each comes after those that it needs
        if cell.name in chosen:
            chosen |= {name for _, name in cell.needs}
    return [cell for name, cell in found.items() if name in chosen]


def _task_names(task: str) -> tuple[str, str]:
    """Returns a task's full name, and the part that its folders have."""
    return task, task.partition("/")[2] or task


def _methods(name: str, values: Record, common: Record, tasks: tuple[str, ...]) -> list[Method]:
    """Returns the methods of a table: one, or one for each combination of values that it varies."""
    varied = Record(values.at("vary", dict, {}), f"vary of {values.name}", WAY_OUT)
    options = [[(field, value) for value in _texts(varied, field)] for field in varied]
    methods = []
    paper = (*_texts(common, "set"), *_texts(values, "set"))
    fast = (*_texts(common, "set"), *_texts(common, "fast"), *_texts(values, "set"), *_texts(values, "fast"))
    for values_of in itertools.product(*options):
        chosen = tuple(f"{field}={value}" for field, value in values_of)
        label = values.at("label", str, name)
        methods.append(
            Method(
                name="-".join([name, *chosen]),
                algorithm=values.at("algorithm", str, name),
                label=f"{label}, {', '.join(chosen)}" if chosen else label,
                tasks=_texts(values, "tasks") or tasks,
                settings={"paper": (*paper, *chosen), "fast": (*fast, *chosen)},
                flags=(*_flags(common), *_flags(values)),
                starts=_texts(values, "from"),
                reconstruction=values.at("reconstruction", str, ""),
            )
        )
    return methods


def _table(values: Record, name: str, kinds: Mapping[str, Any]) -> Record:
    """Returns a table of the file, empty where it isn't there, which has no other names than those of `kinds`."""
    table = Record(values.check({name: dict}).get(name, {}), f"{name} of {values.name}", WAY_OUT)
    _known(table, kinds)
    return table


def _known(values: Record, kinds: Mapping[str, Any]) -> None:
    for name in values:
        if name not in kinds:
            raise values.refusal(registry.unknown("name", name, kinds))
    values.check(kinds)


def _texts(values: Record, name: str) -> tuple[str, ...]:
    """Returns a list of the file as texts, as a command line has them: true, 0.5, none."""
    entries = values.check({name: list}).get(name, [])
    if any(isinstance(entry, dict | list) for entry in entries):
        raise values.refusal(f"{name} has a list or a table within")
    return tuple(str(entry).lower() if isinstance(entry, bool) else str(entry) for entry in entries)


def _flags(values: Record) -> tuple[str, ...]:
    """Returns flags of a table's commands, none of which the study gives them itself."""
    flags = _texts(values, "flags")
    for flag in flags:
        if flag.partition("=")[0] in OWN_FLAGS:
            raise values.refusal(f"flags has {brief(flag)}, which the study says by keys of its own")
    return flags


def _datasets(values: Record) -> dict[str, str]:
    datasets = Record(values.at("datasets", dict, {}), f"datasets of {values.name}", WAY_OUT)
    return dict(datasets.check(dict.fromkeys(datasets, str)))


def _scores(values: Record, task: str) -> dict[str, dict[str, float]]:
    """Returns what is published of a task by label: a score alone is the final one."""
    table = Record(values.check({task: dict})[task], f"{task} of {values.name}", WAY_OUT)
    found = {}
    for label in table.check(dict.fromkeys(table, (float, dict))):
        scores = table[label] if isinstance(table[label], dict) else {PUBLISHED[-1]: table[label]}
        record = Record(scores, f"{label} of {table.name}", WAY_OUT)
        _known(record, dict.fromkeys(PUBLISHED, float))
        found[label] = dict(record)
    return found


def _slug(text: str) -> str:
    """Returns a text as part of a path."""
    return NO_NAME.sub("_", _task_names(text)[1])


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]
