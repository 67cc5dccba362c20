"""Layouts of channels, and constants that are what their names say."""

import numpy as np
import pytest

pytest.importorskip("onnx")
from pnet_jax.convert.onnx import graph as graphs

pytestmark = pytest.mark.torch


def test_layouts_put_zeros_where_no_channel_is(rng):
    half = graphs.padded(3, 4)
    layout = np.append(half, graphs.shifted(half, 3))
    assert layout.tolist() == [0, 1, 2, -1, 3, 4, 5, -1]
    array = rng.normal(size=(2, 6, 5))
    wide = graphs.spread(array, layout, axis=1)
    assert wide.shape == (2, 8, 5)
    assert not wide[:, [3, 7]].any()
    np.testing.assert_array_equal(wide[:, layout >= 0], array)
    np.testing.assert_array_equal(
        graphs.spread(array, np.array([4, 2]), axis=-1), array[..., [4, 2]]
    )


def test_a_name_stands_for_one_constant():
    graph = graphs.Graph()
    assert graph.constant([1, 2], "shape") == graph.constant([1, 2], "shape") == "shape"
    assert len(graph.constants) == 1
    with pytest.raises(ValueError, match="two constants called shape"):
        graph.constant([1, 3], "shape")
