"""Instruction sets: what limits the library and its peers to one; the environment of processes that measure."""

from __future__ import annotations

import os
import re
from pathlib import Path

BENCH = Path(__file__).resolve().parent
# Every BLAS and OpenMP that may be there reads one of these.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
# Settings of the caller's environment that could make a BLAS choose other kernels than it would by itself, such as
# OPENBLAS_CORETYPE=Haswell, or wait otherwise, do not reach the measurement.
TUNING_VARIABLES = re.compile(r"(OPENBLAS|GOTO|MKL|BLIS|OMP|GOMP|KMP|DNNL|ONEDNN|ATEN|FNCE)_")
# FNCE_CPU_ISA: what limits MKL, OpenBLAS, oneDNN and PyTorch's own loops to the same instructions.
ISA = {
    "baseline": ("SSE4_2", "Nehalem", "SSE41", "default"),
    "avx2": ("AVX2", "Haswell", "AVX2", "avx2"),
    "avx512": ("AVX512", "SkylakeX", "AVX512_CORE_VNNI", "avx512"),
    "avx512_bf16": ("AVX512_E3", "Cooperlake", "AVX512_CORE_BF16", "avx512"),
    "amx": ("AVX512_E4", "SapphireRapids", "AVX512_CORE_AMX", "avx512"),
    "neon": (None, "NEOVERSEN1", "DEFAULT", "default"),
}
_VARIABLES = ("MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")


def limit(isa: str | None) -> dict[str, str]:
    """The variables of an instruction set; None: no limit."""
    if isa is None:
        return {}
    values = {name: value for name, value in zip(_VARIABLES, ISA[isa]) if value is not None}
    return {"FNCE_CPU_ISA": isa, **values}


def environment(threads: int, isa: str | None) -> dict[str, str]:
    """Of a process that measures."""
    variables = {name: value for name, value in os.environ.items() if not TUNING_VARIABLES.match(name)}
    variables |= {name: str(threads) for name in THREAD_VARIABLES}
    # torch.compile would start processes for it that stay.
    variables["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(BENCH), os.environ.get("PYTHONPATH")]))
    return variables | limit(isa)
