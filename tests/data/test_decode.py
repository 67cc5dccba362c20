"""Any image file becomes RGB bytes or None, as a whole or in part."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from pnet_jax.data import decode as decoding
from pnet_jax.data.crop import Box
from pnet_jax.data.decode import decode, decode_part


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


KINDS = {
    "4:2:0": ((120, 170), 90, {"subsampling": 2}),
    "4:2:2": ((120, 170), 90, {"subsampling": 1}),
    "4:4:4": ((121, 171), 97, {"subsampling": 0}),
    "poor": ((119, 163), 15, {"subsampling": 2}),
    "progressive": ((121, 171), 90, {"subsampling": 2, "progressive": True}),
    "optimised": ((64, 80), 95, {"subsampling": 2, "optimize": True}),
    "restarts": ((121, 171), 90, {"subsampling": 2, "restart_marker_rows": 1}),
    "narrow": ((97, 9), 90, {"subsampling": 2}),
    "low": ((5, 143), 90, {"subsampling": 1}),
}


def noise_jpeg(rng, size: tuple[int, int], quality: int, settings: dict) -> bytes:
    """Rough pictures: what neighbours add to a pixel shows."""
    file = io.BytesIO()
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, **settings)
    return file.getvalue()


def random_boxes(rng, height: int, width: int, count: int) -> list[Box]:
    boxes = [Box(0, 0, height, width), Box(height - 1, width - 1, 1, 1)]
    for _ in range(count):
        h, w = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        boxes.append(Box(top, left, h, w))
    return boxes


@pytest.fixture(params=["libjpeg", "opencv"])
def way(request, monkeypatch) -> str:
    """Both ways of decoding a part."""
    if request.param == "opencv":
        monkeypatch.setattr(decoding, "jpeg", None)
    elif decoding.jpeg is None:
        pytest.skip("built without libjpeg-turbo's headers")
    return request.param


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_is_that_of_the_whole_to_the_bit(kind, way, rng):
    (height, width), quality, settings = KINDS[kind]
    encoded = noise_jpeg(rng, (height, width), quality, settings)
    whole = decode(encoded)
    if way == "libjpeg":
        assert decoding.jpeg.size(encoded) == (height, width)
    for box in random_boxes(rng, height, width, 60):
        part = decode_part(encoded, lambda h, w, box=box: box if (h, w) == (height, width) else 0)
        np.testing.assert_array_equal(part, box.of(whole))


def test_a_part_of_grayscale(way, picture):
    encoded = cv2.imencode(".jpg", picture[..., 0])[1].tobytes()
    part = decode_part(encoded, lambda h, w: Box(10, 20, 30, 40))
    np.testing.assert_array_equal(part, decode(encoded)[10:40, 20:60])


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_a_part_of_what_is_no_jpeg(way, picture, suffix):
    encoded = encode(picture, suffix)
    part = decode_part(encoded, lambda h, w: Box(1, 2, 3, 4))
    np.testing.assert_array_equal(part, decode(encoded)[1:4, 2:6])


@pytest.mark.parametrize("sampling", [0x411111, 0x121111, 0x221111])
def test_a_part_of_any_sampling(way, rng, sampling):
    pixels = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
    settings = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    encoded = cv2.imencode(".jpg", pixels, settings)[1].tobytes()
    part = decode_part(encoded, lambda h, w: Box(13, 17, 31, 33))
    np.testing.assert_array_equal(part, decode(encoded)[13:44, 17:50])


def test_a_part_of_cmyk(way, picture):
    file = io.BytesIO()
    Image.fromarray(picture).convert("CMYK").save(file, "JPEG")
    part = decode_part(file.getvalue(), lambda h, w: Box(1, 2, 3, 4))
    np.testing.assert_array_equal(part, decode(file.getvalue())[1:4, 2:6])


@pytest.mark.parametrize("encoded", [b"", b"no picture", b"\xff\xd8\xff\xd9", b"\xff"])
def test_no_part_of_no_picture(way, encoded):
    assert decode_part(encoded, lambda h, w: Box(0, 0, h, w)) is None


def test_no_part_of_a_file_cut_short(way, rng):
    """Not even one whose rows are all there."""
    encoded = noise_jpeg(rng, (100, 100), 90, {})
    for length in (len(encoded) // 2, len(encoded) - 2):
        assert decode_part(encoded[:length], lambda h, w: Box(0, 0, 2, 2)) is None


def test_damaged_data_are_the_same_either_way(rng):
    """Where libjpeg complains, OpenCV decides."""
    if decoding.jpeg is None:
        pytest.skip("built without libjpeg-turbo's headers")
    encoded = noise_jpeg(rng, (100, 100), 90, {})
    complaints = 0
    for _ in range(40):
        damaged = bytearray(encoded)
        for place in rng.integers(700, len(encoded) - 2, 6):
            damaged[place] = rng.integers(256)
        whole = decode(bytes(damaged))
        part = decode_part(bytes(damaged), lambda h, w: Box(60, 30, 30, 50))
        complaints += not decoding.jpeg.entropy_decode(bytes(damaged))
        np.testing.assert_array_equal(part, whole[60:90, 30:80])
    assert complaints > 10


def test_a_region_outside_is_none(rng):
    if decoding.jpeg is None:
        pytest.skip("built without libjpeg-turbo's headers")
    encoded = noise_jpeg(rng, (20, 30), 90, {})
    for region in ((0, 0, 21, 1), (19, 0, 2, 1), (0, 30, 1, 1), (0, 0, 0, 1), (2**32 - 1, 0, 2, 2)):
        assert decoding.jpeg.decode(encoded, *region) is None
