"""The step is compiled as the backend wants it, and as XLA_FLAGS wants it before that."""

import jax
import jax.numpy as jnp
import pytest

from pnet_jax.parallel.compiling import compiler_options


def test_xla_flags_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    assert compiler_options() is None


def test_cpu_code_is_optimised_lightly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    options = compiler_options()
    assert options == {"xla_backend_optimization_level": 1}
    # XLA refuses options that it does not know.
    assert jax.jit(jnp.sum, compiler_options=options)(jnp.arange(4)) == 6
