"""Learning rate and temperature at known steps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnet_jax.config import OptimizerConfig, TemperatureConfig
from pnet_jax.training.schedules import learning_rate_schedule, temperature_at

CONFIG = OptimizerConfig(learning_rate=0.4, end_learning_rate=0.02, warmup_epochs=2.0)


def test_learning_rate() -> None:
    schedule = learning_rate_schedule(CONFIG, steps_per_epoch=5.0, total_steps=110)
    # Ten steps of warm-up, then a hundred of half a cosine.
    np.testing.assert_allclose([schedule(i) for i in range(11)], np.arange(11) * 0.04, atol=1e-7)
    for step in (10, 35, 60, 85, 110):
        share = (1 + math.cos(math.pi * (step - 10) / 100)) / 2
        assert float(schedule(step)) == pytest.approx(0.02 + 0.38 * share, rel=1e-5)
    assert float(schedule(60)) == pytest.approx(0.21, rel=1e-5)
    assert float(schedule(110)) == float(schedule(500)) == pytest.approx(0.02, rel=1e-5)


def test_warm_up_of_a_fraction_of_an_epoch() -> None:
    config = OptimizerConfig(learning_rate=0.4, warmup_epochs=0.5)
    schedule = learning_rate_schedule(config, steps_per_epoch=7.5, total_steps=100)
    # 3.75 steps, rounded to 4.
    np.testing.assert_allclose([schedule(i) for i in range(5)], [0, 0.1, 0.2, 0.3, 0.4], rtol=1e-6)


def test_without_warm_up_training_starts_at_the_peak() -> None:
    config = OptimizerConfig(learning_rate=0.4, end_learning_rate=0.0, warmup_epochs=0.0)
    schedule = learning_rate_schedule(config, steps_per_epoch=5.0, total_steps=10)
    np.testing.assert_allclose(
        [schedule(0), schedule(5), schedule(10)], [0.4, 0.2, 0.0], rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("warmup_epochs", [4.0, 4.04, 9.0])
def test_warm_up_as_long_as_the_run(warmup_epochs: float) -> None:
    config = OptimizerConfig(learning_rate=0.4, warmup_epochs=warmup_epochs)
    schedule = learning_rate_schedule(config, steps_per_epoch=1.0, total_steps=4)
    np.testing.assert_allclose([schedule(i) for i in range(5)], [0, 0.1, 0.2, 0.3, 0.4], rtol=1e-6)


def test_temperature_falls_from_30_to_1_and_stays() -> None:
    config = TemperatureConfig(start=30.0, end=1.0, epochs=10.0)
    steps = jnp.array([0, 25, 50, 75, 99, 100, 101, 100_000])
    temperatures = jax.jit(lambda s: temperature_at(s, config, steps_per_epoch=10.0))(steps)
    np.testing.assert_allclose(
        temperatures, [30.0, 22.75, 15.5, 8.25, 1.29, 1.0, 1.0, 1.0], rtol=1e-5
    )
    assert temperatures.dtype == jnp.float32


def test_temperature_without_annealing_is_the_end_value() -> None:
    config = TemperatureConfig(start=30.0, end=2.0, epochs=0.0)
    for step in (0, 1, 1000):
        assert float(temperature_at(jnp.array(step), config, steps_per_epoch=10.0)) == 2.0
