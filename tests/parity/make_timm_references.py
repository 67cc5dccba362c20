"""Writes `swin_tiny_w0625_timm.safetensors` and `ghostnet_100_w010_timm.safetensors` beside it.

    pip install --no-deps timm==1.0.31 && python tests/parity/make_timm_references.py

Each holds a small network of timm's: random `weights/*` (half precision, which is exact: PyTorch
computed with the rounded values), the size of the images, and what PyTorch computed: `out/logits`,
`out/loss` against the labels 0, 1, ..., and for Swin `out/grad/*`. The networks are in evaluation
mode. The images are `images_of(shape)`, a chirp that any machine computes alike.
"""

import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file
from timm_alone import stand_in_for_what_timm_lacks

HERE = pathlib.Path(__file__).parent
NUM_CLASSES = 10


def images_of(shape: tuple[int, ...]) -> np.ndarray:
    """`[N, 3, H, W]` float32 in [-2, 2]."""
    return (2 * np.sin(1e-3 * np.arange(np.prod(shape)) ** 2)).reshape(shape).astype(np.float32)


def random_tensor(name: str, tensor: torch.Tensor, rng: np.random.Generator) -> np.ndarray:
    """Weights of a size that keeps activations near 1, and norms that are not where they start."""
    shape = tuple(tensor.shape)
    values = rng.normal(size=shape)
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 2.0, shape)
    elif "bias_table" not in name and len(shape) > 1:
        values = values * (1 / np.prod(shape[1:])) ** 0.5
    elif len(shape) == 1:
        values = 0.2 * values + name.endswith("weight")
    return values.astype(np.int64 if tensor.dtype == torch.int64 else np.float16)


def write(
    path: pathlib.Path, model: torch.nn.Module, shape: tuple[int, ...], listed: str = ""
) -> None:
    """Gradients are kept of the parameters whose name has one of the `listed` words in it."""
    rng = np.random.default_rng(0)
    weights = {name: random_tensor(name, t, rng) for name, t in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(w).float() for name, w in weights.items()})
    model.eval()
    logits = model(torch.from_numpy(images_of(shape)))
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(shape[0]))
    loss.backward()
    tensors = {f"weights/{name}": weight for name, weight in weights.items()}
    tensors["shape"] = np.array(shape)
    tensors["out/logits"] = logits.detach().numpy()
    tensors["out/loss"] = loss.detach().numpy()
    for name, parameter in model.named_parameters():
        if any(word in name for word in listed.split()):
            tensors[f"out/grad/{name}"] = parameter.grad.numpy()
    save_file(tensors, path)
    print(f"{path.name}: {path.stat().st_size:,} bytes, logits {logits.detach().std():.3f}")


def main() -> None:
    stand_in_for_what_timm_lacks()
    from timm.models.ghostnet import _create_ghostnet
    from timm.models.swin_transformer import SwinTransformer

    swin = SwinTransformer(
        img_size=224,
        embed_dim=6,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
        num_classes=NUM_CLASSES,
    )
    listed = "patch_embed layers.0.blocks bias_table norm layers.1.downsample head"
    write(HERE / "swin_tiny_w0625_timm.safetensors", swin, (2, 3, 224, 224), listed)
    ghost = _create_ghostnet("ghostnet_100", width=0.1, num_classes=NUM_CLASSES)
    write(HERE / "ghostnet_100_w010_timm.safetensors", ghost, (2, 3, 64, 64))


if __name__ == "__main__":
    main()
