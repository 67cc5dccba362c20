"""timm without torchvision and huggingface_hub, of which not every torch has one that fits."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types


class _AnyName(type):
    def __getattr__(cls, name: str) -> str:
        return name


class _StandIn(types.ModuleType):
    """A module in which every name is a class, and in that every name is a string."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyName(name, (), {})


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """timm imports torchvision and huggingface_hub for data and downloads, which are not used here,
    and there is not always a torchvision that fits the installed torch."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torchvision", "huggingface_hub"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _StandIn(spec.name)

    def exec_module(self, module):
        module.__path__ = []


def stand_in_for_what_timm_lacks() -> None:
    """Makes `import timm` work without torchvision."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.insert(0, _Absent())


def import_timm() -> types.ModuleType:
    """timm, or the end of the test that asks for it, as skipped."""
    import pytest

    stand_in_for_what_timm_lacks()
    return pytest.importorskip("timm", reason="needs timm: pip install --no-deps timm")
