"""The packages that flashnce.compat stands for, imported beside the CPU build of PyTorch.

torchvision of PyPI does not import beside that build, and scipy and scikit-learn are large: empty modules take their
place during the import of a package, which needs their names and, for the losses here, nothing of them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import runpy
import sys
import types
from collections.abc import Iterator
from pathlib import Path

TRAINERS = Path(__file__).resolve().parents[2] / "examples" / "trainers"
_REPLACED = ("torchvision", "scipy", "sklearn")


class _Empty(types.ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self) -> None:
        # Without its version, which would belong to no package: torch asks for that of scipy, for example.
        self.names = {name for name in _REPLACED if importlib.util.find_spec(name) is None}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Empty(spec.name)

    def exec_module(self, module) -> None:
        pass


@contextlib.contextmanager
def replaced_imports() -> Iterator[None]:
    """Within it the packages of _REPLACED that are not installed can be imported; nobody finds them afterwards."""
    finder = _Finder()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _Empty)]:
            del sys.modules[name]


def peer(name: str) -> types.ModuleType:
    """The module `name` of a package of tools/requirements-peers.txt; skips the test where that is not installed."""
    with replaced_imports():
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as missing:
            if missing.name != name.split(".")[0]:
                raise
            import pytest  # Here, because bench/trainers.py imports this module, too.

            pytest.skip(f"{missing.name} is not installed (tools/requirements-peers.txt)")


def module_of(name: str) -> types.ModuleType:
    """A module of an installed package; where the __init__ of a package above it asks for more, without running it."""
    import pytest

    with contextlib.suppress(ImportError):
        return importlib.import_module(name)
    top, *parents = name.split(".")[:-1]
    spec = importlib.util.find_spec(top)
    if spec is None:
        pytest.skip(f"{top} is not installed")
    path, above = list(spec.submodule_search_locations), top
    for parent in (None, *parents):
        if parent is not None:
            above, path = f"{above}.{parent}", [f"{folder}/{parent}" for folder in path]
        if above not in sys.modules:
            sys.modules[above] = types.ModuleType(above)
            sys.modules[above].__path__ = path
    with replaced_imports():
        try:
            return importlib.import_module(name)
        except ImportError as error:
            pytest.skip(f"{name} cannot be imported: {error}")


def example(trainer: str, file: str) -> dict:
    """The names of examples/trainers/TRAINER/FILE, which may import what only the folder has."""
    before_path, before_modules = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(TRAINERS))
    try:
        with replaced_imports():
            return runpy.run_path(str(TRAINERS / trainer / file))
    finally:
        sys.path[:] = before_path
        for name in set(sys.modules) - before_modules:
            path = getattr(sys.modules[name], "__file__", None)
            if path is not None and Path(path).is_relative_to(TRAINERS):
                del sys.modules[name]
