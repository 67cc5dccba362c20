"""`convert to-ncnn`: from a run's work directory to checked files for ncnn, by way of pnnx."""

import functools
import pathlib
import shutil
import subprocess
import tempfile
import warnings

import ncnn
import numpy as np
import pnnx
import torch
from torch import nn

from pnet_jax.convert.files import replace_whole
from pnet_jax.convert.mobile.export import compare, open_twin, said_of
from pnet_jax.convert.record import Exported, write_record
from pnet_jax.convert.source import Source
from pnet_jax.errors import UserError

PARAM, WEIGHTS = "network.ncnn.param", "network.ncnn.bin"
# What pnnx calls them in every file.
INPUT, LOGITS = "in0", "out0"


def write_ncnn(source: Source, out: pathlib.Path, *, verified: bool = True) -> Exported:
    """Writes a checkpoint as a folder for ncnn, once it computes what the Flax network does.

    The network takes one normalised image, `in0` `[3, S, S]` float32, and gives logits, `out0`.

    Args:
      source: the checkpoint.
      out: the folder, which gets `network.ncnn.param`, `network.ncnn.bin` and `conversion.json`.
      verified: compares layers and logits with the Flax network's, on several images.

    Raises:
      UserError: if the networks differ, or pnnx fails.
    """
    twin = open_twin(source, "conv")
    with tempfile.TemporaryDirectory() as temporary:
        made = pathlib.Path(temporary)
        convert(twin, source.preprocessing.image_size, made)
        found = []
        if verified:
            network = open_network(made)
            found = compare(source, twin, lambda image: run(network, image), "The ncnn network")
        for name in (WEIGHTS, PARAM):
            replace_whole(out / name, functools.partial(shutil.copyfile, made / name))
            write_record(out / name, said_of(source, "ncnn", found))
    size_bytes = sum((out / name).stat().st_size for name in (WEIGHTS, PARAM))
    difference = found[-1].value if found else None
    return Exported(out, source, size_bytes, difference, len(found))


def convert(network: nn.Module, image_size: int, folder: pathlib.Path) -> None:
    """Makes the two files of a network in a folder.

    Raises:
      UserError: if pnnx fails.
    """
    traced = folder / "network.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pnnx reads traced networks, which PyTorch calls outdated
        example = torch.zeros(1, 3, image_size, image_size)
        torch.jit.trace(network, example, check_trace=False).save(traced)
    shape = f"inputshape=[1,3,{image_size},{image_size}]f32"
    done = subprocess.run(
        [pnnx.EXEC_PATH, traced.name, shape, "fp16=0"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not (folder / PARAM).is_file():
        last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise UserError(f"pnnx gave up on the network ({last}); nothing was written.")


def open_network(folder: pathlib.Path, *, threads: int = 1) -> ncnn.Net:
    """The network of a folder on the CPU, computing in float32.

    Raises:
      UserError: if ncnn has not all operators of the network.
    """
    network = ncnn.Net()
    network.opt.use_vulkan_compute = False
    network.opt.num_threads = threads
    network.opt.use_fp16_packed = False
    network.opt.use_fp16_storage = False
    network.opt.use_fp16_arithmetic = False
    network.opt.use_bf16_storage = False
    loaded = (
        network.load_param(str(folder / PARAM)) == 0
        and network.load_model(str(folder / WEIGHTS)) == 0
    )
    if not loaded:
        raise UserError(f"ncnn cannot load {folder / PARAM}.")
    return network


def run(network: ncnn.Net, image: np.ndarray) -> np.ndarray:
    """From one normalised image `[S, S, 3]` to logits `[classes]`."""
    channels_first = np.ascontiguousarray(image.transpose(2, 0, 1))
    with network.create_extractor() as extractor:
        extractor.input(INPUT, ncnn.Mat(channels_first).clone())
        _, logits = extractor.extract(LOGITS)
        return np.array(logits)
