"""Readers of files that may be damaged; files of every kind are damaged in `tests/trust`."""

import fractions

import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import reading

WAY_OUT = "write it again"


def record(text, **kinds):
    return reading.parse_json(text, "a.json", WAY_OUT, kinds)


@pytest.mark.parametrize(
    ("text", "kinds", "message"),
    [
        ("{", {}, "a.json is damaged .Expecting property name.*: write it again"),
        ("[" * 100_000, {}, "a.json is damaged .maximum recursion depth"),
        ("[1]", {}, r"a.json is damaged .it holds \[1\], expected an object"),
        ('{"n": 1.5}', {"n": int}, "n is 1.5, expected a whole number"),
        ('{"n": true}', {"n": int}, "n is True, expected a whole number"),
        ('{"n": null}', {"n": (str, dict)}, "n is None, expected a text or an object"),
    ],
)
def test_what_is_no_such_object_is_refused(text, kinds, message):
    with pytest.raises(ValueError, match=message):
        record(text, **kinds)


def test_values_by_their_paths():
    found = record('{"a": {"b": 3}, "c": 1}', a=dict, c=float, absent=str)
    assert (found.at("a.b", int, 0), found.at("a.x", int, 7), found.at("x.y", int, 8)) == (3, 7, 8)
    with pytest.raises(ValueError, match="a of a.json is damaged .b is 3, expected a text"):
        found.at("a.b", str, "")
    with pytest.raises(ValueError, match="c is 1, expected an object"):
        found.at("c.d", int, 0)
    with pytest.raises(ValueError, match="a.json is damaged .it lacks 'x'.: write it again"):
        found["x"]


def test_what_goes_wrong_with_the_values_is_laid_to_the_file():
    found = record('{"a": {}}')
    with pytest.raises(ValueError, match="a.json is damaged .it lacks 'b'"), found.blamed():
        found["a"]["b"]
    with pytest.raises(ValueError, match="a.json is damaged .*int"), found.blamed():
        int(found["a"])


def test_reasons_are_one_line_of_limited_length():
    assert reading.brief(ValueError("so\n far")) == "so far"
    assert reading.brief(KeyError()) == "KeyError"
    assert reading.brief("x" * 500) == "x" * 159 + "…"


@pytest.mark.parametrize(
    "values",
    [[1, 2.5], np.int8([1, 2]), jnp.ones(2, jnp.bfloat16), [fractions.Fraction(1, 2), 1], np.ones((1, 2), ">f8")],
)
def test_numbers_of_any_kind(values):
    found = reading.read_numbers(values, "actions")
    assert found.dtype.kind in "fi"
    assert found.tolist() == np.asarray(values, np.float32).tolist()


@pytest.mark.parametrize(
    "values", ["1.5", ["a"], [1j], [[1.0], [1.0, 2.0]], {"a": 1}, np.array(["2020"], "M8"), object()]
)
def test_what_is_no_numbers_is_refused(values):
    with pytest.raises(ValueError, match=r"^actions must be one array of numbers(, got type| \()"):
        reading.read_numbers(values, "actions")
