"""Peak memory of a step beyond its inputs: each peer in a process of its own, by the kernel's count of resident pages.

The peer runs once and is thrown away, so that loading code, compiling it and starting threads do not count; then
everything that it allocates does, also what it keeps between steps (a workspace, preallocated scores). Where the kernel
does not let a process reset its own peak, nothing is measured.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
LONGEST = 120  # seconds, compilation included; what takes longer is not measured


def resident(field: str) -> float:
    """MiB; VmRSS is now, VmHWM the peak."""
    return int(re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.M).group(1)) / 1024


def _extra(inputs: Callable[[], object], make: Callable[[object], object]) -> float:
    given = inputs()
    peer = make(given)
    peer.step()
    peer.step()
    del peer
    gc.collect()
    # Gives freed memory back to the system, so that using it again shows.
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")
    before = resident("VmRSS")
    peer = make(given)
    peer.step()
    peer.step()
    return max(0.0, resident("VmHWM") - before)


def measurable() -> bool:
    try:
        CLEAR.write_text("5")
        resident("VmHWM")
    except (OSError, AttributeError):
        return False
    return True


def extra_memory(inputs: Callable[[], object], make: Callable[[object], object]) -> float | None:
    """MiB that make(inputs()) takes, measured in a fork; None where that failed. The caller must not have computed
    anything in threads before, not even the inputs: a fork takes only the calling thread along, and OpenMP would wait
    for the rest."""
    read, write = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.alarm(LONGEST)
        try:
            os.write(write, json.dumps(_extra(inputs, make)).encode())
            os._exit(0)
        except BaseException as error:
            print(f"memory: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(answer) if status == 0 and answer else None
