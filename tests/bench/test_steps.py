"""The timed steps are the project's own, and they train."""

import pytest

from pnet_jax.bench import steps
from pnet_jax.bench.__main__ import main


@pytest.mark.slow
def test_a_training_step_goes_on_from_its_state():
    ready = steps.train_step(steps.Contender("ghostnet_300m"), batch_size=2, image_size=32)
    first, second = (float(ready.step()["loss"]) for _ in range(2))
    assert first != second
    assert min(ready.init_secs, ready.trace_secs, ready.compile_secs) > 0


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
