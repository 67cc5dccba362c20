"""ONNX Runtime on the CPU, in one thread."""

import json
import pathlib
from typing import Any

import onnx
import onnxruntime

from pnet_jax.errors import UserError


def open_session(
    model: onnx.ModelProto | pathlib.Path, *, threads: int = 1
) -> onnxruntime.InferenceSession:
    """A session for a model or a file.

    Raises:
      UserError: if the file is absent or no whole ONNX model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if isinstance(model, pathlib.Path) and not model.is_file():
        raise UserError(f"There is no file {model}; check the path.")
    content = str(model) if isinstance(model, pathlib.Path) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class of their own
        if isinstance(model, pathlib.Path):
            raise UserError(f"{model} is no whole ONNX model; export it again.") from error
        raise


def described(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    """What the file's metadata say, read as JSON where it is some."""
    said: dict[str, Any] = dict(session.get_modelmeta().custom_metadata_map)
    for key, text in said.items():
        try:
            said[key] = json.loads(text)
        except ValueError:  # a plain word
            continue
    return said
