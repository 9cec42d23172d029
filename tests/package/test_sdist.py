"""The source distribution: complete, of this project alone, and pip builds the same wheel from it.

It compiles the library, so that it takes as long as a build.
"""
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

import fresh
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD_SDIST = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    subprocess.run([sys.executable, "-c", BUILD_SDIST, folder], cwd=ROOT, check=True, timeout=300)
    found = list(folder.glob("*.tar.gz"))
    assert len(found) == 1, found
    return found[0]


def test_it_holds_what_a_build_needs_and_nothing_of_one(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    needed = {"LICENSE", "README.md", "CMakeLists.txt", "pyproject.toml", "include/flashnce/flashnce.h", "PKG-INFO",
              "include/flashnce/flashnce.hpp", "python/flashnce/__init__.py", "cmake/install.cmake"}
    assert needed <= names, needed - names
    built = re.compile(r"(build|dist|\.git|\.venv|\.cache)(/|$)|.*\.(o|so|pyc)$")
    assert not [name for name in names if built.match(name)]


def test_pip_builds_a_wheel_from_it(sdist, tmp_path):
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-index", "--no-deps", "--no-build-isolation",
                    "--config-settings=cmake.define.FLASHNCE_CUDA=OFF",
                    "--wheel-dir", tmp_path, sdist], check=True, cwd=tmp_path, timeout=1800)
    wheel, = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("flashnce/") and not name.endswith("/")}
    package = ROOT / "python/flashnce"
    modules = {f"flashnce/{p.relative_to(package)}" for p in package.rglob("*.py")}
    modules.add("flashnce/py.typed")  # the mark by which type checkers read the package
    modules |= {f"flashnce/report/page.{kind}" for kind in ("html", "css", "js")}
    libraries = {"flashnce/lib/libflashnce.so"}
    # The handlers of flashnce.jax are built where the headers of jaxlib are.
    if importlib.util.find_spec("jaxlib") is not None:
        libraries.add("flashnce/lib/libflashnce_jax.so")
    assert names == modules | libraries
    python = fresh.environment_with(wheel, tmp_path)
    assert json.loads(fresh.run(python, tmp_path, "-m", "flashnce", "info", "8", "64", "16", "--json"))["plan"]["runs"]
