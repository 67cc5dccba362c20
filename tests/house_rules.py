"""The rules of the house, read off the source of a file without importing it.

Each function returns sentences, one for each thing that is against a rule; `test_house.py` runs
them over the repository and, to show that they can fail, over sources that break them.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

PACKAGE = "pnet_jax"
MAX_LINES = 400

BANNED_NAMES = {"utils.py", "util.py", "common.py", "helpers.py", "helper.py", "misc.py"}
BANNED_SUFFIX = "_lib.py"

# Who may import whom inside the package. A part is a directory of the package or a module right
# under it; each may import itself and what stands beside it here. Arrows point down.
_BASE = {"config", "errors", "fields"}
_MIDDLE = {"training", "data", "checkpoint", "report", "parallel", "convert", "analysis"}
_RUN = {"run", "plan", "program", "workdir", "recipes"}
_NETWORKS = {"models", "augment", "ops"}
LAYERS: dict[str, set[str]] = {
    # the top: whole jobs
    "main": {"train", "evaluate", *_RUN, *_MIDDLE, *_NETWORKS, *_BASE},
    "demo": {"main", "train", "evaluate", *_RUN, *_MIDDLE, *_NETWORKS, *_BASE},
    "aot": {*_RUN, *_MIDDLE, *_NETWORKS, *_BASE},
    "bench": {"program", "recipes", *_MIDDLE, *_NETWORKS, *_BASE},
    "build_data": {"data", *_BASE},
    "predict": {"convert", "data", *_BASE},
    "train": {"evaluate", *_RUN, *_MIDDLE, *_NETWORKS, *_BASE},
    "evaluate": {*_RUN, *_MIDDLE, *_NETWORKS, *_BASE},
    "analyze": {"analysis", "report", *_NETWORKS, *_BASE},
    # what those jobs share
    "run": {"plan", "program", *_MIDDLE, *_NETWORKS, *_BASE},
    "plan": {*_BASE},
    "program": {"training", "parallel", *_NETWORKS, *_BASE},
    "recipes": {*_BASE},
    # the middle: one concern each, and few arrows between them
    "training": {*_NETWORKS, *_BASE},
    "parallel": {*_NETWORKS, *_BASE},
    "checkpoint": {*_NETWORKS, *_BASE},
    "convert": {"checkpoint", "data", "report", "workdir", *_NETWORKS, *_BASE},
    "analysis": {"convert", *_NETWORKS, *_BASE},
    "data": {*_BASE},
    "report": {*_BASE},
    # the networks, which know neither files nor configs
    "models": {"ops"},
    "augment": {"ops"},
    "ops": set(),
    # what the upper two layers share
    "config": {"errors", "fields"},
    "fields": {"errors"},
    "workdir": {*_BASE},
    "errors": set(),
}

# What the lowest layers may import from outside, besides the standard library.
PURE_PARTS = {"ops", "models", "augment"}
PURE_DEPENDENCIES = {"jax", "flax", "numpy"}

# The one place that each of these dependencies is imported in.
OWNERS: dict[str, tuple[str, ...]] = {
    "orbax": ("checkpoint/",),
    "grain": ("data/",),
    "array_record": ("data/",),
    "tensorflow_datasets": ("data/",),
    "cv2": ("data/",),
    "resvg_py": ("data/",),
    "simplejpeg": ("data/",),
    "PIL": ("data/", "bench/input.py"),
    "torch": ("convert/", "analysis/latency.py"),
    "onnx": ("convert/", "analysis/latency.py"),
    "onnxruntime": ("convert/", "analysis/latency.py"),
    "openvino": ("analysis/latency.py",),
    "litert_torch": ("convert/",),
    "ai_edge_litert": ("convert/",),
    "ncnn": ("convert/",),
    "pnnx": ("convert/",),
    "safetensors": ("convert/", "analysis/latency.py"),
    "tensorboard": ("report/",),
    "matplotlib": ("report/", "analysis/"),
}

FORBIDDEN = ("tensorflow", "clu", "jax.experimental.pjit")

# Installed by an extra of setup.cfg: only a module that is of no use without it may import it at
# module level.
OPTIONAL = {
    "torch": "torch",
    "onnx": "torch",
    "onnxruntime": "torch",
    "openvino": "openvino",
    "litert_torch": "mobile",
    "ai_edge_litert": "mobile",
    "ncnn": "mobile",
    "pnnx": "mobile",
    "resvg_py": "dev",
}


class Import(NamedTuple):
    """One name that a file imports."""

    line: int
    name: str  # dotted and absolute; `from a import b` gives "a.b"
    at_module_level: bool  # False inside a function or under `if TYPE_CHECKING:`


def imports(path: PurePosixPath, source: str) -> Iterator[Import]:
    """Every import of the file at `path` (relative to the repository), wherever it stands."""

    def absolute(node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        base = path.parts[: -node.level]
        return ".".join([*base, *([node.module] if node.module else [])])

    def visit(node: ast.AST, at_module_level: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, at_module_level)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(node.lineno, f"{absolute(node)}.{alias.name}", at_module_level)
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_module_level and not deferred)

    yield from visit(ast.parse(source), True)


def _is_under(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def part_of(path: PurePosixPath) -> str | None:
    """The part of the package that a file belongs to; None outside and for `pnet_jax/__init__`."""
    if path.parts[0] != PACKAGE or path.parts[1] == "__init__.py":
        return None
    return PurePosixPath(path.parts[1]).stem


def layer_violations(path: PurePosixPath, source: str) -> list[str]:
    """Imports inside the package that do not point down, and impure ones in the lowest layers."""
    part = part_of(path)
    if path.parts[0] != PACKAGE:
        return []
    if part is not None and part not in LAYERS:
        return [f"{path}: `{part}` has no place in LAYERS of tests/house_rules.py"]
    found = []
    for line, name, _ in imports(path, source):
        top, *rest = name.split(".")
        if top == PACKAGE:
            target = rest[0] if rest else None
            if target is None or target == "__version__" or target == part:
                continue
            if part is None or target not in LAYERS[part]:
                found.append(f"{path}:{line}: `{part or PACKAGE}` must not import `{name}`")
        elif part in PURE_PARTS and top not in PURE_DEPENDENCIES | sys.stdlib_module_names:
            found.append(f"{path}:{line}: `{part}` imports jax, flax and numpy only, not `{name}`")
    return found


def owner_violations(path: PurePosixPath, source: str) -> list[str]:
    """Dependencies imported outside their owner (in the package), and forbidden ones (anywhere)."""
    found = []
    for line, name, _ in imports(path, source):
        if any(_is_under(name, module) for module in FORBIDDEN):
            found.append(f"{path}:{line}: `{name}` is imported nowhere in this project")
        owners = OWNERS.get(name.split(".")[0])
        if owners is None or path.parts[0] != PACKAGE:
            continue
        inside = str(path.relative_to(PACKAGE))
        if not any(inside == owner or inside.startswith(owner) for owner in owners):
            found.append(f"{path}:{line}: `{name}` is imported only in {' and '.join(owners)}")
    return found


def file_violations(path: PurePosixPath, source: str) -> list[str]:
    """Too long, a name that says nothing, or (for a public module) no docstring."""
    found = []
    lines = len(source.splitlines())
    if lines > MAX_LINES:
        found.append(f"{path}: {lines} lines, over {MAX_LINES}; split it by idea")
    if path.name in BANNED_NAMES or path.name.endswith(BANNED_SUFFIX):
        found.append(f"{path}: name the file after its idea")
    private = path.stem.startswith("_") and path.stem not in {"__init__", "__main__"}
    if path.parts[0] != "tests" and not private and not ast.get_docstring(ast.parse(source)):
        found.append(f"{path}: a public module starts with a docstring")
    return found


def mirror_violations(path: PurePosixPath, root: Path) -> list[str]:
    """A test in `tests/X/test_Y.py` without a `pnet_jax/X/Y.py`; top-level tests are free.

    `tests/launch/test_Y.py` tests `launch/Y.sh`.
    """
    if path.parts[0] != "tests" or len(path.parts) < 3 or not path.name.startswith("test_"):
        return []
    if path.parts[1] == "launch":
        script = PurePosixPath("launch", f"{path.stem.removeprefix('test_')}.sh")
        return [] if (root / script).is_file() else [f"{path}: there is no {script} for it to test"]
    module = PurePosixPath(PACKAGE, *path.parts[1:-1], path.stem.removeprefix("test_"))
    if (root / f"{module}.py").is_file() or (root / module / "__init__.py").is_file():
        return []
    return [f"{path}: there is no {module}.py for it to test"]
