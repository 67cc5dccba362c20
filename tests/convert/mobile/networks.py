"""A small network that exists both in Flax and in the PyTorch twin."""

from torch import nn

from pnet_jax.convert import torch_model
from tests.convert.onnx.networks import STAGES, ghostnet, source_of


def small_source(monkeypatch, *, temperature=1.0, **fields):
    """A checkpoint of the tests' small network, whose name the twin is told."""
    name, experts = ("parameternet_300m", 4) if fields else ("ghostnet_300m", None)
    monkeypatch.setitem(torch_model._MODELS, name, (STAGES, 0.6, nn.ReLU, experts))
    source = source_of(ghostnet(**fields), name=name, temperature=temperature)
    source.fields.update(fields)
    return source
