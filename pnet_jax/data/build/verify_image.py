"""Is a file a whole picture, to the last byte of its entropy-coded data?

A JPEG is decoded at 1/8 of its size, which reads every coded bit, and any complaint of
libjpeg-turbo counts. OpenCV and Pillow do not tell: both return a picture for damaged data.
"""

import dataclasses
import io

import cv2
import numpy as np
import simplejpeg

MIN_SIDE = 8  # pixels
MAX_PIXELS = 100_000_000  # the largest pictures of ImageNet have 61 million
MAX_BYTES = 256 << 20
JPEG_QUALITY = 95
# What libjpeg skips without losing a pixel.
_HARMLESS = ("extraneous bytes",)


@dataclasses.dataclass(frozen=True)
class Checked:
    """A JPEG to be stored, or None; `reason` says why it is not the file's own bytes."""

    image: bytes | None
    reason: str = ""


def check(encoded: bytes, resize_short: int | None = None) -> Checked:
    """Verifies a file's bytes and makes them what training reads everywhere.

    Grayscale and YCbCr JPEGs are kept as they are. CMYK ones and PNG, GIF, WebP and BMP files
    become RGB JPEGs (of an animation, the first frame).

    Args:
      encoded: the file.
      resize_short: pictures whose shorter side is longer than this are shrunk to it, in pixels.
    """
    if not encoded:
        return Checked(None, "empty")
    if len(encoded) > MAX_BYTES:
        return Checked(None, f"over {MAX_BYTES >> 20} MiB")
    result = _checked_jpeg(encoded) if encoded[:3] == b"\xff\xd8\xff" else _converted(encoded)
    if result.image is None or resize_short is None:
        return result
    return _shrunk(result, resize_short)


def _checked_jpeg(encoded: bytes) -> Checked:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
        if reason := _bad_size(height, width):
            return Checked(None, reason)
        simplejpeg.decode_jpeg(
            encoded,
            colorspace="CMYK" if colours in ("CMYK", "YCCK") else "GRAY",
            min_height=1,
            min_width=1,
            min_factor=8,
            strict=True,
        )
    except ValueError as error:
        complaint = str(error)
        if any(words in complaint for words in _HARMLESS):
            again = _converted(encoded)
            return again if again.image is None else Checked(again.image, f"repaired: {complaint}")
        return Checked(None, complaint)
    return _converted(encoded) if colours in ("CMYK", "YCCK") else Checked(encoded)


def _converted(encoded: bytes) -> Checked:
    from PIL import Image

    try:
        with Image.open(
            io.BytesIO(encoded), formats=("JPEG", "PNG", "GIF", "WEBP", "BMP")
        ) as picture:
            if reason := _bad_size(picture.height, picture.width):
                return Checked(None, reason)
            kind = f"{picture.format} {picture.mode}"
            pixels = np.asarray(picture.convert("RGB"))
    except Image.UnidentifiedImageError:
        return Checked(None, "no picture")
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError) as error:
        return Checked(None, f"{type(error).__name__}: {error}")
    return Checked(_encode(pixels), kind)


def _shrunk(checked: Checked, short: int) -> Checked:
    assert checked.image is not None
    height, width, _, _ = simplejpeg.decode_jpeg_header(checked.image)
    if min(height, width) <= short:
        return checked
    pixels = simplejpeg.decode_jpeg(checked.image, colorspace="RGB")
    size = (max(short, width * short // height), max(short, height * short // width))
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return Checked(_encode(pixels), checked.reason or "resized")


def _encode(pixels: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality=JPEG_QUALITY, colorsubsampling="420"
    )


def _bad_size(height: int, width: int) -> str:
    if min(height, width) < MIN_SIDE:
        return f"tiny: {width}x{height}"
    if height * width > MAX_PIXELS:
        return f"over {MAX_PIXELS // 1_000_000} megapixels: {width}x{height}"
    return ""
