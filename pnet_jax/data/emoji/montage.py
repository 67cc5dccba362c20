"""Draws a picture of the demo set: a row a class, its training pictures left, held-out ones right.

python -m pnet_jax.data.emoji.montage --out docs/images/demo_data.png
"""

import argparse
import pathlib

import cv2
import numpy as np
from PIL import Image

from pnet_jax.data.emoji import builder, sprites

CODES = ("1f42f", "1f355", "1f680", "1f339", "1f3b8", "1f419")
_GAP = 8  # pixels between training and validation
_HEADER = 18  # pixels above the rows


def montage(codes: tuple[str, ...], columns: int, image_size: int, seed: int = 0) -> np.ndarray:
    """Renders `columns` training and as many validation pictures of each class.

    Args:
      codes: code points of the classes, as in `classes.json`.

    Returns:
      [H, W, 3] uint8, blue-green-red, with a line of text above.
    """
    pack = sprites.load()
    class_of_code = {c.code: index for index, c in enumerate(pack.classes)}
    num_classes = len(pack.classes)
    settings = builder.Settings(
        image_size=image_size,
        num_train=columns * num_classes,
        num_validation=columns * num_classes,
        num_classes=num_classes,
        seed=seed,
        renderer=builder.RENDERER,
        sprites=pack.digest,
    )
    rows = []
    for code in codes:
        slots = [class_of_code[code] + num_classes * column for column in range(columns)]
        halves = [
            np.concatenate(
                [
                    cv2.imdecode(np.frombuffer(example.image, np.uint8), cv2.IMREAD_COLOR)
                    for example in builder.examples(settings, split, slots)
                ],
                axis=1,
            )
            for split in ("train", "validation")
        ]
        gap = np.full((image_size, _GAP, 3), 255, np.uint8)
        rows.append(np.concatenate([halves[0], gap, halves[1]], axis=1))
    body = np.concatenate(rows)
    header = np.full((_HEADER, body.shape[1], 3), 255, np.uint8)
    for text, left in (("training", 2), ("validation: held-out designs", columns * image_size)):
        left += _GAP if left > 2 else 0
        cv2.putText(header, text, (left, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, 16)
    return np.concatenate([header, body])


def main() -> None:
    """Writes the picture as a PNG file."""
    parser = argparse.ArgumentParser(description="Draw a picture of the demo set.")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a PNG file")
    parser.add_argument("--codes", nargs="+", default=CODES, help="code points of the classes")
    parser.add_argument("--columns", type=int, default=5, help="pictures of each split")
    parser.add_argument("--image_size", type=int, default=64)
    args = parser.parse_args()
    picture = montage(tuple(args.codes), args.columns, args.image_size)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    palette = Image.fromarray(picture[..., ::-1]).quantize(128)  # a third of the size, looks alike
    palette.save(args.out, optimize=True)


if __name__ == "__main__":
    main()
