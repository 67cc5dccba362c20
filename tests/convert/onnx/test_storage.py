"""Rounded constants come back within half a step of their range."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from pnet_jax.convert.onnx import storage  # noqa: E402
from pnet_jax.convert.onnx.graph import Graph  # noqa: E402
from pnet_jax.convert.onnx.model import helper  # noqa: E402
from pnet_jax.convert.onnx.session import open_session  # noqa: E402

pytestmark = pytest.mark.torch


def come_back(array, as_type, axes):
    graph = Graph()
    graph.copy(storage.store(graph, array, "w", as_type, axes=axes), "out")
    out = helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, array.shape)
    proto = graph.proto("test", [], [out])
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return open_session(model).run(None, {})[0], graph.constants["w"].data_type


@pytest.mark.parametrize(("as_type", "steps"), [("int8", 127), ("int16", 32767)])
def test_integers_have_a_scale_for_each_channel(rng, as_type, steps):
    array = (
        rng.normal(size=(4, 64, 32)).astype(np.float32)
        * np.float32(10.0) ** np.arange(-2, 2)[:, None, None]
    )
    array[1, 3] = 0
    back, kind = come_back(array, as_type, (2,))
    assert kind == {"int8": onnx.TensorProto.INT8, "int16": onnx.TensorProto.INT16}[as_type]
    step = np.abs(array).max(axis=2, keepdims=True) / steps
    assert (np.abs(back - array) <= 0.5001 * step + 1e-7 * np.abs(array)).all()
    assert not back[1, 3].any()


def test_small_constants_and_floats_stay(rng):
    small, large = (rng.normal(size=shape).astype(np.float32) for shape in ((8, 8), (64, 64)))
    for array, as_type in ((small, "int8"), (large, "fp32")):
        back, kind = come_back(array, as_type, (0,))
        assert kind == onnx.TensorProto.FLOAT
        np.testing.assert_array_equal(back, array)
    back, kind = come_back(large, "fp16", (0,))
    assert kind == onnx.TensorProto.FLOAT16
    np.testing.assert_array_equal(back, large.astype(np.float16))
