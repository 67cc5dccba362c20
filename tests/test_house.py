"""The rules of the house hold in every file, and the checker of the rules notices a breach."""

import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest

from tests import house_rules

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    PurePosixPath(path.relative_to(ROOT).as_posix()): path.read_text(encoding="utf-8")
    for top in ("pnet_jax", "configs", "launch", "benchmarks", "docs", "tests")
    for path in sorted((ROOT / top).rglob("*.py"))
}


def test_every_file_keeps_the_rules():
    assert PurePosixPath("pnet_jax/__init__.py") in SOURCES
    found = []
    for path, source in SOURCES.items():
        found += house_rules.layer_violations(path, source)
        found += house_rules.owner_violations(path, source)
        found += house_rules.file_violations(path, source)
        found += house_rules.mirror_violations(path, ROOT)
    assert not found, "\n" + "\n".join(found)


def test_the_layers_have_no_cycle_and_name_only_each_other():
    order = list(TopologicalSorter(house_rules.LAYERS).static_order())
    assert set(order) == set(house_rules.LAYERS)
    assert order.index("ops") < order.index("models") < order.index("training")
    assert order.index("training") < order.index("train") < order.index("main")


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("pnet_jax/ops/a.py", "from pnet_jax.models import b", "`ops` must not import"),
        ("pnet_jax/ops/a.py", "from ..models import b", "`ops` must not import"),
        ("pnet_jax/ops/a.py", "from .. import models", "`ops` must not import"),
        ("pnet_jax/models/a.py", "import pnet_jax.config", "`models` must not import"),
        ("pnet_jax/augment/a.py", "def f():\n    import pnet_jax.data.b", "`augment` must not"),
        ("pnet_jax/data/a.py", "from pnet_jax.training import b", "`data` must not import"),
        ("pnet_jax/training/a.py", "from pnet_jax import train", "`training` must not import"),
        ("pnet_jax/train.py", "from pnet_jax import main", "`train` must not import"),
        ("pnet_jax/__init__.py", "from pnet_jax import models", "`pnet_jax` must not import"),
        ("pnet_jax/models/a.py", "import optax", "jax, flax and numpy only, not `optax`"),
        ("pnet_jax/other/a.py", "", "has no place in LAYERS"),
    ],
)
def test_layer_breaches_are_noticed(path, source, complaint):
    (found,) = house_rules.layer_violations(PurePosixPath(path), source)
    assert complaint in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("pnet_jax/models/a.py", "import jax\nimport math\nfrom pnet_jax.ops.b import c"),
        ("pnet_jax/models/a.py", "from .b import c\nfrom . import d\nfrom ..ops import e"),
        ("pnet_jax/train.py", "from pnet_jax import __version__, checkpoint, data, training"),
        ("pnet_jax/convert/a.py", "from pnet_jax.checkpoint import b"),
        ("configs/a.py", "from pnet_jax import config"),
    ],
)
def test_imports_that_point_down_are_let_through(path, source):
    assert house_rules.layer_violations(PurePosixPath(path), source) == []


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("pnet_jax/train.py", "import orbax.checkpoint as ocp", "only in checkpoint/"),
        ("pnet_jax/training/a.py", "import grain", "only in data/"),
        ("pnet_jax/train.py", "def f():\n    import torch", "only in convert/ and"),
        ("pnet_jax/analysis/tables.py", "import onnxruntime", "only in convert/ and"),
        ("pnet_jax/data/a.py", "from matplotlib import pyplot", "only in report/ and analysis/"),
        ("pnet_jax/data/a.py", "import tensorflow as tf", "imported nowhere"),
        ("tests/data/test_a.py", "from tensorflow.io import gfile", "imported nowhere"),
        ("pnet_jax/report/a.py", "from clu import metric_writers", "imported nowhere"),
        ("pnet_jax/parallel/a.py", "from jax.experimental.pjit import pjit", "imported nowhere"),
        ("pnet_jax/parallel/a.py", "from jax.experimental import pjit", "imported nowhere"),
    ],
)
def test_dependencies_outside_their_owner_are_noticed(path, source, complaint):
    (found,) = house_rules.owner_violations(PurePosixPath(path), source)
    assert complaint in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("pnet_jax/data/a.py", "import tensorflow_datasets as tfds\nimport cv2"),
        ("pnet_jax/analysis/latency.py", "import onnxruntime"),
        ("pnet_jax/report/a.py", "from tensorboard.summary import writer"),
        ("tests/convert/test_a.py", "import torch"),
    ],
)
def test_owners_may_import_what_they_own(path, source):
    assert house_rules.owner_violations(PurePosixPath(path), source) == []


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("pnet_jax/ops/a.py", '"""Doc."""\n' + "x = 1\n" * 400, "401 lines, over 400"),
        ("pnet_jax/data/utils.py", '"""Doc."""', "after its idea"),
        ("tests/data_lib.py", "", "after its idea"),
        ("pnet_jax/ops/a.py", "x = 1", "starts with a docstring"),
        ("pnet_jax/ops/__init__.py", "", "starts with a docstring"),
    ],
)
def test_file_breaches_are_noticed(path, source, complaint):
    (found,) = house_rules.file_violations(PurePosixPath(path), source)
    assert complaint in found


def test_a_long_enough_file_is_let_through():
    source = '"""Doc."""\n' + "x = 1\n" * 399
    assert house_rules.file_violations(PurePosixPath("pnet_jax/ops/a.py"), source) == []


def test_a_test_of_nothing_is_noticed(tmp_path):
    (tmp_path / "pnet_jax/data").mkdir(parents=True)
    (tmp_path / "pnet_jax/data/decode.py").touch()
    present, absent = PurePosixPath("tests/data/test_decode.py"), "tests/data/test_encode.py"
    assert house_rules.mirror_violations(present, tmp_path) == []
    (found,) = house_rules.mirror_violations(PurePosixPath(absent), tmp_path)
    assert "no pnet_jax/data/encode.py" in found
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch/local.sh").touch()
    script = PurePosixPath("tests/launch/test_local.py")
    assert house_rules.mirror_violations(script, tmp_path) == []
    (found,) = house_rules.mirror_violations(script.with_name("test_remote.py"), tmp_path)
    assert "no launch/remote.sh" in found
    assert house_rules.mirror_violations(PurePosixPath("tests/test_house.py"), tmp_path) == []


def _modules() -> tuple[list[str], set[str]]:
    """All modules of the package, and those that cannot be imported without an extra."""
    names, optional = [], set()
    for path, source in SOURCES.items():
        if path.parts[0] != "pnet_jax" or path.name == "__main__.py":
            continue
        name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        names.append(name)
        for found in house_rules.imports(path, source):
            if found.at_module_level and found.name.split(".")[0] in house_rules.OPTIONAL:
                optional.add(name)
    return names, optional


_IMPORT_ALL = """
import importlib, importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ImportError(f"{{name}} is blocked")

if {how!r} == "by a finder":
    sys.meta_path.insert(0, Block())
else:
    sys.modules["tensorflow"] = None
for name in {modules!r}:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"importing {{name}} imports torch")
if sys.modules.get("tensorflow") is not None:
    sys.exit("tensorflow was imported")
"""


@pytest.mark.parametrize("how", ["by a finder", "in sys.modules"])
def test_everything_imports_without_tensorflow_and_without_importing_torch(how):
    modules, optional = _modules()
    script = _IMPORT_ALL.format(how=how, modules=[name for name in modules if name not in optional])
    # tensorflow_datasets logs an import error instead of raising it, so the output must be empty.
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
