"""Weights files: whole or absent, tensors only."""

import pickle
import sys

import numpy as np
import pytest

from pnet_jax.convert.files import read_weights, write_weights
from pnet_jax.errors import UserError

STATE = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.n": np.zeros((), np.int64)}


def assert_state(state):
    assert state.keys() == STATE.keys()
    for name, array in STATE.items():
        assert state[name].dtype == array.dtype
        np.testing.assert_array_equal(state[name], array)


def test_safetensors_round_trip_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    write_weights(tmp_path / "new" / "w.safetensors", STATE, {"model": "m"})
    assert_state(read_weights(tmp_path / "new" / "w.safetensors"))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["w.safetensors"]


@pytest.mark.torch
def test_pth_loads_in_torch_with_weights_only(tmp_path):
    import torch

    path = tmp_path / "w.pth"
    write_weights(path, STATE, {})
    assert_state({k: v.numpy() for k, v in torch.load(path, weights_only=True).items()})
    assert_state(read_weights(path))


@pytest.mark.torch
def test_pickle_with_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(UserError, match="more than tensors"):
        read_weights(path)
    assert not (tmp_path / "ran").exists()


def test_pth_without_torch_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"pnet_jax\[torch\].*safetensors"):
        write_weights(tmp_path / "w.pth", STATE, {})


def test_damaged_absent_and_foreign_files(tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(path, STATE, {})
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="no whole safetensors file"):
        read_weights(path)
    with pytest.raises(UserError, match="There is no weights file"):
        read_weights(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match=r"must end in \.safetensors or \.pth"):
        write_weights(tmp_path / "w.h5", STATE, {})


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(path, STATE, {})
    with pytest.raises(TypeError):
        write_weights(path, STATE, {"step": 3})  # metadata are strings
    assert_state(read_weights(path))
    assert len(list(tmp_path.iterdir())) == 1
