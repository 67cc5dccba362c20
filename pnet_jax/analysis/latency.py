"""The paper's latency study: single images through a runtime on the CPU, networks in turns.

Weights are random, as times do not depend on them.
"""

import functools
import importlib
import pathlib
import platform
import statistics
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pnet_jax.augment.normalize import MEAN, STD
from pnet_jax.convert.source import Preprocessing, Source
from pnet_jax.errors import UserError
from pnet_jax.models import create_model, list_models, nearest

# Behind the name of a network: as the paper's authors published it, exported by PyTorch.
PUBLISHED = ":published"
_REFERENCES = {"resnet50": "ResNet-50 / it", "swin_tiny": "Swin-T / it"}


class Timed(NamedTuple):
    """Milliseconds of each run of a network on one image."""

    model: str
    milliseconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)


def measure(
    models: Sequence[str],
    *,
    threads: int,
    repeats: int,
    image_size: int = 224,
    runtime: str = "onnxruntime",
    on_repeat: Callable[[int], None] = lambda done: None,
) -> list[Timed]:
    """Times networks in turns: A B C A B C ..., so that a noisy machine is noisy to all alike.

    Args:
      models: names of `list_models()`, also with `:published` behind, or paths of `.onnx` files
        that take one image.
      threads: of the runtime.
      repeats: runs of each network that count; two more come first.
      image_size: pixels; a file has its own.
      runtime: one of `RUNTIMES`.
      on_repeat: is told how many repeats are done.

    Raises:
      UserError: for an unknown network or file, or without the runtime.
    """
    opened = RUNTIMES[runtime]
    runs = {model: opened(_content(model, image_size), threads) for model in models}
    milliseconds: dict[str, list[float]] = {model: [] for model in runs}
    for repeat in range(-2, repeats):
        for model, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat >= 0:
                milliseconds[model].append(1e3 * (time.perf_counter() - start))
        on_repeat(max(0, repeat + 1))
    return [Timed(model, times) for model, times in milliseconds.items()]


def _in_onnxruntime(content: Any, threads: int) -> Callable[[], Any]:
    try:
        from pnet_jax.convert.onnx.session import open_session
    except ImportError as error:
        raise _onnx_needed() from error
    session = open_session(content, threads=threads)
    (images,) = session.get_inputs()
    batch = _image(images.shape, images.type == "tensor(uint8)")
    return functools.partial(session.run, None, {images.name: batch})


def _in_openvino(content: Any, threads: int) -> Callable[[], Any]:
    # On import OpenVINO reports its use to its makers, from a process that it forks.
    name = "openvino_telemetry"
    sys.modules.setdefault(name, types.ModuleType(name))
    try:
        import openvino
    except ImportError as error:
        raise UserError(
            "--runtime openvino needs OpenVINO, which is not installed: pip install "
            "'pnet_jax[openvino]'."
        ) from error
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        # Where processors have bfloat16 it would be taken.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = openvino.Core()
    try:
        model = core.read_model(
            content if isinstance(content, pathlib.Path) else content.SerializeToString()
        )
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        if isinstance(content, pathlib.Path):
            raise UserError(f"{content} is no ONNX model that OpenVINO reads.") from error
        raise
    images = compiled.input(0)
    shape = [length.get_length() if length.is_static else 1 for length in images.partial_shape]
    batch = _image(shape, images.element_type == openvino.Type.u8)
    return functools.partial(compiled.create_infer_request().infer, [batch])


RUNTIMES: dict[str, Callable[[Any, int], Callable[[], Any]]] = {
    "onnxruntime": _in_onnxruntime,
    "openvino": _in_openvino,
}


def _image(shape: Sequence[int | str], as_bytes: bool) -> np.ndarray:
    """Noise, one image where the shape names no number."""
    lengths = [length if isinstance(length, int) else 1 for length in shape]
    pixels = np.random.default_rng(0).integers(0, 256, lengths)
    return pixels.astype(np.uint8 if as_bytes else np.float32)


def _onnx_needed() -> UserError:
    return UserError(
        "Latencies need onnx and onnxruntime, which are not installed: pip install "
        "'pnet_jax[torch]'."
    )


