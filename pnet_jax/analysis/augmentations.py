"""Draws one picture under every operation of `pnet_jax.augment`.

python -m pnet_jax.analysis.augmentations --image docs/images/demo_data.png --box 0 82 128 128 \
    --out docs/images/augment.png
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from pnet_jax.augment.mixing import Mixing
from pnet_jax.augment.policy import Policy
from pnet_jax.augment.rand_augment import OPERATIONS, Choice, RandAugment, apply

_COLUMNS = 7
_FILL = (124, 116, 104)
_MEAN, _STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


def examples(image: np.ndarray, magnitude: float) -> dict[str, np.ndarray]:
    """`[H, W, 3]` uint8 as it is, under each operation of RandAugment at `magnitude`, erased, and
    mixed with its mirror image; by name."""
    how = RandAugment(increasing=True, prob=1.0)
    count = len(OPERATIONS)
    choice = Choice(jnp.arange(count), jnp.full(count, magnitude), jnp.ones(count))
    batch = jnp.broadcast_to(image, (count, *image.shape))
    drawn = {"original": image}
    augmented = jax.jit(lambda images: apply(images, choice, how, fill=_FILL))(batch)
    for name, each in zip(OPERATIONS, np.asarray(augmented), strict=True):
        drawn[f"{name} {magnitude:g}"] = each
    pair = np.stack([image, image[:, ::-1]])
    policies = {
        "random erasing": Policy(random_flip=False, random_erasing=1.0),
        "mixup": Policy(random_flip=False, mixing=Mixing(mixup_alpha=5.0)),
        "CutMix": Policy(random_flip=False, mixing=Mixing(cutmix_alpha=5.0)),
    }
    for name, policy in policies.items():
        images, share = policy(jnp.asarray(pair), jax.random.key(3))
        label = name if share is None else f"{name}, {float(share[0]):.2f} of it"
        drawn[label] = np.clip(images[0] * _STD + _MEAN, 0, 255).astype(np.uint8)
    return drawn


def draw(examples: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """Writes a PNG of the pictures under their names."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(examples) // _COLUMNS)
    figure = Figure(figsize=(1.3 * _COLUMNS, 1.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, image) in zip(axes, examples.items(), strict=False):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(name, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def main() -> None:
    """Writes the picture as a PNG file."""
    from matplotlib import image as images

    parser = argparse.ArgumentParser(description="Draw one picture under every augmentation.")
    parser.add_argument("--image", type=pathlib.Path, required=True, help="a PNG file")
    parser.add_argument("--box", type=int, nargs=4, metavar=("LEFT", "TOP", "WIDTH", "HEIGHT"))
    parser.add_argument("--magnitude", type=float, default=9.0, help="0 to 10 (%(default)s)")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a PNG file")
    args = parser.parse_args()
    picture = np.round(255 * images.imread(args.image)[..., :3]).astype(np.uint8)
    if args.box is not None:
        left, top, width, height = args.box
        picture = picture[top : top + height, left : left + width]
    draw(examples(picture, args.magnitude), args.out)


if __name__ == "__main__":
    main()
