"""`convert to-web`: a static page that classifies dropped images in the browser."""

import json
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

from pnet_jax.convert.files import replace_whole
from pnet_jax.convert.onnx.export import Options, write_onnx
from pnet_jax.convert.record import Exported
from pnet_jax.convert.source import open_source
from pnet_jax.errors import UserError

# From npm; MIT licence.
RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
NETWORK = "network.onnx"
_PAGE = pathlib.Path(__file__).with_name("page")


def export_web(
    workdir: pathlib.Path,
    out: pathlib.Path,
    *,
    step: int | None = None,
    weights: str = "ema",
    experts: str = "fp32",
    runtime: pathlib.Path | None = None,
) -> Exported:
    """Writes the page, the network with its preprocessing inside, and the runtime it needs.

    Args:
      workdir: of the run.
      out: a folder, to be served by any web server.
      step: of the checkpoint; None takes the best one.
      weights: "ema" or "raw".
      experts: how the file stores them, one of `onnx.storage.EXPERT_TYPES`.
      runtime: the folder `dist` of onnxruntime-web; None takes the package from npm.

    Raises:
      UserError: as `write_onnx`, and if the runtime cannot be had.
    """
    source = open_source(workdir, step=step, weights=weights)
    with tempfile.TemporaryDirectory() as directory:
        dist = _from_npm(pathlib.Path(directory)) if runtime is None else runtime
        for name in RUNTIME_FILES:
            if not (dist / name).is_file():
                raise UserError(
                    f"{dist} has no {name}; name the folder dist of {RUNTIME} by --runtime."
                )
        options = Options(batch=1, experts=experts, with_preprocessing=True)
        done = write_onnx(source, out / NETWORK, options)
        for name in RUNTIME_FILES:
            _copy(dist / name, out / name)
    told = json.dumps(source.describe(), ensure_ascii=False) + "\n"
    replace_whole(out / "network.json", lambda target: target.write_text(told))
    # Last, so that a page is never there without what it loads.
    for name in ("classify.mjs", "index.html"):
        _copy(_PAGE / name, out / name)
    return done


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    replace_whole(target, lambda temporary: shutil.copyfile(source, temporary))


def _from_npm(directory: pathlib.Path) -> pathlib.Path:
    remedy = f"unpack {RUNTIME} elsewhere and name its folder dist by --runtime"
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"The page needs {RUNTIME}, and npm is not installed; {remedy}.")
    command = [npm, "pack", "--silent", RUNTIME]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    archives = list(directory.glob("*.tgz"))
    if done.returncode or not archives:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"npm did not give {RUNTIME} ({said}); {remedy}.")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(directory, filter="data")
    return directory / "package" / "dist"
