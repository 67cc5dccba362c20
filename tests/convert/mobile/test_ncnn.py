"""Folders for ncnn compute what the Flax network computes, and say where they came from."""

import pytest

pytest.importorskip("ncnn", reason="needs the extra `mobile`")
pytest.importorskip("pnnx", reason="needs the extra `mobile`")
from pnet_jax.convert import record, verify
from pnet_jax.convert.mobile import ncnn
from pnet_jax.errors import UserError
from tests.convert.mobile.networks import small_source

pytestmark = pytest.mark.torch

ROUTED = {"num_experts": 4, "routing": "sigmoid_linear"}


@pytest.mark.parametrize(
    ("fields", "layers"),
    [(ROUTED, 29), ({"num_experts": 3, "routing": "softmax_linear"}, 29), ({}, 5)],
)
def test_layers_and_logits_equal(tmp_path, monkeypatch, fields, layers):
    source = small_source(monkeypatch, temperature=2.0, **fields)
    done = ncnn.write_ncnn(source, tmp_path / "phone")
    assert done.difference < verify.EXACT
    assert done.layers == layers
    files = {path.name for path in done.path.iterdir()}
    assert files == {ncnn.PARAM, ncnn.WEIGHTS, record.FILE}
    said = record.read_records(done.path)
    for name in (ncnn.PARAM, ncnn.WEIGHTS):
        assert said[name]["sha256"] == record.sha256(done.path / name)
        assert (said[name]["step"], said[name]["verified"]["images"]) == (7, 3)


def test_wrong_files_are_not_written(tmp_path, monkeypatch):
    right = ncnn.run
    monkeypatch.setattr(ncnn, "run", lambda network, image: right(network, image) + 0.1)
    with pytest.raises(UserError, match=r"The ncnn network differs .* first in logits"):
        ncnn.write_ncnn(small_source(monkeypatch, **ROUTED), tmp_path / "phone")
    assert list(tmp_path.iterdir()) == []


def test_operators_that_ncnn_lacks_are_told(tmp_path, monkeypatch):
    source = small_source(monkeypatch, **ROUTED)
    twin = ncnn.open_twin(source, "experts")  # which has arrays of more than four axes
    ncnn.convert(twin, source.preprocessing.image_size, tmp_path)
    with pytest.raises(UserError, match=r"ncnn cannot load .*ncnn\.param"):
        ncnn.open_network(tmp_path)


def test_a_failure_of_pnnx_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(ncnn.pnnx, "EXEC_PATH", "false")
    with pytest.raises(UserError, match="pnnx gave up on the network"):
        ncnn.write_ncnn(small_source(monkeypatch), tmp_path / "phone")
    assert list(tmp_path.iterdir()) == []
