"""Any image file becomes RGB bytes or None, and crops are what the papers say."""

import io
import math
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from pnet_jax.data.decode import central_crop, decode, random_resized_crop


@pytest.fixture
def picture(rng) -> np.ndarray:
    """`[60, 80, 3]` uint8 RGB, smooth, so that JPEG changes it little."""
    noise = rng.uniform(0, 255, (60, 80, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 8)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def encode(picture: np.ndarray, suffix: str = ".jpg", *settings: int) -> bytes:
    ok, encoded = cv2.imencode(suffix, picture[..., ::-1], list(settings))
    assert ok
    return encoded.tobytes()


def test_jpeg_in_rgb_order(picture):
    image = decode(encode(picture, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 100))
    assert (image.shape, image.dtype) == ((60, 80, 3), np.uint8)
    assert np.abs(image.astype(int) - picture).max() <= 12
    red = decode(encode(np.full((8, 8, 3), (250, 10, 40), np.uint8)))
    assert np.abs(red.astype(int) - (250, 10, 40)).max() <= 3


@pytest.mark.parametrize(
    "settings", [(cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)]
)
def test_kinds_of_jpeg(picture, settings):
    image = decode(encode(picture, ".jpg", *settings))
    assert np.abs(image.astype(int) - picture).mean() < 3


def test_grayscale_jpeg_gets_three_equal_channels(picture):
    encoded = cv2.imencode(".jpg", picture[..., 0])[1].tobytes()
    image = decode(encoded)
    assert image.shape == (60, 80, 3)
    np.testing.assert_array_equal(image[..., 0], image[..., 1])
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    assert np.abs(image[..., 0].astype(int) - picture[..., 0]).mean() < 3


def test_cmyk_jpeg(picture):
    """Adobe's inverted CMYK, as the 22 CMYK files of ImageNet-1K have it."""
    file = io.BytesIO()
    Image.fromarray(picture).convert("CMYK").save(file, "JPEG", quality=100)
    image = decode(file.getvalue())
    assert image.shape == (60, 80, 3)
    assert np.abs(image.astype(int) - picture).max() <= 4


def test_png_with_and_without_alpha(picture):
    np.testing.assert_array_equal(decode(encode(picture, ".png")), picture)
    with_alpha = np.dstack([picture[..., ::-1], np.full((60, 80), 7, np.uint8)])
    encoded = cv2.imencode(".png", with_alpha)[1].tobytes()
    np.testing.assert_array_equal(decode(encoded), picture)


def test_exif_orientation_is_ignored(picture):
    plain = encode(picture)
    # A big-endian TIFF header, one directory entry: tag 0x112 (orientation), SHORT, 6 (turn right).
    tiff = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x112, 3, 1, 6, 0, 0)
    segment = b"Exif\0\0" + tiff
    turned = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]
    buffer = np.frombuffer(turned, np.uint8)
    assert cv2.imdecode(buffer, cv2.IMREAD_COLOR_RGB).shape == (80, 60, 3)  # the tag is read
    np.testing.assert_array_equal(decode(turned), decode(plain))


@pytest.mark.parametrize(
    "settings",
    [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)],
    ids=["baseline", "progressive", "restart markers"],
)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_jpeg_cut_short_is_none(rng, settings, share):
    noise = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    encoded = encode(noise, ".jpg", *settings)
    assert decode(encoded[: int(len(encoded) * share)]) is None
    assert decode(encoded[:-1]) is None


def test_bytes_after_the_image_do_no_harm(picture):
    encoded = encode(picture)
    np.testing.assert_array_equal(decode(encoded + b"appended"), decode(encoded))


def _png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\xff\xd8\xff",
        b"<html>not found</html>",
        bytes(1000),
        encode(np.zeros((8, 8, 3), np.uint8), ".png")[:-5],
        _png_of_size(100_000, 100_000),  # OpenCV raises, instead of taking 30 GB
    ],
    ids=["empty", "magic only", "html", "zeros", "cut png", "claims 10^10 pixels"],
)
def test_what_is_no_image_is_none(encoded):
    assert decode(encoded) is None


def coordinates(height: int, width: int) -> np.ndarray:
    """`[H, W, 3]` uint8 whose first two channels are the row and the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.dstack([rows, columns, np.zeros_like(rows)]).astype(np.uint8)


class Recorder:
    """An rng that gives given numbers, in the order the crop asks: area, log ratio, ..."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = list(numbers)
        self.bounds: list[tuple[float, ...]] = []

    def uniform(self, low: float, high: float) -> float:
        self.bounds.append((low, high))
        return self.numbers.pop(0)

    def integers(self, high: int) -> int:
        self.bounds.append((high,))
        return int(self.numbers.pop(0))


def test_a_known_random_crop():
    # A quarter of 40 x 64 is 640 pixels; at the ratio 1.6 they are 32 wide and 20 high.
    numbers = Recorder(0.25, math.log(1.6), 5, 7)
    crop = random_resized_crop(coordinates(40, 64), 20, numbers, area_min=0.08, area_max=1.0)
    assert numbers.bounds == [(0.08, 1.0), (math.log(3 / 4), math.log(4 / 3)), (21,), (33,)]
    assert crop.shape == (20, 20, 3)
    np.testing.assert_array_equal(crop[:, 0, 0], 5 + np.arange(20))  # the height is not resized
    # Columns 7 ... 38 halfway between pixel centres: 7 + 1.6 (i + .5) - .5, rounded.
    expected = 7 + 1.6 * (np.arange(20) + 0.5) - 0.5
    assert np.abs(crop[0, :, 1] - expected).max() <= 0.51


