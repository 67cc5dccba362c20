"""In int8 a network stays close to itself; mixing and routers are left alone."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from pnet_jax.convert.onnx import quantize  # noqa: E402
from pnet_jax.convert.onnx.model import INPUT, Options, build, with_batch  # noqa: E402
from pnet_jax.convert.onnx.session import described, open_session  # noqa: E402
from pnet_jax.errors import UserError  # noqa: E402
from tests.convert.onnx.networks import SIZE, ghostnet, source_of  # noqa: E402

pytestmark = pytest.mark.torch

DYNAMIC = {"num_experts": 3, "routing": "softmax_mlp"}


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.normal(size=(24, 1, 3, SIZE, SIZE)).astype(np.float32)


def logits(model, images):
    session = open_session(model)
    return np.concatenate([session.run(None, {INPUT: image})[0] for image in images])


@pytest.mark.parametrize(("fields", "moved"), [({}, 0.06), (DYNAMIC, 0.04)])
def test_logits_stay_close_in_any_batch(images, fields, moved):
    source = source_of(ghostnet(**fields))
    options = Options(calibrate=16)
    model = build(source, Options(batch=1, calibrate=16))
    content = model.SerializeToString()
    quantized = quantize.quantize(model, images[:16])
    assert model.SerializeToString() == content
    exact, rounded = logits(model, images), logits(quantized, images)
    difference = np.sqrt(np.square(rounded - exact).mean()) / exact.std()
    assert 1e-3 < difference < moved
    graph = with_batch(source, options, quantized.graph)
    many = onnx.helper.make_model(
        graph, opset_imports=quantized.opset_import, ir_version=quantized.ir_version
    )
    onnx.checker.check_model(many, full_check=True)
    together = open_session(many).run(None, {INPUT: images[:, 0]})[0]
    assert np.abs(together - rounded).max() < 1e-4 * exact.std()
    assert described(open_session(quantized))["step"] == 7


class Corrupt:
    """A split in which nothing can be read."""

    name = "gone/train"

    def __len__(self):
        return 2

    def batches(self):
        black = np.zeros((2, SIZE, SIZE, 3), np.uint8)
        yield {"image": black, "label": np.array([-1, -1]), "weight": np.ones(2)}


def test_images_that_cannot_be_read_are_told():
    source, options = source_of(ghostnet()), Options(batch=1, calibrate=2)
    splits = {"calibration": Corrupt(), "evaluation": Corrupt()}
    model = build(source, options)
    with pytest.raises(UserError, match="None of 2 images of gone/train can be read"):
        quantize.to_int8(source, model, options, **splits, measured=False)


def test_mixing_and_routers_stay_in_float32():
    model = build(source_of(ghostnet(**DYNAMIC)), Options(batch=1, calibrate=1))
    nodes = {node.name: node for node in model.graph.node}
    constants = {tensor.name for tensor in model.graph.initializer}
    chosen = [nodes[name] for name in quantize.layers_of(model)]
    assert {node.op_type for node in chosen} == {"Conv", "Gemm"}
    left = [node for node in nodes.values() if node.op_type in ("Conv", "Gemm", "MatMul")]
    left = [node for node in left if node not in chosen]
    for node in left:
        routing = node.op_type == "Gemm" and "/routing/" in node.input[1]
        mixing = node.op_type == "MatMul" and node.input[1].endswith("/experts")
        assert routing or mixing or node.input[1] not in constants
    assert {node.op_type for node in left} == {"Conv", "Gemm", "MatMul"}
    static = build(source_of(ghostnet()), Options(batch=1, calibrate=1))
    kinds = {node.op_type for node in static.graph.node if node.name in quantize.layers_of(static)}
    assert kinds == {"Conv", "Gemm", "Add", "Concat", "Mul"}
