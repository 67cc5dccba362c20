"""LiteRT files compute what the Flax network computes, and say where they came from."""

import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what litert-torch needs
    pytest.importorskip("litert_torch", reason="needs the extra `mobile`")
from pnet_jax.convert import record, verify
from pnet_jax.convert.mobile import litert
from pnet_jax.errors import UserError
from tests.convert.mobile.networks import small_source
from tests.convert.onnx.networks import SIZE

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("fields", "layers"),
    [
        pytest.param({"num_experts": 3, "routing": "softmax_mlp"}, 29, marks=pytest.mark.slow),
        ({}, 5),
    ],
)
def test_layers_and_logits_equal(tmp_path, monkeypatch, fields, layers):
    source = small_source(monkeypatch, temperature=2.0, **fields)
    done = litert.write_litert(source, tmp_path / "x.tflite")
    assert done.difference < verify.EXACT
    assert (done.layers, done.size_bytes) == (layers, (tmp_path / "x.tflite").stat().st_size)
    said = record.read_records(tmp_path)["x.tflite"]
    assert said["sha256"] == record.sha256(tmp_path / "x.tflite")
    assert (said["format"], said["step"], said["verified"]["images"]) == ("LiteRT", 7, 3)
    interpreter = litert.open_interpreter((tmp_path / "x.tflite").read_bytes())
    runner = interpreter.get_signature_runner()
    (taken,), (given,) = runner.get_input_details().values(), runner.get_output_details().values()
    assert list(taken["shape"]) == [1, SIZE, SIZE, 3]
    assert (list(given["shape"]), given["dtype"]) == ([1, 5], np.float32)


def test_a_wrong_file_is_not_written(tmp_path, monkeypatch):
    source = small_source(monkeypatch)
    other = small_source(monkeypatch)
    other.variables["params"]["classifier"]["bias"] += 0.1
    content = litert.convert(litert.open_twin(other, "matmul"), SIZE)
    monkeypatch.setattr(litert, "convert", lambda network, image_size: content)
    with pytest.raises(UserError, match=r"The LiteRT file differs .* first in logits"):
        litert.write_litert(source, tmp_path / "x.tflite")
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"x\.lite must end in \.tflite"):
        litert.write_litert(small_source(monkeypatch), tmp_path / "x.lite")
