"""The wheel as a stranger installs it: alone in an environment of its own, PyTorch and NumPy lent where needed.

`./dev test` builds the wheel into dist/ and installs it into build/wheel-venv before this runs. FLASHNCE_WHEELS names
another folder, with a wheel that was built with CUDA.
"""
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import zipfile

import fresh
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON = ROOT / "build" / "wheel-venv" / "bin" / "python"

FOLDER = os.environ.get("FLASHNCE_WHEELS", "dist")
WITH_CUDA = "FLASHNCE_WHEELS" in os.environ

# glibc 2.34 is Red Hat 9's; Ubuntu 22.04 and Debian 12 have newer ones.
NEWEST_GLIBC_MINOR = 34

LOSS = """
import numpy, flashnce
q = numpy.array([[1, 0], [1, 0]], numpy.float32)
loss = flashnce.info_nce(q, q, numpy.array([[0, 1]], numpy.float32), temperature=1.0)
loss = loss[0] if isinstance(loss, tuple) else getattr(loss, "loss", loss)
print(float(loss))
"""

TORCH_LOSS = """
import torch
from flashnce.torch import info_nce
q = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
loss = info_nce(q, q.detach(), torch.tensor([[0.0, 1.0]]), temperature=1.0)
loss.backward()
print(float(loss.detach()))
"""


JAX_LOSS = """
import numpy, flashnce.jax
q = numpy.array([[1, 0], [1, 0]], numpy.float32)
print(float(flashnce.jax.info_nce(q, q, numpy.array([[0, 1]], numpy.float32), temperature=1.0)))
"""

# The handlers of flashnce.jax are built where the headers of jaxlib are.
LIBRARIES = ["flashnce/lib/libflashnce.so"]
if WITH_JAX := importlib.util.find_spec("jaxlib") is not None:
    LIBRARIES.append("flashnce/lib/libflashnce_jax.so")


@pytest.fixture(scope="module")
def wheel():
    found = list((ROOT / FOLDER).glob("flashnce-*.whl"))
    assert len(found) == 1, f"{FOLDER}/ holds {len(found)} wheels; ./dev wheel builds one"
    return found[0]


def run_python(*arguments):
    assert PYTHON.exists(), "build/wheel-venv is missing: ./dev test makes it"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "FLASHNCE_LIBRARY")}
    result = subprocess.run([PYTHON, *arguments], env=environment, cwd=ROOT / "build", capture_output=True, text=True,
                            timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def run_code(code, lend_packages):
    """Runs `code` with the wheel; the packages of the developing environment come after the wheel's, if at all."""
    if lend_packages:
        places = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
        code = f"import sys; sys.path.extend({places!r})\n{code}"
    check = "import flashnce; assert 'wheel-venv' in flashnce.__file__, flashnce.__file__"
    return run_python("-c", f"{code}\n{check}")


def test_tag_and_content(wheel):
    assert re.fullmatch(r"flashnce-\d+\.\d+\.\d+-py3-none-manylinux_2_\d+_\w+\.whl", wheel.name), wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "flashnce/__init__.py" in names
    assert [name for name in names if ".so" in name] == LIBRARIES
    assert not [name for name in names if "__pycache__" in name or name.endswith((".a", ".cmake", ".pc", ".h"))], names


def test_the_tag_promises_no_more_than_the_library_keeps(wheel):
    """auditwheel reads the same tag from the library's symbols, and its glibc is an old one."""
    found = subprocess.run([sys.executable, "-m", "auditwheel", "show", wheel], capture_output=True, text=True,
                           timeout=120)
    assert found.returncode == 0, found.stderr
    words = " ".join(found.stdout.split())
    tag = wheel.stem.split("-")[-1]
    assert f'consistent with the following platform tag: "{tag}"' in words, words
    assert int(tag.split("_")[2]) <= NEWEST_GLIBC_MINOR, words


def test_no_path_of_this_machine(wheel):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            assert str(ROOT).encode() not in archive.read(name), name


def test_version_is_the_header_s(wheel):
    header = (ROOT / "include/flashnce/flashnce.h").read_text()
    version = ".".join(re.search(rf"FNCE_VERSION_{part} +(\d+)", header)[1] for part in ("MAJOR", "MINOR", "PATCH"))
    assert wheel.name.split("-")[1] == version
    assert run_code("import flashnce; print(flashnce.__version__)", False).strip() == version


def test_pip_installs_it_where_there_is_nothing_else(wheel, tmp_path):
    """A new environment, no compiler on the path, no network, neither NumPy nor torch: imported and used."""
    python = fresh.environment_with(wheel, tmp_path)
    code = "import flashnce, importlib.util as u, shutil; print(u.find_spec('numpy'), u.find_spec('torch'), " \
           "*map(shutil.which, ('cc', 'c++', 'gcc', 'clang')))"
    assert set(fresh.run(python, tmp_path, "-c", code).split()) == {"None"}
    information = json.loads(fresh.run(python, tmp_path, "-m", "flashnce", "info", "256", "65536", "128", "--json"))
    assert pathlib.Path(information["library"]).is_relative_to(tmp_path)
    assert information["plan"]["workspace_bytes"] > 0


def test_what_it_needs_and_has_code_for(wheel, tmp_path):
    """Nothing of NVIDIA's, also with CUDA: its runtime is inside, and the driver is asked for when it is needed."""
    with zipfile.ZipFile(wheel) as archive:
        for library in LIBRARIES:
            archive.extract(library, tmp_path)
    dynamic = subprocess.run(["readelf", "-d", *LIBRARIES], cwd=tmp_path, check=True, capture_output=True,
                             text=True).stdout
    needed = {name.split(".so")[0] for name in re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)}
    assert needed <= {"libc", "libm", "libstdc++", "libgcc_s", "ld-linux-x86-64", "ld-linux-aarch64"}, needed
    printed = fresh.run(fresh.environment_with(wheel, tmp_path), tmp_path, "-m", "flashnce", "info", "--json")
    information = json.loads(printed)
    cuda = re.search(r"cuda \(runtime [\d.]+, architectures ([\d, ]+), (\d+) devices?\)", information["build"])
    if WITH_CUDA:
        listed = (ROOT / "cmake/cuda_arch.cmake").read_text()
        archs = re.search(r"FLASHNCE_CUDA_RELEASE_ARCHS ([\d ]+)\)", listed).group(1)
        assert cuda and re.split(", ?", cuda[1]) == archs.split(), information["build"]
    else:
        assert cuda is None, information["build"]


@pytest.mark.parametrize("code", [LOSS, TORCH_LOSS] + [JAX_LOSS] * WITH_JAX,
                         ids=["numpy", "torch"] + ["jax"] * WITH_JAX)
def test_known_loss(code):
    # log(1 + exp(-1)), equation (7) with one orthogonal negative and temperature 1.
    assert float(run_code(code, True)) == pytest.approx(0.3132617, abs=1e-6)
