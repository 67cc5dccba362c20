"""Small data sets on disk for the tests of what reads them."""

import pathlib
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
import pytest

from pnet_jax.data import writer

WriteSet = Callable[..., pathlib.Path]


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    """`jpeg(value, height=, width=)`: a JPEG of one grey value."""

    def encode(value: int, height: int = 20, width: int = 30) -> bytes:
        return cv2.imencode(".jpg", np.full((height, width, 3), value, np.uint8))[1].tobytes()

    return encode


@pytest.fixture
def write_set(tmp_path: pathlib.Path) -> WriteSet:
    """`write_set(splits)` writes the images of each split; image i of a split has class i.

    Returns the directory to open the data set `toy` in.
    """

    def write(
        splits: Mapping[str, Sequence[bytes]],
        *,
        version: str = "1.0.0",
        num_classes: int = 1000,
        images_per_shard: int = 1000,
    ) -> pathlib.Path:
        directory = tmp_path / "toy" / version
        names = {
            "label": [f"class {i}" for i in range(num_classes)],
            "coarse_label": ["even", "odd"],
        }
        infos: dict[str, list[writer.ShardInfo]] = {}
        for split, images in splits.items():
            examples = [
                writer.Example(image, {"label": i, "coarse_label": i % 2}, f"{split}_{i}.jpg")
                for i, image in enumerate(images)
            ]
            starts = range(0, len(examples), images_per_shard)
            infos[split] = [
                writer.write_shard(
                    writer.shard_path(
                        directory, name="toy", split=split, index=index, num_shards=len(starts)
                    ),
                    examples[start : start + images_per_shard],
                    names,
                )
                for index, start in enumerate(starts)
            ]
        writer.write_metadata(
            directory,
            name="toy",
            version=version,
            splits=infos,
            label_names=names,
            description="",
        )
        return tmp_path

    return write
