"""Programs that several tests need, compiled once for a process.

A run that a test resumes, and the same run in another test, make their functions anew, and JAX would trace, lower and
compile them anew. Here two functions are the same one if they have the same code and are bound to equal values.
What they read beside these is not looked at: a test that patches what a program reads while it is traced, such as a
module's constant, does so within `apart`.
"""

import contextlib
import dataclasses
import functools
import types
from typing import Any

import jax
from jax._src import compiler

from o2o_jax.runtime import seeds

KEPT = 300  # programs, more than any one module makes; without a bound memory would grow with the suite
KEPT_EXECUTABLES = 3_000  # most of them are small: operations outside any program are one each

_compile = seeds.over_seeds
_read, _compile_anew = compiler._cache_read, compiler._compile_and_write_cache
_programs: dict[Any, Any] = {}  # those that were asked for last at the end
_executables: dict[str, Any] = {}  # likewise, by JAX's key of what is compiled and how


def share() -> None:
    """From now on `over_seeds` gives an equal function the program that it has; before anything imports it.

    Functions that differ may still be lowered to the same program, such as updates that don't read what differs: it is
    compiled once.
    """
    seeds.over_seeds = over_seeds
    compiler._cache_read, compiler._compile_and_write_cache = _read_executable, _compile_executable


def _read_executable(name, key, *arguments):
    seconds = 0.0  # that compilation took
    if key not in _executables:
        executable, seconds = _read(name, key, *arguments)
        if executable is None:
            return None, None
        _executables[key] = executable
    return _newest(_executables, key, None, KEPT_EXECUTABLES), seconds


def _compile_executable(backend, program, devices, options, callbacks, name, key):
    executable = _compile_anew(backend, program, devices, options, callbacks, name, key)
    if not callbacks:  # which are functions of this one program
        _newest(_executables, key, lambda: executable, KEPT_EXECUTABLES)
    return executable


@contextlib.contextmanager
def apart():
    """Within, every function is compiled anew; afterwards what was compiled there is gone."""
    before = dict(_programs)
    _programs.clear()
    try:
        yield
    finally:
        _programs.clear()
        _programs.update(before)


@functools.wraps(_compile)
def over_seeds(function, mesh, shared=(), donate=()):
    key = (_identity(function), mesh, tuple(shared), tuple(donate))
    return _newest(_programs, key, lambda: _compile(function, mesh, shared, donate))


def jit(function):
    """Compiles a function, such as an algorithm's update, unless an equal one has a program."""
    return _newest(_programs, (_identity(function),), lambda: jax.jit(function))


def _newest(kept, key, make, most=KEPT):
    """Returns what was made for a key, made now if it isn't there, and keeps it as the newest of so many."""
    kept[key] = kept.pop(key, None) or make()
    if len(kept) > most:
        del kept[next(iter(kept))]
    return kept[key]


class _Same:
    """A value equal to itself alone; keeps it, so that no other takes its place in memory."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self):
        return id(self.value)


def _identity(value):
    """Returns a function, or a value that it is bound to, as a key of a dictionary; 1, 1.0 and True differ."""
    if value is None or isinstance(value, bool | int | float | str | bytes | range):
        return type(value), repr(value)
    if isinstance(value, functools.partial):
        return functools.partial, _identity((value.func, value.args, value.keywords))
    if isinstance(value, types.MethodType):
        return types.MethodType, _identity((value.__func__, value.__self__))
    if isinstance(value, types.FunctionType):
        bound = tuple(_content(cell) for cell in value.__closure__ or ())
        return value.__code__, _Same(value.__globals__), _identity((bound, value.__defaults__, value.__kwdefaults__))
    if isinstance(value, tuple):  # a list may be what tracing writes to
        return type(value), tuple(_identity(item) for item in value)
    if isinstance(value, dict | types.MappingProxyType):
        return type(value), tuple((key, _identity(item)) for key, item in value.items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), tuple(_identity(getattr(value, field.name, None)) for field in dataclasses.fields(value))
    return _Same(value)


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return None
