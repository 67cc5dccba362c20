"""The timed steps are the project's own, and they train."""

import jax
import numpy as np
import pytest

from pnet_jax.bench import steps
from pnet_jax.bench.__main__ import main
from pnet_jax.models.dynamic import DynamicConv


@pytest.mark.slow
def test_a_training_step_goes_on_from_its_state():
    ready = steps.train_step(steps.Contender("ghostnet_300m"), batch_size=2, image_size=32)
    first, second = (float(ready.step()["loss"]) for _ in range(2))
    assert first != second
    assert min(ready.init_secs, ready.trace_secs, ready.compile_secs) > 0


def test_without_routers_experts_are_mixed_evenly():
    """The mean kernel's output, whatever the image, and no router among the parameters."""
    conv = DynamicConv(features=3, num_experts=4)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 5))
    with steps.Contender("", routers="off").building():
        y, variables = conv.init_with_output(jax.random.key(1), x)
    assert variables["params"].keys() == {"experts"}
    even = variables["params"]["experts"].mean(axis=0)[0, 0]
    np.testing.assert_allclose(y, x @ even, atol=1e-5)
    assert str(steps.Contender("a", "matmul", "off")) == "a (matmul, routers off)"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train-step", "--model=resnet"], "There is no model 'resnet'"),
        (
            ["dynamic-conv", "--match=7x7"],
            "parameternet_300m has no dynamic convolution with '7x7'",
        ),
    ],
)
def test_refuses_in_a_sentence(capsys, arguments, sentence):
    assert main(arguments) == 2
    assert sentence in capsys.readouterr().err
