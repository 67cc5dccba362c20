"""setup.cfg, the constraint files and the wheel agree with each other and with the source."""

import ast
import configparser
import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests import house_rules

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pnet_jax"


def _setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def _requirements(text: str) -> list[Requirement]:
    lines = (line.strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


CORE = _requirements(_setup_cfg()["options"]["install_requires"])
EXTRAS = {
    extra: _requirements(text) for extra, text in _setup_cfg()["options.extras_require"].items()
}


def _pins(file_name: str) -> dict[str, Version]:
    pins = {}
    for requirement in _requirements((ROOT / file_name).read_text(encoding="utf-8")):
        (pin,) = requirement.specifier
        assert pin.operator == "==", f"{file_name}: {requirement} is not an exact version"
        pins[canonicalize_name(requirement.name)] = Version(pin.version)
    return pins


def test_constraints_hold_everything_that_is_installed_but_what_few_need():
    # cuda needs other builds, litert-torch (mobile) older packages than the rest, and the test of
    # OpenVINO is skipped without it.
    pins, apart = _pins("constraints.txt"), {"cuda", "mobile", "openvino"}
    wanted = CORE + [r for extra in EXTRAS.keys() - apart for r in EXTRAS[extra]]
    assert wanted
    for requirement in wanted:
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"constraints.txt lacks {requirement.name}"
        assert requirement.specifier.contains(pin), f"{requirement} against {pin}"
    # The whole tree is pinned, not only its first level.
    assert {"jaxlib", "tensorstore", "protobuf", "etils", "libtpu"} <= pins.keys()


def test_constraints_name_no_place_to_install_from():
    for file_name in ("constraints.txt", "constraints-lowest.txt"):
        lines = (ROOT / file_name).read_text(encoding="utf-8").splitlines()
        rest = [line for line in lines if not line.startswith("#")]
        assert [line for line in rest if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
        names = [line.split("==")[0].lower() for line in rest]
        assert names == sorted(set(names))


def test_the_lowest_versions_are_the_lower_bounds():
    bounds = {}
    for requirement in CORE + EXTRAS["torch"] + EXTRAS["dev"]:
        (bound,) = requirement.specifier
        assert bound.operator == ">=", requirement
        bounds[canonicalize_name(requirement.name)] = Version(bound.version)
    assert _pins("constraints-lowest.txt") == bounds


def test_tensorflow_is_in_no_list():
    names = {canonicalize_name(r.name) for r in CORE} | _pins("constraints.txt").keys()
    assert not names & {"tensorflow", "tensorflow-cpu", "tf-nightly", "clu"}


def _third_party_imports() -> dict[str, set[str]]:
    """Top-level name -> the files of the package that import it."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = PurePosixPath(path.relative_to(ROOT).as_posix())
        for imported in house_rules.imports(relative, path.read_text(encoding="utf-8")):
            top = imported.name.split(".")[0]
            if top not in sys.stdlib_module_names | {"pnet_jax"}:
                found.setdefault(top, set()).add(str(relative))
    return found


def test_every_import_is_declared():
    core = {canonicalize_name(r.name) for r in CORE}
    owners = importlib.metadata.packages_distributions()
    found = _third_party_imports()
    assert {"jax", "flax"} <= found.keys()
    for name, files in found.items():
        # A name in an environment without the extras is its own distribution's name.
        distributions = {canonicalize_name(d) for d in owners.get(name, [name])}
        extra = EXTRAS.get(house_rules.OPTIONAL.get(name, ""), [])
        declared = core | {canonicalize_name(r.name) for r in extra}
        assert distributions & declared, f"setup.cfg does not declare `{name}` of {sorted(files)}"


def test_the_version_is_a_literal_and_building_needs_no_jax():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    literals = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert len(literals) == 1
    assert Version(literals[0]).release >= (0, 1)
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the tree so that the clone stays as it is."""
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    ignore = shutil.ignore_patterns("__pycache__", "*.so")
    for name in ("pnet_jax", "configs", "tests"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
    out = tmp_path_factory.mktemp("wheel")
    command = "-m pip wheel --quiet --no-deps --no-build-isolation --no-index"
    subprocess.run(
        [sys.executable, *command.split(), "--wheel-dir", str(out), str(source)], check=True
    )
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(wheel):
    """The module in C as what it was built to, if it could be."""
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    built = {name for name in inside if not name.endswith((".so", ".pyd"))} ^ inside
    assert all(name.startswith("pnet_jax/data/_jpeg.") for name in built)
    assert len(built) <= 1
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.suffix not in (".c", ".so", ".pyd")
    }
    assert "pnet_jax/py.typed" in inside
    assert inside - built == expected


def test_the_wheel_states_what_setup_cfg_states(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = wheel.read(name).decode()
    assert "\nName: pnet_jax\n" in metadata
    (python,) = re.findall(r"^Requires-Python: (.*)$", metadata, re.M)
    assert SpecifierSet(python).contains("3.11.0")
    assert not SpecifierSet(python).contains("3.10.13")
    assert set(re.findall(r"^Provides-Extra: (.*)$", metadata, re.M)) == set(EXTRAS)
    required = {Requirement(r) for r in re.findall(r"^Requires-Dist: (.*)$", metadata, re.M)}
    assert {r.name for r in required if r.marker is None} == {r.name for r in CORE}
    assert name.removesuffix("METADATA") + "licenses/LICENSE" in wheel.namelist()
