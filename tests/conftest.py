"""Settings for every test: the CPU as eight devices, a compilation cache, fixed seeds.

JAX reads its settings when it is imported, so they are made here, before any test imports it.
"""

import importlib.util
import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Tests run their programs a few times only: what XLA saves in running, it loses in compiling.
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"

import jax
import numpy as np
import pytest

NUM_DEVICES = 8
"""Devices that the CPU poses as, in this process alone: subprocesses see one device."""

jax.config.update("jax_num_cpu_devices", NUM_DEVICES)


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs in pytest's cache directory, for the next run and for subprocesses.

    `-p no:cacheprovider` switches this off too. `make clean` empties it.
    """
    cache = getattr(config, "cache", None)
    if cache is None:
        return
    settings = {
        "jax_compilation_cache_dir": str(cache.mkdir("jax")),
        "jax_persistent_cache_min_compile_time_secs": 0.5,
    }
    for name, value in settings.items():
        os.environ[name.upper()] = str(value)  # for the processes that tests start
        jax.config.update(name, value)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs an optional dependency that is not installed."""
    for marker, module in {"torch": "torch", "aot": "libtpu"}.items():
        if item.get_closest_marker(marker) and importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}, which is not installed")


@pytest.fixture
def seed() -> int:
    """The seed that everything random in a test starts from."""
    return 0


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """A numpy generator that starts at `seed`."""
    return np.random.default_rng(seed)


@pytest.fixture
def key(seed: int) -> jax.Array:
    """A typed JAX key that starts at `seed`."""
    return jax.random.key(seed)
