"""Sets a drawing on a made-up background: one picture, deterministic in its random generator.

Channels are blue-green-red throughout, as OpenCV decodes and encodes them. Nothing is mirrored: an
arrow to the left and an arrow to the right are two classes.
"""

import cv2
import numpy as np

JPEG_QUALITY = 90


def render(sprite: np.ndarray, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """Composes one picture.

    Args:
      sprite: [S, S, 4] uint8 drawing with alpha not multiplied in.
      image_size: height and width of the picture.
      rng: where all its randomness comes from.

    Returns:
      [image_size, image_size, 3] uint8.
    """
    placed = _placed(_recoloured(sprite, rng), image_size, rng)
    picture = _background(image_size, rng)
    picture *= 1.0 - placed[..., 3:] * (1.0 / 255.0)
    picture += placed[..., :3]
    if rng.random() < 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 0.9) * image_size / 64)
    if rng.random() < 0.3:
        noise = rng.standard_normal(picture.shape, dtype=np.float32)
        picture += noise * np.float32(rng.uniform(2.0, 12.0))
    return cv2.convertScaleAbs(np.clip(picture, 0.0, 255.0, out=picture))


def encode_jpeg(picture: np.ndarray) -> bytes:
    """JPEG of a [H, W, 3] uint8 picture at quality 90."""
    return cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes()


def _recoloured(sprite: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Jitters contrast and the gain of each channel: [S, S, 4] float32, alpha multiplied in."""
    straight = sprite.astype(np.float32)
    alpha = straight[..., 3:] * (1.0 / 255.0)
    straight[..., :3] *= alpha
    colour = straight[..., :3]
    mean = colour.sum((0, 1)) / max(float(alpha.sum()), 1.0)
    contrast = np.float32(rng.uniform(0.7, 1.3))
    gain = rng.uniform(0.75, 1.25, 3).astype(np.float32)
    colour *= contrast
    colour += alpha * (mean * (gain - contrast))
    return straight


def _placed(sprite: np.ndarray, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """Scales, turns, shears and shifts the drawing into the picture: [H, W, 4] float32."""
    if sprite.shape[0] > image_size:  # an affine map samples single points, it cannot shrink well
        sprite = cv2.resize(sprite, (image_size, image_size), interpolation=cv2.INTER_AREA)
    source_size = sprite.shape[0]
    scale = image_size / source_size * rng.uniform(0.65, 1.05)
    angle, shear = np.deg2rad(rng.uniform(-20.0, 20.0)), rng.uniform(-0.15, 0.15)
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ np.array([[1.0, shear], [0.0, 1.0]])
    linear = linear * (scale * np.array([stretch, 1.0 / stretch]))
    centre = image_size / 2 + rng.uniform(-0.1, 0.1, 2) * image_size
    shift = centre - linear @ np.full(2, source_size / 2)
    return cv2.warpAffine(
        sprite, np.column_stack([linear, shift]), (image_size, image_size), flags=cv2.INTER_LINEAR
    )


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A gradient or smooth noise, half of the time with shapes on it: [size, size, 3] float32."""
    picture = _gradient(size, rng) if rng.random() < 0.5 else _smooth_noise(size, rng)
    return _with_shapes(picture, rng) if rng.random() < 0.5 else picture


def _colours(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Random colours, mostly muted, since drawings are mostly bright: [*shape, 3] float32."""
    grey = rng.uniform(0.0, 255.0, (*shape, 1))
    return np.clip(grey + rng.uniform(-80.0, 80.0, (*shape, 3)), 0.0, 255.0).astype(np.float32)


def _gradient(size: int, rng: np.random.Generator) -> np.ndarray:
    """Four random corner colours and everything between them."""
    corners = _colours((2, 2), rng)
    # Of a picture twice as wide the middle runs from corner colour to corner colour.
    doubled = cv2.resize(corners, (2 * size, 2 * size), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(doubled[size // 2 : size // 2 + size, size // 2 : size // 2 + size])


def _smooth_noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """Two octaves of coloured noise around a random colour."""
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = _colours((), rng)
    strength = rng.uniform(20.0, 100.0)
    cells = int(rng.integers(2, 8))
    for factor in (1, 2):
        values = rng.uniform(-strength, strength, (cells * factor, cells * factor, 3)) / factor
        picture += cv2.resize(
            values.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
        )
    return picture


def _with_shapes(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws two to six filled ellipses, triangles and thick lines."""
    size = picture.shape[0]
    count = int(rng.integers(2, 7))
    kinds = rng.integers(0, 3, count)
    points = rng.integers(-size // 8, size + size // 8, (count, 3, 2))
    colours = _colours((count,), rng)
    for kind, (a, b, c), colour in zip(kinds, points, colours, strict=True):
        if kind == 0:
            axes = np.abs(b - a) // 3 + 1
            angle = float(c[0]) * 360 / size
            cv2.ellipse(picture, a.tolist(), axes.tolist(), angle, 0, 360, colour.tolist(), -1)
        elif kind == 1:
            cv2.fillConvexPoly(picture, np.stack([a, b, c]).astype(np.int32), colour.tolist())
        else:
            thickness = int(abs(c[0]) * 8 // size) + 1
            cv2.line(picture, a.tolist(), b.tolist(), colour.tolist(), thickness)
    return picture
