"""A set of pictures that cost what ImageNet's do, for measuring: nothing can be learned from it."""

import pathlib

import cv2
import numpy as np
import tqdm

from pnet_jax.data import writer

NAME = "generated"
# ImageNet-1K's training pictures are mostly 500 x 375 and have 110 kB on average.
_SHAPE = (375, 500)
_TARGET_BYTES = 105_000
_QUALITIES = (75, 80, 85, 88, 90, 92, 94, 96, 98)


def build(data_dir: pathlib.Path, *, num_images: int, copies: int = 1, num_shards: int = 4) -> None:
    """Writes `data_dir/generated/1.0.0`, `num_images` different pictures, `copies` of each."""
    images = jpegs(num_images)
    directory = data_dir / NAME / "1.0.0"
    names = {"label": [f"class {i}" for i in range(1000)]}
    infos = []
    for shard in range(num_shards):
        examples = [
            writer.Example(image, {"label": i % 1000}, f"n{i % 1000:08d}/n{i:08d}_{copy}.JPEG")
            for copy in range(copies)
            for i, image in enumerate(images)
            if i % num_shards == shard
        ]
        path = writer.shard_path(
            directory, name=NAME, split="train", index=shard, num_shards=num_shards
        )
        infos.append(writer.write_shard(path, examples, names))
    writer.write_metadata(
        directory,
        name=NAME,
        version="1.0.0",
        splits={"train": infos},
        label_names=names,
        description="Noise of the size and weight of ImageNet's pictures.",
    )


def jpegs(count: int) -> list[bytes]:
    """Pictures of noise whose amplitude falls with the frequency as that of photographs does.

    Every fourth is upright; the JPEG quality is the one that comes nearest to 105 kB.
    """
    rng = np.random.default_rng(0)
    return [_jpeg(rng, i) for i in tqdm.trange(count, unit="image", desc="drawing")]


def _jpeg(rng: np.random.Generator, index: int) -> bytes:
    height, width = _SHAPE if index % 4 else _SHAPE[::-1]
    pixels = _picture(rng, height, width)
    sizes = {}
    low, high = 0, len(_QUALITIES) - 1
    while low <= high:
        middle = (low + high) // 2
        settings = [cv2.IMWRITE_JPEG_QUALITY, _QUALITIES[middle]]
        encoded = cv2.imencode(".jpg", pixels, settings)[1].tobytes()
        sizes[len(encoded)] = encoded
        if len(encoded) > _TARGET_BYTES:
            high = middle - 1
        else:
            low = middle + 1
    return sizes[min(sizes, key=lambda size: abs(size - _TARGET_BYTES))]


def _picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """`[height, width, 3]` uint8, mostly grey: photographs' channels go together."""
    across, down = np.fft.rfftfreq(width) * width, np.fft.fftfreq(height) * height
    frequency = np.hypot(*np.meshgrid(down, across, indexing="ij"))
    frequency[0, 0] = 1
    shape = (3, *frequency.shape)
    spectrum = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / frequency**1.1
    channels = np.fft.irfft2(spectrum, s=(height, width))
    channels /= channels.std(axis=(1, 2), keepdims=True)
    grey_and_tints = np.array([[1, 0.25, 0.1], [1, -0.1, 0.1], [1, -0.1, -0.25]])
    return np.clip(np.einsum("ij,jhw->hwi", grey_and_tints, channels) * 50 + 120, 0, 255).astype(
        np.uint8
    )