def rows(timed: Sequence[Timed]) -> list[dict[str, str]]:
    """The table: medians with the quartiles around them, and the references' times over each."""
    references = {t.model: t for t in timed if t.model in _REFERENCES}
    table = []
    for one in timed:
        quartiles = statistics.quantiles(one.milliseconds, n=4)
        row = {
            "model": one.model,
            "ms": f"{one.median:.2f}",
            "quartiles": f"{quartiles[0]:.2f} to {quartiles[2]:.2f}",
        }
        for name, reference in references.items():
            row[_REFERENCES[name]] = f"{ratio(reference, one):.2f}"
        table.append(row)
    return table


def ratio(numerator: Timed, denominator: Timed) -> float:
    """The median of the ratios of neighbours, which drifts of the machine leave alone."""
    pairs = zip(numerator.milliseconds, denominator.milliseconds, strict=True)
    return statistics.median(a / b for a, b in pairs)


def setting(threads: int, runtime: str = "onnxruntime") -> str:
    """What must stand beside the times: runtime, threads, processor and its vector instructions."""
    name = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[runtime]
    version = importlib.import_module(runtime).__version__.partition("-")[0]
    of_threads = "1 thread" if threads == 1 else f"{threads} threads"
    return f"{name} {version}, {of_threads}, batch 1, {_processor()}, {time.strftime('%Y-%m-%d')}"


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        facts = dict(line.split(":", 1) for line in lines if ":" in line)
    except OSError:
        return platform.processor() or platform.machine()
    said = {key.strip(): value.strip() for key, value in facts.items()}
    flags = said.get("flags", "").split()
    isa = [name for name, flag in (("AVX2", "avx2"), ("AVX-512", "avx512f")) if flag in flags]
    name = said.get("model name", platform.machine())
    return f"{name} ({' and '.join(isa)})" if isa else name


def _content(model: str, image_size: int) -> Any:
    """The ONNX model of a name, or the path of a file."""
    if model.endswith(".onnx"):
        path = pathlib.Path(model)
        if not path.is_file():
            raise UserError(f"There is no file {path}; check the path.")
        return path
    name = model.removesuffix(PUBLISHED)
    if name not in list_models():
        raise UserError(f"There is no model {name!r}; {nearest(name, list_models())}")
    if model.endswith(PUBLISHED):
        return _published(name, image_size)
    try:
        from pnet_jax.convert.onnx.model import Options, build
    except ImportError as error:
        raise _onnx_needed() from error
    return build(random_source(name, image_size), Options(batch=1))


def random_source(name: str, image_size: int, **fields: Any) -> Source:
    """A network as if it were a checkpoint, with random weights.

    Dynamic ones route as published unless told otherwise.
    """
    network = create_model(name, **fields)
    if getattr(network, "num_experts", None) is not None:
        fields = {"routing": "sigmoid_linear"} | fields
        network = create_model(name, **fields)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(0)

    def leaf(path: Any, shape: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key in ("scale", "var"):
            return np.ones(shape.shape, np.float32)
        # Far from overflow, and from the tiny numbers that processors are slow with.
        spread = np.float32(np.prod(shape.shape[-4:-1] or (1,)) ** -0.5)
        return spread * rng.standard_normal(shape.shape, np.float32)

    return Source(
        workdir=pathlib.Path(),
        model=name,
        fields=fields,
        step=0,
        weights="raw",
        variables={"batch_stats": {}} | jax.tree_util.tree_map_with_path(leaf, shapes),
        fingerprint="",
        classes=None,
        preprocessing=Preprocessing(image_size, 0.875, MEAN, STD),
        temperature=1.0,
    )


def _published(name: str, image_size: int) -> Any:
    """The published form of a network as PyTorch's TorchScript exporter writes it."""
    try:
        import onnx
        import torch
    except ImportError as error:
        raise UserError(
            f"{name}{PUBLISHED} needs PyTorch, which is not installed: pip install "
            f"'pnet_jax[torch]'."
        ) from error
    from pnet_jax.convert import torch_model

    try:
        network = torch_model.create_model(name, routing="sigmoid_linear", form="conv").eval()
    except ValueError as error:
        raise UserError(f"{name}{PUBLISHED}: {error}") from error
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        path = pathlib.Path(directory) / "published.onnx"
        warnings.simplefilter("ignore")  # the exporter is the one the published code was used with
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, image_size, image_size),),
            path,
            dynamo=False,
            input_names=["images"],
            output_names=["logits"],
        )
        return onnx.load(path)
