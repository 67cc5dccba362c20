"""The ONNX file computes what the Flax network computes, whatever its form."""

import dataclasses
import json

import flax.linen as nn
import jax
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from pnet_jax.convert import record, verify  # noqa: E402
from pnet_jax.convert.onnx import export, storage  # noqa: E402
from pnet_jax.convert.onnx.model import Options, build  # noqa: E402
from pnet_jax.convert.onnx.session import open_session  # noqa: E402
from pnet_jax.errors import UserError  # noqa: E402
from tests.convert.onnx.networks import SIZE, ghostnet, source_of  # noqa: E402

pytestmark = pytest.mark.torch

DYNAMIC = {"num_experts": 4, "routing": "sigmoid_linear"}


@pytest.fixture(scope="module")
def source():
    return source_of(ghostnet(**DYNAMIC))


def logits(path, images):
    return open_session(path).run(["logits"], {"images": images})[0]


def images(number):
    rng = np.random.default_rng(1)
    return rng.normal(size=(number, 3, SIZE, SIZE)).astype(np.float32)


@pytest.mark.parametrize(
    ("fields", "layers"),
    [
        (DYNAMIC, 43),
        ({"num_experts": 3, "routing": "softmax_mlp", "act": nn.hard_swish}, 43),
        ({"num_experts": 2, "routing": "softmax_linear"}, 43),
        ({}, 19),
    ],
)
def test_layers_and_logits_equal(tmp_path, fields, layers):
    source = source_of(ghostnet(**fields), temperature=2.0)
    done = export.write_onnx(source, tmp_path / "x.onnx", Options(batch=1))
    assert done.difference < verify.EXACT
    assert done.layers == layers
    said = record.read_records(tmp_path)["x.onnx"]
    assert said["sha256"] == record.sha256(tmp_path / "x.onnx")
    assert (said["step"], said["config_fingerprint"]) == (7, "0" * 12)
    assert said["verified"]["layers"] == layers
    assert said["preprocessing"]["image_size"] == SIZE


@pytest.mark.parametrize("fields", [DYNAMIC, {}])
def test_any_batch_gives_what_one_image_gives(tmp_path, fields):
    source, five = source_of(ghostnet(**fields)), images(5)
    for name, options in {
        "one": Options(batch=1),
        "two": Options(batch=2),
        "any": Options(),
        "plain": Options(fold_bn=False),
    }.items():
        export.write_onnx(source, tmp_path / f"{name}.onnx", options, verified=name != "one")
    one = np.concatenate([logits(tmp_path / "one.onnx", image[None]) for image in five])
    assert one.std(axis=0).min() > 1e-3
    for name, batch in (("any", five), ("any", five[:1]), ("two", five[:2]), ("plain", five)):
        close = np.abs(logits(tmp_path / f"{name}.onnx", batch) - one[: len(batch)]).max()
        assert close < 1e-4 * one.std()


def test_preprocessing_may_be_inside(source, tmp_path):
    done = export.write_onnx(source, tmp_path / "x.onnx", Options(with_preprocessing=True))
    assert done.difference < verify.EXACT
    model = onnx.load(tmp_path / "x.onnx")
    declared = model.graph.input[0].type.tensor_type
    assert declared.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in declared.shape.dim] == [0, SIZE, SIZE, 3]
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["classes"])[4] == "class 4"
    assert json.loads(said["preprocessing"])["mean"] == [123.675, 116.28, 103.53]
    assert said["step"] == "7"
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]


@pytest.mark.parametrize(("experts", "share"), [("fp16", 0.6), ("int8", 0.5)])
def test_rounded_weights_take_less_room(tmp_path, monkeypatch, experts, share):
    monkeypatch.setattr(storage, "_SMALL", 16)
    monkeypatch.setattr(storage, "_MANY", 4000)
    source = source_of(ghostnet(**DYNAMIC))
    exact = build(source, Options(batch=1))
    done = export.write_onnx(source, tmp_path / "x.onnx", Options(experts=experts))
    stored = onnx.load(tmp_path / "x.onnx").graph.node[0].attribute[0].g.initializer
    sizes = {
        kind: sum(len(t.raw_data) for t in tensors if t.name.endswith("experts"))
        for kind, tensors in (("exact", exact.graph.initializer), ("stored", stored))
    }
    assert sizes["stored"] < share * sizes["exact"]
    types = {t.data_type for t in stored if t.name.endswith("experts")}
    wanted = {"fp16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[experts]
    assert wanted in types
    assert 1e-6 < done.difference < 5 * verify.ROUNDED


def test_too_coarse_weights_are_not_written(source, tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "ROUNDED", 1e-9)
    monkeypatch.setattr(storage, "_SMALL", 16)
    with pytest.raises(UserError, match="with int8 experts moves the logits by"):
        export.write_onnx(source, tmp_path / "x.onnx", Options(experts="int8"))
    assert list(tmp_path.iterdir()) == []


def test_the_first_layer_that_differs_is_named(source, tmp_path, monkeypatch):
    right = export.build_with_taps(source)
    changed = jax.tree.map(np.array, source.variables)
    changed["params"]["blocks_2_0"]["ghost2"]["primary_conv"]["routing"]["out"]["bias"] += 0.1
    wrong = dataclasses.replace(source, variables=changed)
    vars(wrong)["network"] = source.network
    monkeypatch.setattr(export, "build_with_taps", lambda _: right)
    with pytest.raises(UserError, match="first in blocks_2_0/ghost2/primary_conv/routing: by"):
        export.write_onnx(wrong, tmp_path / "x.onnx", Options())
    assert list(tmp_path.iterdir()) == []
