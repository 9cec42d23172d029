"""Builds of the library that a process has loaded: the one that flashnce itself uses, and others beside it.

Another build may be older or newer than this code: it needs the few functions below, takes structs that carry their
size, and may not know what a problem asks for, which is `Unsupported` and no failure. One that is older than
fnce_plan_get_info has plans that tell nothing.
"""

from __future__ import annotations

import ctypes
import re
from ctypes import POINTER, byref, c_char_p, c_int32, c_size_t, c_void_p
from pathlib import Path

from flashnce import _library as c
from flashnce._plan_names import name_of

OK, UNSUPPORTED = 0, 20
# name: (result, arguments)
_FUNCTIONS = {
    "fnce_build_info": (c_char_p, []),
    "fnce_last_error": (c_char_p, []),
    "fnce_problem_init": (c_int32, [POINTER(c.Problem), c_size_t, c_int32]),
    "fnce_args_init": (c_int32, [POINTER(c.Args), c_size_t]),
    "fnce_plan_create": (c_int32, [POINTER(c.Problem), POINTER(c_void_p)]),
    "fnce_plan_destroy": (None, [c_void_p]),
    "fnce_plan_workspace": (c_int32, [c_void_p, POINTER(c_size_t)]),
    "fnce_loss": (c_int32, [c_void_p, POINTER(c.Args), c_void_p, c_size_t, c_void_p]),
}


class Unsupported(Exception):
    """The build does not have what the problem asks for; its own sentence says what."""


class Loaded:
    """A build in this process. Builds in different files have nothing in common, not even their threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # RTLD_LOCAL: the symbols of one build must not be found by another.
        self.handle = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
        for name, (result, arguments) in _FUNCTIONS.items():
            try:
                function = getattr(self.handle, name)
            except AttributeError:
                raise Unsupported(f"{path.name} has no {name}") from None
            function.restype, function.argtypes = result, arguments
        self.get_info = getattr(self.handle, "fnce_plan_get_info", None)
        if self.get_info is not None:
            self.get_info.restype, self.get_info.argtypes = c_int32, [c_void_p, POINTER(c.PlanInfo), c_size_t]

    def is_another_than(self, other: Loaded) -> bool:
        """Whether there are two of them in memory: the loader gives the same one again for the same file."""
        addresses = [ctypes.cast(library.handle.fnce_loss, c_void_p).value for library in (self, other)]
        return addresses[0] != addresses[1]

    def check(self, status: int) -> None:
        if status == UNSUPPORTED:
            raise Unsupported(self.handle.fnce_last_error().decode())
        if status != OK:
            raise RuntimeError(f"status {status}: {self.handle.fnce_last_error().decode()}")

    def build_info(self) -> str:
        return self.handle.fnce_build_info().decode()

    def instruction_set(self) -> str:
        """The one in use, "avx2"."""
        found = re.search(r"\bcpu \((\w+)", self.build_info())
        return found.group(1) if found else "unknown"

    def problem(self, preset: str) -> c.Problem:
        problem = c.Problem()
        self.check(self.handle.fnce_problem_init(problem, ctypes.sizeof(problem), c.PRESET[preset]))
        return problem

    def args(self) -> c.Args:
        args = c.Args()
        self.check(self.handle.fnce_args_init(args, ctypes.sizeof(args)))
        return args

    def plan(self, problem: c.Problem) -> tuple[c_void_p, int]:
        """The plan and the bytes of its workspace."""
        plan, size = c_void_p(), c_size_t()
        self.check(self.handle.fnce_plan_create(problem, byref(plan)))
        self.check(self.handle.fnce_plan_workspace(plan, byref(size)))
        return plan, size.value

    def products(self, plan: c_void_p) -> str | None:
        """What both GEMMs of a plan multiply, "bfloat16"; None from a build whose plans tell nothing."""
        if self.get_info is None:
            return None
        info = c.PlanInfo()
        self.check(self.get_info(plan, info, ctypes.sizeof(info)))
        return str(name_of(info.products, c.PRODUCTS))


_own: Loaded | None = None


def own() -> Loaded:
    """The build under measurement, the one that flashnce uses."""
    global _own
    if _own is None:
        _own = Loaded(Path(c.PATH))
    return _own
