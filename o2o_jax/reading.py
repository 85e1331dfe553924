"""Readers of what others made: files that anyone may have cut, damaged or written by hand, and numbers that their code
returns. Impure: reads the disk.

Whatever is wrong with it is one ValueError that names it and says what to do.
"""

import contextlib
import io
import json
import logging
import os
import re
import reprlib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Kinds = Mapping[str, Any]  # of types, or several in a tuple
NULL = type(None)
WORDS = {
    bool: "true or false",
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
    NULL: "null",
}
ANYTHING: Kinds = types.MappingProxyType({})
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class Record(dict[str, Any]):
    """A JSON object that knows where it is from: what it lacks is an error that names its file.

    Args:
      values: of the object.
      name: the file's.
      way_out: phrase that says what to do where it can't be used.
    """

    def __init__(self, values: Mapping[str, Any], name: str, way_out: str) -> None:
        super().__init__(values)
        self.name, self.way_out = name, way_out

    def __missing__(self, key: str) -> Any:
        raise self.refusal(f"it lacks {key!r}")

    def check(self, kinds: Kinds) -> "Record":
        """Returns the record, whose values are of these kinds, as far as they are there.

        Raises:
          ValueError: one isn't.
        """
        for key, kind in kinds.items():
            if key in self and not _is(self[key], kind):
                options = kind if isinstance(kind, tuple) else (kind,)
                wanted = " or ".join(WORDS[option] for option in options)
                raise self.refusal(f"{key} is {brief(reprlib.repr(self[key]), 100)}, expected {wanted}")
        return self

    def at(self, path: str, kind: type, default: Any) -> Any:
        """Returns a value by its path "part.field", or the default where it isn't there.

        Raises:
          ValueError: it is of another kind, or what should hold it is no object.
        """
        key, _, rest = path.partition(".")
        if key not in self:
            return default
        if not rest:
            return self.check({key: kind})[key]
        return Record(self.check({key: dict})[key], f"{key} of {self.name}", self.way_out).at(rest, kind, default)

    def refusal(self, reason: object) -> ValueError:
        """Returns the error that says why the file can't be used."""
        return ValueError(f"{self.name} is damaged ({brief(reason)}): {self.way_out}")

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Lays what goes wrong within, where values are put to use, to the file.

        Raises:
          ValueError: something does.
        """
        try:
            yield
        except KeyError as error:
            raise self.refusal(f"it lacks {error}") from error
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise self.refusal(error) from error


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Keeps what libraries log about their own work to themselves; what goes wrong there is raised too.

    Args:
      names: of their loggers.
    """
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in names}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def brief(reason: object, longest: int = 160) -> str:
    """Returns an error, or what else explains one, as one line of limited length."""
    text = str(reason) or type(reason).__name__
    line = " ".join(text[: 10 * longest].split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def local(path: str | os.PathLike) -> str:
    """Returns a path as text.

    Raises:
      ValueError: it is a URL, which would be a folder of that name.
    """
    text = os.fspath(path)
    if URL.match(text):
        raise ValueError(f"{brief(text)} is a URL: give a local path, and download what is to be read first")
    return text


def read_bytes(path: str | os.PathLike) -> bytes:
    """Reads a file.

    Raises:
      ValueError: it is a pipe, a socket or a device, which may never end.
    """
    file = Path(path)
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise ValueError(f"{path} is a pipe, a socket or a device: pass a file, into which you copy what it gives")
    return file.read_bytes()


def read_text(path: str | os.PathLike, way_out: str) -> str:
    """Reads a text in UTF-8.

    Args:
      path: of the file.
      way_out: phrase that says what to do where it can't be read.

    Raises:
      ValueError: it is none, or see `read_bytes`.
    """
    content = read_bytes(path)
    try:
        return content.decode()
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({brief(error)}): {way_out}") from error


def read_json(path: str | os.PathLike, way_out: str, kinds: Kinds = ANYTHING) -> Record:
    """Reads a JSON object.

    Args:
      path: of the file.
      way_out: phrase that says what to do where it can't be used.
      kinds: key -> type of its value, or several, of those that may be there.

    Raises:
      ValueError: it is no JSON, no object, or has a value of another kind.
    """
    return parse_json(read_text(path, way_out), str(path), way_out, kinds)


def parse_json(text: str, name: str, way_out: str, kinds: Kinds = ANYTHING) -> Record:
    """Returns a JSON object of a text; see `read_json`.

    Args:
      text: of the object.
      name: what messages call it: the file's.
      way_out: as of `read_json`.
      kinds: likewise.

    Raises:
      ValueError: likewise.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is damaged ({brief(error)}): {way_out}") from error
    if not isinstance(values, dict):
        held = brief(reprlib.repr(values), 100)
        raise ValueError(f"{name} is damaged (it holds {held}, expected an object): {way_out}")
    return Record(values, name, way_out).check(kinds)


def read_npz(path: str | os.PathLike, way_out: str, content: bytes | None = None) -> dict[str, np.ndarray]:
    """Reads all arrays [...] of an npz file, which must be of numbers or text.

    Args:
      path: of the file.
      way_out: phrase that says what to do where it can't be read.
      content: of the file, where it was read already.

    Raises:
      ValueError: it can't be.
    """
    arrays: dict[str, np.ndarray] = {}
    name = ""
    try:
        source = io.BytesIO(read_bytes(path) if content is None else content)
        with np.load(source, allow_pickle=False) as file:
            for name in file.files:
                arrays[name] = file[name]
        return arrays
    except Exception as error:  # of numpy, zipfile and zlib, by which part is damaged
        if name and "Object arrays" in str(error):
            raise ValueError(
                f"{path}: {brief(name, 60)} is an array of Python objects, not of numbers: save it with "
                ".astype(np.float32), its rows of one length"
            ) from error
        raise ValueError(f"{path} is damaged or no npz file of numbers ({brief(error)}): {way_out}") from error


def read_numbers(values: Any, what: str) -> np.ndarray:
    """Returns real numbers [...] that somebody's code passes or returns, in their own type.

    Args:
      values: an array, or what makes one.
      what: what messages call them, in the plural.

    Raises:
      ValueError: they are text, complex, or no array at all.
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiubcSUmM":
            array = array.astype(np.float32)  # such as bfloat16, or Python's fractions
    except (TypeError, ValueError, RuntimeError) as error:  # of numpy, or of the library that the values are from
        raise ValueError(f"{what} must be one array of numbers ({brief(error)})") from error
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{what} must be one array of numbers, got type {array.dtype}")
    return array


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Returns whether a JSON value is of a kind; true and false are no numbers, and whole numbers are numbers."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))