def test_a_shape_that_does_not_fit_is_drawn_again():
    # 90% of a 10 x 40 strip at 4:3 is 22 wide and 16 high: too high; then 10% fits.
    numbers = Recorder(0.9, math.log(4 / 3), 0.1, 0.0, 2, 3)
    crop = random_resized_crop(coordinates(10, 40), 6, numbers, area_min=0.08, area_max=1.0)
    assert numbers.numbers == []
    np.testing.assert_array_equal(crop[..., 0], np.tile(np.arange(2, 8)[:, None], (1, 6)))
    np.testing.assert_array_equal(crop[..., 1], np.tile(np.arange(3, 9), (6, 1)))


def test_after_ten_misfits_the_centre_is_taken():
    # No square of 90% of the area fits in 12 x 40; the widest admissible part is 12 x 16.
    numbers = Recorder(*[0.9, 0.0] * 10)
    crop = random_resized_crop(coordinates(12, 40), 12, numbers, area_min=0.9, area_max=0.9)
    assert numbers.numbers == []
    np.testing.assert_array_equal(crop[:, 0, 0], np.arange(12))
    assert (crop[0, 0, 1], crop[0, -1, 1]) == (12, 27)  # columns 12 ... 27 of 40
    tall = random_resized_crop(
        coordinates(40, 12), 12, Recorder(*[0.9, 0.0] * 10), area_min=0.9, area_max=0.9
    )
    assert (tall[0, 0, 0], tall[-1, 0, 0]) == (12, 27)


def test_random_crops_keep_their_bounds(rng):
    """Area uniform in its bounds, log ratio uniform, position uniform."""
    height, width = 200, 240
    image = coordinates(height, width)
    # Enlarged, a crop still begins and ends with the pixels that its part of the image does.
    crops = [
        random_resized_crop(image, 256, rng, area_min=0.1, area_max=0.6)[[0, -1], [0, -1], :2]
        for _ in range(4000)
    ]
    (tops, lefts), (bottoms, rights) = np.array(crops, float).transpose(1, 2, 0)
    heights, widths = bottoms - tops + 1, rights - lefts + 1
    areas = heights * widths / (height * width)
    # Sides are rounded to whole pixels.
    assert 0.1 - 0.004 < areas.min() < 0.11
    assert 0.59 < areas.max() < 0.6 + 0.004
    assert abs(areas.mean() - 0.35) < 0.01
    ratios = np.log(widths / heights)
    assert abs(ratios.min() - math.log(3 / 4)) < 0.02
    assert abs(ratios.max() - math.log(4 / 3)) < 0.02
    assert abs(ratios.mean()) < 0.01
    assert abs(ratios.std() - math.log(16 / 9) / math.sqrt(12)) < 0.005
    for first, length, whole in ((tops, heights, height), (lefts, widths, width)):
        relative = first / (whole - length)
        assert relative.min() == 0
        assert relative.max() == 1
        assert abs(relative.mean() - 0.5) < 0.02


def test_random_crop_of_any_shape(rng):
    for height, width in ((1, 1), (1, 500), (300, 2), (7, 5)):
        image = np.full((height, width, 3), 9, np.uint8)
        for _ in range(20):
            crop = random_resized_crop(image, 16, rng, area_min=0.08, area_max=1.0)
            assert crop.shape == (16, 16, 3)
            assert (crop == 9).all()


def test_the_same_rng_gives_the_same_crop(picture):
    def crop(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return random_resized_crop(picture, 24, rng, area_min=0.08, area_max=1.0)

    np.testing.assert_array_equal(crop(3), crop(3))
    assert (crop(3) != crop(4)).any()


@pytest.mark.parametrize(
    ("height", "width", "size", "share", "top", "left"),
    [
        (32, 32, 28, 0.875, 2, 2),  # 28 of 32 pixels, nothing to resize
        (40, 64, 40, 1.0, 0, 12),
        (64, 40, 20, 0.5, 22, 10),
    ],
)
def test_central_crop_is_the_centre(height, width, size, share, top, left):
    crop = central_crop(coordinates(height, width), size, share=share)
    assert crop.flags.c_contiguous
    np.testing.assert_array_equal(crop[:, 0, 0], top + np.arange(size))
    np.testing.assert_array_equal(crop[0, :, 1], left + np.arange(size))


def test_central_crop_shrinks_by_averaging(rng):
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    crop = central_crop(image, 10, share=1.0)
    blocks = image[:, 5:45].reshape(10, 4, 10, 4, 3).mean((1, 3))
    assert np.abs(crop - blocks).max() <= 0.51


def test_central_crop_of_a_small_image_enlarges(rng):
    image = rng.integers(0, 256, (3, 5, 3), dtype=np.uint8)
    crop = central_crop(image, 16, share=0.875)
    assert crop.shape == (16, 16, 3)
    np.testing.assert_array_equal(crop[0, 0], image[0, 1])  # the border stays
    one = central_crop(np.full((1, 1, 3), 7, np.uint8), 16, share=0.1)
    assert (one == 7).all()
