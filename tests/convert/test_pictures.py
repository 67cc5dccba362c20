"""Images to calibrate and to measure with are those that evaluation sees."""

import dataclasses
import json

import numpy as np
import pytest

from pnet_jax.augment.normalize import MEAN, STD
from pnet_jax.convert.pictures import open_pictures
from pnet_jax.convert.source import Preprocessing, Source
from pnet_jax.data.crop import central_crop
from pnet_jax.data.decode import decode
from pnet_jax.errors import UserError
from tests.tiny_run import CORRUPT, NUM_CLASSES, NUM_EVAL

pytest_plugins = ["tests.tiny_run_plugin"]


@pytest.fixture
def source(tmp_path, data_dir):
    data = {"name": "emoji", "data_dir": str(data_dir), "a_field_of_later_versions": 1}
    (tmp_path / "config.json").write_text(json.dumps({"data": data}))
    head = {"classifier": {"bias": np.zeros(NUM_CLASSES)}}
    return Source(
        workdir=tmp_path,
        model="ghostnet_300m",
        fields={},
        step=1,
        weights="ema",
        variables={"params": head},
        fingerprint="",
        classes=None,
        preprocessing=Preprocessing(32, 0.875, MEAN, STD),
        temperature=1.0,
    )


def test_a_split_comes_whole_and_as_evaluation_prepares_it(source):
    pictures = open_pictures(source, "eval")
    assert (pictures.name, len(pictures)) == ("emoji/validation", NUM_EVAL)
    batches = list(pictures.batches())
    images, labels, weights = (
        np.concatenate([batch[key] for batch in batches]) for key in ("image", "label", "weight")
    )
    assert weights.tolist() == [1.0] * NUM_EVAL + [0.0] * (len(weights) - NUM_EVAL)
    corrupt = np.flatnonzero(labels[:NUM_EVAL] < 0)
    assert corrupt.tolist() == list(CORRUPT["validation"])
    for place in (0, 20, NUM_EVAL - 1):
        record = pictures.records[place]
        assert labels[place] == record.label
        expected = central_crop(decode(record.image), 32, share=0.875)
        np.testing.assert_array_equal(images[place], expected)


def test_a_few_are_spread_over_the_split(source):
    pictures = open_pictures(source, "train")
    few = pictures.spread(5)
    places = [0, 49, 99, 149, 199]
    assert [record.image for record in few.records] == [pictures.records[i].image for i in places]
    with pytest.raises(UserError, match="emoji/train has 200 images, not 201"):
        pictures.spread(201)


def test_mistakes_are_told(source, tmp_path):
    head = {"classifier": {"bias": np.zeros(3)}}
    other = dataclasses.replace(source, variables={"params": head})
    with pytest.raises(UserError, match="has 20 classes and the network 3"):
        open_pictures(other, "train")
    (tmp_path / "config.json").write_text(json.dumps({"data": {"name": "gone"}}))
    with pytest.raises(UserError, match="There is no data set 'gone'"):
        open_pictures(source, "train", data_dir=str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="names no data set to take images from"):
        open_pictures(source, "train")
