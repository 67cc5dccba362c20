"""Between Flax and PyTorch. Only this package knows of torch, onnx and safetensors files."""

from pnet_jax.convert.reparam import merge_branches
from pnet_jax.convert.state_dict import from_torch, to_torch

__all__ = ["from_torch", "merge_branches", "to_torch"]
