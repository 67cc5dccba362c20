"""Starting from another run's weights: all but the classifier's, and every difference told."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from pnet_jax.errors import UserError

HEADS = ("classifier", "head")


def transfer(fresh: Mapping[str, Any], pretrained: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The fresh variables with everything but the head taken from the pretrained ones.

    Args:
      fresh: `params` and `batch_stats` of the new network.
      pretrained: the same collections of the run to start from.

    Returns:
      The merged variables, and a line for each leaf that was not taken over (the head's).

    Raises:
      UserError: if anything but the head is missing, left over or of another shape; all are listed.
    """
    ours, theirs = _flatten(fresh), _flatten(pretrained)
    notes, problems, merged = [], [], {}
    for path, leaf in ours.items():
        name = "/".join(path)
        if path[1] in HEADS:
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
