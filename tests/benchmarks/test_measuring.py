import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import measuring


def test_calls_take_turns_after_one_of_each_for_warm_up():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    samples = measuring.interleave(calls, seconds=0.0, repeats=2)
    assert order == ["a", "b"] * 3
    assert {name: values.shape for name, values in samples.items()} == {"a": (2,), "b": (2,)}


def test_a_turn_lasts_as_long_as_it_is_told(monkeypatch):
    now = iter(range(100))  # the clock goes on by a second whenever somebody looks
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: next(now))
    # looks at 0 (start), and after each call at 1, 2 and 3: three calls in three seconds
    assert measuring.interleave({"a": lambda: None}, seconds=3.0, repeats=1)["a"].tolist() == [1.0]


def test_median_and_spread_by_hand():
    assert measuring.median_and_spread(np.array([4.0, 5.0, 7.0])) == (5.0, pytest.approx(60.0))


def test_peak_is_the_best_round_of_the_faster_product():
    samples = {measuring.GEMM_NUMPY: np.array([0.5, 0.25]), measuring.GEMM_XLA: np.array([1.0, 2.0])}
    peak = measuring.gemm_peak(samples, size=1_000)  # 2 GFLOP
    assert peak == {measuring.GEMM_NUMPY: 8.0, measuring.GEMM_XLA: 2.0, "peak": 8.0}


def test_products_are_of_the_size_asked_for():
    calls = measuring.gemm_calls(4)
    assert {name: call().shape for name, call in calls.items()} == dict.fromkeys(calls, (4, 4))


def test_compilation_is_timed_with_an_empty_cache_and_with_a_full_one():
    before = jax.config.jax_compilation_cache_dir
    program, cold, cached = measuring.compile_twice(jax.jit(lambda x: jnp.sin(x) * 2.0), 1.0)
    np.testing.assert_allclose(program(0.5), 2.0 * np.sin(0.5), rtol=1e-6)
    assert cold > 0.0
    assert cached > 0.0
    assert jax.config.jax_compilation_cache_dir == before
