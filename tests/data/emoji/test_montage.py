"""The picture of the demo set in the docs."""

import numpy as np

from pnet_jax.data.emoji.montage import montage


def test_montage_has_a_row_a_class_and_two_halves():
    picture = montage(("1f42f", "1f355", "1f680"), columns=2, image_size=32)
    assert picture.shape == (18 + 3 * 32, 4 * 32 + 8, 3)
    assert (picture[18:, 64:72] == 255).all()
    assert picture[18:, :64].std() > 30
    assert np.array_equal(picture, montage(("1f42f", "1f355", "1f680"), columns=2, image_size=32))
