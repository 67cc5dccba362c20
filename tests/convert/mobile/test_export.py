"""The comparison at the end of the routes to phones: with one session, layers first."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from pnet_jax.convert import record, verify  # noqa: E402
from pnet_jax.convert.__main__ import main  # noqa: E402
from pnet_jax.convert.mobile import export  # noqa: E402
from pnet_jax.errors import UserError  # noqa: E402
from tests.convert.mobile.networks import small_source  # noqa: E402
from tests.convert.onnx.networks import ghostnet, source_of  # noqa: E402

pytest_plugins = ["tests.tiny_run_plugin"]
pytestmark = pytest.mark.torch


def runner(twin):
    """A file that computes what the twin does."""

    def run(image):
        with torch.inference_mode():
            return twin(torch.tensor(image.transpose(2, 0, 1)[None]))[0].numpy()

    return run


def test_temperature_is_part_of_the_routers(monkeypatch):
    source = small_source(monkeypatch, temperature=2.0, num_experts=3, routing="softmax_mlp")
    twin = export.open_twin(source, "matmul")
    found = export.compare(source, twin, runner(twin), "X")
    assert found[-1].layer == verify.LOGITS
    assert max(difference.value for difference in found) < verify.EXACT
    # 24 routers, the four blocks and the logits.
    assert len(found) == 29


def test_a_file_that_freezes_its_first_kernels_is_noticed(monkeypatch):
    source = small_source(monkeypatch, num_experts=4, routing="sigmoid_linear")
    twin = export.open_twin(source, "conv")
    first = []

    def frozen(image):
        first.append(runner(twin)(image))
        return first[0]

    with pytest.raises(UserError, match=r"The frozen file differs .* first in logits"):
        export.compare(source, twin, frozen, "The frozen file")
    assert len(first) == verify.NUM_IMAGES
    assert np.abs(first[0] - first[1]).max() > 0.01 * first[0].std()


def test_a_network_without_twin_is_told(monkeypatch):
    source = source_of(ghostnet(), name="swin_tiny")
    monkeypatch.setattr(export, "to_torch", lambda name, variables: {})
    with pytest.raises(UserError, match="swin_tiny has no PyTorch twin"):
        export.open_twin(source, "conv")


def test_a_trained_checkpoint_becomes_every_file(finished_run, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what litert-torch needs
        pytest.importorskip("litert_torch", reason="needs the extra `mobile`")
    workdir = f"--workdir={finished_run.workdir}"
    outs = {"to-litert": tmp_path / "x.tflite", "to-ncnn": tmp_path / "ncnn"}
    for command, out in outs.items():
        assert main([command, workdir, f"--out={out}"]) == 0
        assert "layers compared, logits within" in capsys.readouterr().out
    said = [
        record.read_records(tmp_path)["x.tflite"],
        record.read_records(tmp_path / "ncnn")["network.ncnn.bin"],
    ]
    assert {(each["model"], each["verified"]["images"]) for each in said} == {("ghostnet_300m", 3)}
