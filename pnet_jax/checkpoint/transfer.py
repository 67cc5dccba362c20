"""Starting from another run's weights, with every difference told.

The classifier is fresh, or its classes' rows are found in the other run's by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from pnet_jax.errors import UserError

HEADS = ("classifier", "head")


def match_classes(ours: Sequence[str], theirs: Sequence[str]) -> np.ndarray:
    """`[len(ours)]` int64: where each class stands among `theirs`, -1 if it does not.

    Classes are the same if their names (of ImageNet: wnids) are; indices differ between releases.
    """
    places = {name: i for i, name in enumerate(theirs)}
    return np.array([places.get(name, -1) for name in ours], np.int64)


def transfer(
    fresh: Mapping[str, Any], pretrained: Mapping[str, Any], rows: np.ndarray | None = None
) -> tuple[Any, list[str]]:
    """The fresh variables with everything but the head taken from the pretrained ones.

    With `rows`, the head's classes that are there come from the pretrained ones, too.

    Args:
      fresh: `params` and `batch_stats` of the new network.
      pretrained: the same collections of the run to start from.
      rows: from `match_classes`; None leaves the whole head fresh.

    Returns:
      The merged variables, and a line for each leaf that was not taken over (the head's).

    Raises:
      UserError: if anything but the head is missing, left over or of another shape; all are listed.
    """
    ours, theirs = _flatten(fresh), _flatten(pretrained)
    notes, problems, merged = [], [], {}
    for path, leaf in ours.items():
        name = "/".join(path)
        if path[1] in HEADS and rows is not None and path in theirs:
            head = np.array(leaf)
            known = rows >= 0
            # Classes are the last axis, of the kernel and of the bias.
            head[..., known] = np.asarray(theirs[path])[..., rows[known]]
            merged[path] = head
            notes.append(f"{known.sum()} of {len(rows)} classes mapped: {name}")
        elif path[1] in HEADS:
            merged[path] = leaf
            notes.append(f"fresh: {name} {list(leaf.shape)}")
        elif path not in theirs:
            problems.append(f"missing there: {name} {list(leaf.shape)}")
        elif theirs[path].shape != leaf.shape:
            problems.append(
                f"wrong shape: {name} is {list(theirs[path].shape)} there and "
                f"{list(leaf.shape)} here"
            )
        else:
            merged[path] = np.asarray(theirs[path], leaf.dtype)
    problems += [
        f"left over there: {'/'.join(path)} {list(leaf.shape)}"
        for path, leaf in theirs.items()
        if path not in ours
    ]
    if problems:
        listed = "\n  ".join(problems)
        raise UserError(
            f"config.init_from holds another network ({len(problems)} differences); give "
            f"config.model the name, width, routing and experts of that run:\n  {listed}"
        )
    return traverse_util.unflatten_dict(merged), notes


def _flatten(variables: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    return traverse_util.flatten_dict(dict(variables))
