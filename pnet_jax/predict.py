"""What a network sees in image files, from any format that this project writes.

    python -m pnet_jax.predict --weights (WORKDIR | X.onnx | X.safetensors) IMAGE...

prints the five most likely classes of each image; the same weights in another format say the same.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from pnet_jax.convert.classify import Classifier, open_classifier
from pnet_jax.data.build.classes import RELEASES, class_names
from pnet_jax.data.crop import central_crop
from pnet_jax.data.decode import decode
from pnet_jax.errors import UserError

_TOP = 5


def predict(classifier: Classifier, paths: Sequence[pathlib.Path]) -> list[dict[str, Any]]:
    """The most likely classes of each image, best first, with probabilities.

    Raises:
      UserError: if a file is no image.
    """
    prepared, names = classifier.preprocessing, _names(classifier)
    pixels = np.stack(
        [central_crop(_read(path), prepared.image_size, share=prepared.eval_crop) for path in paths]
    )
    logits = np.concatenate([classifier.logits_of(image[None]) for image in pixels])
    logits = np.float64(logits) - logits.max(axis=-1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    found = []
    for path, row in zip(paths, probabilities, strict=True):
        best = np.argsort(-row, kind="stable")[:_TOP]
        classes = [{"class": int(k), "name": names[k], "probability": float(row[k])} for k in best]
        found.append({"image": str(path), "classes": classes})
    return found


def _read(path: pathlib.Path) -> np.ndarray:
    try:
        image = decode(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    if image is None:
        raise UserError(f"{path} is no whole image; give JPEG, PNG or WebP files.")
    return image


def _names(classifier: Classifier) -> Sequence[str]:
    """Those of the run; of a head of an ImageNet release, WordNet numbers in their order."""
    if classifier.classes is not None:
        return classifier.classes
    for release, count in RELEASES.items():
        if count == classifier.num_classes:
            return class_names(release)
    return [f"class {number}" for number in range(classifier.num_classes)]


def main(argv: Sequence[str] | None = None) -> int:
    """Predicts as the command line says; returns the exit code, 1 for a mistake in its input."""
    parser = argparse.ArgumentParser(
        prog="python -m pnet_jax.predict", description="The five most likely classes of images."
    )
    parser.add_argument(
        "--weights",
        type=pathlib.Path,
        required=True,
        help="a run's work directory, or a file that was converted from it",
    )
    parser.add_argument("images", type=pathlib.Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    args = parser.parse_args(argv)
    try:
        found = predict(open_classifier(args.weights), args.images)
    except UserError as error:
        print(f"pnet_jax: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    for entry in found:
        print(entry["image"])
        for best in entry["classes"]:
            print(f"  {best['probability']:7.2%}  {best['name']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
