"""PyTorch weights on disk: `.safetensors` or, with torch installed, `.pth`. Tensors, never code."""

import contextlib
import json
import os
import pathlib
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from pnet_jax.errors import UserError

# The entry of a safetensors file's header that says, as JSON, what `convert.source` describes.
DESCRIPTION = "pnet_jax"

_SUFFIXES = (".safetensors", ".pth")


def write_weights(
    path: pathlib.Path, state_dict: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a state dict, whole or not at all; `metadata` goes into a safetensors file's header.

    Raises:
      UserError: for another suffix, or `.pth` without torch.
    """
    write: Callable[[pathlib.Path], Any]
    if _suffix(path) == ".pth":
        torch = _torch(path)
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in state_dict.items()}
        write = lambda target: torch.save(tensors, target)  # noqa: E731
    else:
        write = lambda target: save_file(dict(state_dict), target, dict(metadata))  # noqa: E731
    replace_whole(path, write)


def replace_whole(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
    """Makes a file, and the directories above it, whole or not at all; `write` fills a path.

    Raises:
      UserError: if it cannot be written there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); choose another --out."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_weights(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a state dict of float tensors.

    Raises:
      UserError: if the file is absent, of another suffix, damaged, or a pickle with anything but
        tensors in it.
    """
    if not path.is_file():
        raise UserError(f"There is no weights file {path}; check --weights.")
    if _suffix(path) == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path} is no whole safetensors file ({error}).") from error
    torch = _torch(path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(
            f"{path} is damaged or holds more than tensors, which could run code on loading; save "
            f"its "
            f"state_dict() alone, best as .safetensors."
        ) from error
    if not isinstance(tensors, Mapping) or not all(torch.is_tensor(t) for t in tensors.values()):
        raise UserError(f"{path} is no state dict; save model.state_dict() and convert that.")
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def read_description(path: pathlib.Path) -> dict[str, Any] | None:
    """What a safetensors file that this project wrote says of itself; None of any other."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "numpy") as file:
            said = json.loads((file.metadata() or {}).get(DESCRIPTION, "null"))
    except (SafetensorError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def _suffix(path: pathlib.Path) -> str:
    if path.suffix not in _SUFFIXES:
        raise UserError(f"{path.name} must end in {' or '.join(_SUFFIXES)}.")
    return path.suffix


def _torch(path: pathlib.Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path.name} needs PyTorch, which is not installed: pip install 'pnet_jax[torch]', "
            f"or use a "
            f".safetensors file, which needs nothing."
        ) from error
    return torch
