"""Plants known bugs in kernels and demands that the hostcuda harness catches every one of them.

Each bug is one replacement in a copy of kernels/; its text must occur exactly once, whatever its line breaks, so that
this list cannot fall behind the kernels. A planted kernel runs under several schedules as it is, then under
AddressSanitizer, then under ThreadSanitizer, until something catches it; races must be seen by ThreadSanitizer as well,
and accesses of memory that is not there, or not there yet, by AddressSanitizer. Before that, the kernels without a bug
pass all three.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

HALF, SPLIT = 1, 3  # Operand of kernels/contract/params.h
PLAIN, MIXED, STATISTICS = 0, 1, 2  # Variant of kernels/engines/sm80/tile.h


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A main kernel of the sm80 family, run by itself."""

    operand: int
    tile: int
    variant: int
    folder = "engines/sm80"
    driver = "main_driver"
    environment = {}

    def name(self):
        return f"sm80 {self.operand}-{self.tile}-{self.variant}"

    def source(self):
        return f"""#include "kernels/engines/sm80/instance.cuh"
namespace fnce::cuda::sm80 {{
Kernel<MainParams> main_kernel(Operand, int, Variant) {{
  return instance<static_cast<Operand>({self.operand}), {self.tile}, static_cast<Variant>({self.variant})>();
}}
}}  // namespace fnce::cuda::sm80
"""

    def arguments(self):
        return [str(self.operand), str(self.tile), str(self.variant)]


@dataclasses.dataclass(frozen=True)
class Calls:
    """The kernels of a file of another folder, run in whole calls of the library."""

    folder: str
    file: str
    driver = "calls_driver"

    @property
    def environment(self):
        return {"FNCE_BACKEND": "plain"} if self.folder == "engines/plain" else {}

    def name(self):
        return f"{self.folder}/{self.file}"

    def source(self):
        return f'#include "kernels/{self.folder}/{self.file}"\n'

    def arguments(self):
        return []


ASAN, TSAN = "AddressSanitizer", "ThreadSanitizer"

# The smallest tiles: 64 features, 32 rows, 4 warps side by side along the columns.
HALF_MIXED = Kernel(HALF, 0, MIXED)
SPLIT_MIXED = Kernel(SPLIT, 0, MIXED)
HALF_STATISTICS = Kernel(HALF, 0, STATISTICS)
SPLIT_PLAIN = Kernel(SPLIT, 0, PLAIN)
# The narrowest whose warps divide the features: 256 features, 32 rows, 4 warps side by side along the features.
SPLIT_DIVIDED = Kernel(SPLIT, 4, MIXED)
FINISH, PREMIX, PLAIN_MAIN = Calls("rows", "finish.cu"), Calls("rows", "premix.cu"), Calls("engines/plain", "main.cu")
COLUMN_GRADIENT = Calls("rows", "column_gradient.cu")


@dataclasses.dataclass(frozen=True)
class Bug:
    name: str
    kernel: Kernel | Calls
    file: str  # of the kernel's folder, or with the folder of kernels/ that has it
    text: str
    planted: str
    also: str = ""  # the sanitizer that must catch it besides the schedules


BUGS = [
    Bug("no barrier between a tile's arrival and its use", HALF_MIXED, "main.cuh",
        "  cp_async_wait<C::kAhead - 1>();\n  __syncthreads();\n", "  cp_async_wait<C::kAhead - 1>();\n", TSAN),
    Bug("no barrier between the conversion of a tile and its use", SPLIT_MIXED, "main.cuh",
        "  if constexpr (C::kConverts) __syncthreads();\n", "", TSAN),
    Bug("a warp fills its raw pieces again before all of its lanes have read them", SPLIT_MIXED, "main.cuh",
        "    __syncwarp();  // the warp's raw pieces have been read, and are filled again\n", "", TSAN),
    Bug("a barrier that only some threads come to", HALF_MIXED, "main.cuh",
        "    store_info<C>(shared, step + C::kAhead + 1, thread, next);\n",
        "    store_info<C>(shared, step + C::kAhead + 1, thread, next);\n    __syncthreads();\n"),
    Bug("a wait that leaves one group too many", HALF_MIXED, "main.cuh",
        "cp_async_wait<C::kAhead - 1>()", "cp_async_wait<C::kAhead>()", ASAN),
    Bug("a commit left out", HALF_MIXED, "main.cuh",
        "  load_columns<C>(p, walk, shared, step + C::kAhead);\n  cp_async_commit();\n",
        "  load_columns<C>(p, walk, shared, step + C::kAhead);\n", ASAN),
    Bug("one row too many is read at the tail", HALF_MIXED, "load.cuh",
        "if (column >= tile.valid) return", "if (column > tile.valid) return", ASAN),
    Bug("one score too many is weighed at the tail", HALF_MIXED, "softmax.cuh",
        "quad_count(columns.lane, columns.valid - 16 * group)",
        "quad_count(columns.lane, columns.valid + 1 - 16 * group)"),
    Bug("a stage is filled while it is read", HALF_MIXED, "tile.h",
        "return converts(operand) ? 1 : t.stages - 1;", "return converts(operand) ? 1 : t.stages;", TSAN),
    Bug("a slot of rows and lambdas is filled while it is read", HALF_MIXED, "tile.h",
        "return tiles_ahead(operand, t) + 2;", "return tiles_ahead(operand, t) + 1;", TSAN),
    Bug("the wrong partner in a cycle that is cut short", HALF_MIXED, "pass/columns.cuh",
        "quad.cycle > 2 ? x[2] : x[0]", "x[2]"),
    Bug("the wrong predecessor in the transposed mixing", HALF_MIXED, "pass/columns.cuh",
        "raw[2] = mix_transposed(quad.lambda[2], p[2], quad.lambda[1], p[1]);",
        "raw[2] = mix_transposed(quad.lambda[2], p[2], quad.lambda[3], p[3]);"),
    Bug("column warps write over what is still read", HALF_MIXED, "epilogue.cuh",
        "    __syncthreads();\n    if (place.column_warp == warp) {\n", "    if (place.column_warp == warp) {\n", TSAN),
    Bug("column warps read what is not yet written", HALF_MIXED, "epilogue.cuh",
        "    __syncthreads();\n    if (place.column_warp != 0) continue;\n",
        "    if (place.column_warp != 0) continue;\n", TSAN),
    Bug("statistics of column warps are read before they are written", HALF_STATISTICS, "epilogue.cuh",
        "all[place.column_warp * C::kRows + place.row(mi, h)] = merged;\n    }\n  __syncthreads();\n",
        "all[place.column_warp * C::kRows + place.row(mi, h)] = merged;\n    }\n", TSAN),
    Bug("the products with low planes are left out", SPLIT_MIXED, "products.cuh",
        "return plane_a + plane_b < C::kPlanes;", "return plane_a + plane_b < 1;"),
    Bug("anchors are written past the swizzle", HALF_MIXED, "load.cuh",
        "shared.anchors(plane) + tile_offset(row, chunk, C::kD)",
        "shared.anchors(plane) + row * C::kD + chunk * kChunk"),
    Bug("l lacks the share of half the lanes", HALF_MIXED, "epilogue.cuh",
        "for (int mask = 1; mask <= 2; mask *= 2)\n          rows.l",
        "for (int mask = 1; mask <= 1; mask *= 2)\n          rows.l"),
    Bug("O is not rescaled when a reference rises", HALF_MIXED, "softmax.cuh",
        "o[mi][c][r] *= factor[r >> 1];", ";"),
    Bug("the raw weights of a union do not reach O", HALF_MIXED, "softmax.cuh",
        "of_rows[v] += p[v];", ";"),
    Bug("partial scores are read before they are written", SPLIT_DIVIDED, "products.cuh",
        "make_float4(x[0], x[1], x[2], x[3]);\n  }\n  __syncthreads();\n",
        "make_float4(x[0], x[1], x[2], x[3]);\n  }\n", TSAN),
    Bug("a feature warp's share of the scores is left out", SPLIT_DIVIDED, "products.cuh",
        "for (int warp = 0; warp < C::kFeatureWarps; ++warp)",
        "for (int warp = 0; warp + 1 < C::kFeatureWarps; ++warp)"),
    Bug("anchors of the first features for all warps", SPLIT_DIVIDED, "load.cuh",
        "place.first_feature() + 16 * k + anchor_column", "16 * k + anchor_column"),
    Bug("O of the first features for all warps", SPLIT_DIVIDED, "products.cuh",
        "const int offset = tile_offset(row, 2 * (k % 4) + column.chunk, C::kD) + place.first_feature() +",
        "const int offset = tile_offset(row, 2 * (k % 4) + column.chunk, C::kD) +"),
    Bug("O of split operands is summed in the matrix units", SPLIT_PLAIN, "products.cuh",
        "add_products<C, (C::kPlanes > 1)>(w.p", "add_products<C, false>(w.p"),
    Bug("O of a float32 queue keeps the queue's scale", SPLIT_MIXED, "epilogue.cuh",
        "o[mi][c][2 * h + r] * kUnit;", "o[mi][c][2 * h + r];"),
    Bug("the result of a reduction is read before it is written", FINISH, "reduce.cuh",
        "if (threadIdx.x == 0) *result = all;\n  __syncthreads();\n", "if (threadIdx.x == 0) *result = all;\n", TSAN),
    Bug("the result of a reduction lies where CUB works", FINISH, "reduce.cuh",
        "reinterpret_cast<Storage*>(reduce.memory + kResultBytes)", "reinterpret_cast<Storage*>(reduce.memory)", TSAN),
    Bug("scale factors of partials are read before they are written", FINISH, "merge.cuh",
        "static_cast<float>(scale_factor(maximum, partial_at(partials, mine)));\n    __syncthreads();\n",
        "static_cast<float>(scale_factor(maximum, partial_at(partials, mine)));\n", TSAN),
    Bug("a row's numbers are read before they are written", FINISH, "finish.cu",
        "write_row(p, i, s, shared, maximum.m, l, weight, scale);\n  }\n  __syncthreads();\n",
        "write_row(p, i, s, shared, maximum.m, l, weight, scale);\n  }\n", TSAN),
    Bug("the last block adds up rows that others have not published", FINISH, "finish.cu",
        "    __threadfence();\n    shared.is_last = atomicAdd", "    shared.is_last = atomicAdd", TSAN),
    Bug("a barrier that only one warp comes to", FINISH, "finish.cu",
        "  if (p.needs_gradient) finish_gradients(",
        "  if (threadIdx.x < 32) __syncthreads();\n  if (p.needs_gradient) finish_gradients("),
    Bug("one column of dq too many", FINISH, "finish.cu",
        "for (int64_t c = threadIdx.x; c < rows.d; c += kRowThreads) {\n    float g_q",
        "for (int64_t c = threadIdx.x; c <= rows.d; c += kRowThreads) {\n    float g_q", ASAN),
    Bug("the last negative is not mixed", PREMIX, "premix.cu", "i < p.k; i += warps", "i + 1 < p.k; i += warps"),
    Bug("scores of a tile that is not there yet", PLAIN_MAIN, "main.cu",
        "    stage_columns(p, tile, first, false, shared);\n    __syncthreads();\n    // A short sum first",
        "    stage_columns(p, tile, first, false, shared);\n    // A short sum first", TSAN),
    Bug("a tile is filled again while it is read", PLAIN_MAIN, "main.cu",
        "total[r] += sum[r];\n    __syncthreads();\n", "total[r] += sum[r];\n", TSAN),
    Bug("lane 0 writes a row's maximum while others read it", PLAIN_MAIN, "softmax.cuh",
        "sum = reduce_warp(sum, Add());\n  __syncwarp();\n  if (threadIdx.x % 32 == 0) {\n    state.unmixed.l",
        "sum = reduce_warp(sum, Add());\n  if (threadIdx.x % 32 == 0) {\n    state.unmixed.l", TSAN),
    Bug("a mixed column counts though its partner's id is the row's", PLAIN_MAIN, "softmax.cuh",
        "counts(own, of_loss, s.mixed.value[h]) && !names(shared.masks[next], of_loss);",
        "counts(own, of_loss, s.mixed.value[h]);"),
    Bug("the raw column of a union is left out with its mixed one", PLAIN_MAIN, "softmax.cuh",
        "s.raw.valid[h] = counts(own, of_loss, s.raw.value[h]);",
        "s.raw.valid[h] = counts(own, of_loss, s.raw.value[h]) && "
        "!(tile.mixes && names(shared.masks[partner(j, tile.columns, true)], of_loss));"),
    Bug("the ids of premixed rows are those of the rows alone", PREMIX, "premix.cu",
        "p.partner_ids[s.row] = p.ids[s.partner];", "p.partner_ids[s.row] = p.ids[s.row];"),
    Bug("a column of the reserved id counts", PLAIN_MAIN, "pass/masks.cuh",
        "mask.nobodys = !segment.unnamed_counts &&", "mask.nobodys = false &&"),
    Bug("rows without an id have the reserved one", PLAIN_MAIN, "pass/masks.cuh",
        "(row.id != FNCE_NO_COLUMN && (row.id", "((row.id"),
    Bug("ids compare 32 bits", PLAIN_MAIN, "pass/masks.cuh",
        "row.id == column.id ||", "static_cast<int32_t>(row.id) == static_cast<int32_t>(column.id) ||"),
    Bug("a bias is not multiplied by the temperature", PLAIN_MAIN, "pass/masks.cuh",
        "segment.bias[row] * temperature;", "segment.bias[row];"),
    Bug("the margin asks for all scores as for those of the loss", PLAIN_MAIN, "softmax.cuh",
        "of_unmixed = row_mask(p, 1, row);", "of_unmixed = row_mask(p, 0, row);"),
    Bug("0 times an infinity of a column that is left out", PLAIN_MAIN, "tile.cuh",
        "if (finite && p.masked && !is_finite(value)) value = 0.0f;", ""),
    Bug("the counts of a row are those of the tile", PLAIN_MAIN, "softmax.cuh",
        "if (p.masked) columns = count_of(s);", ""),
    Bug("the positive is in the sum of the decoupled form", FINISH, "finish.cu",
        "if (p.is_decoupled) shared.row = decoupled(shared.softmax, lse, l);", ""),
    Bug("what rows send with a negative sign is lost", COLUMN_GRADIENT, "column_gradient.cu",
        "sums[c] = p.accumulates ? sums[c] + added : added;", "sums[c] = p.accumulates ? sums[c] : added;"),
    Bug("the gradient of a batch column keeps what is along it", COLUMN_GRADIENT, "column_gradient.cu",
        "rule = norm_backward(norm, p.epsilon, dot[0]);", "rule = norm_backward(norm, p.epsilon, 0.0f);"),
    Bug("a pass that has not run adds what memory held", COLUMN_GRADIENT, "column_gradient.cu",
        "const bool ran = *p.only_if != 0;", "const bool ran = true;"),
]


@dataclasses.dataclass(frozen=True)
class Mode:
    name: str
    compiler: str
    flags: tuple
    cases: int  # at most; sanitizers are slow
    patience: int  # wrong cases until the program ends
    environment: dict


class Job:
    def __init__(self, arguments):
        self.source = pathlib.Path(arguments.source)
        self.build = pathlib.Path(arguments.build)
        self.libraries = {"main_driver": arguments.main_libraries, "calls_driver": arguments.calls_libraries}
        sanitize = ["-fno-omit-frame-pointer", "-g1", "-O1"]
        self.modes = [
            Mode("schedules", arguments.cxx, ("-O1",), 1000, 1, {}),
            Mode(ASAN, arguments.cxx, ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", *sanitize),
                 60, 8, {"ASAN_OPTIONS": "detect_leaks=0"}),
            Mode(TSAN, arguments.clang, ("-fsanitize=thread", *sanitize), 12, 8,
                 {"TSAN_OPTIONS": "halt_on_error=1 exitcode=66"}),
        ]

    def compile(self, mode, sources, output, kernels, *more):
        # `kernels` is found as kernels/ in the folder above it.
        roots = [self.source / "tests/hostcuda/include", kernels.parent, self.source / "src", self.source / "include",
                 self.source / "tests"]
        command = [mode.compiler, "-std=c++20", "-ffp-contract=off", *mode.flags,
                   *(f"-I{root}" for root in roots), *map(str, sources), *more, "-o", str(output)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise SystemExit(f"{' '.join(command)}\n{result.stderr}")

    def compile_driver(self, name, mode):
        """The program without its kernel: nothing of it has a sanitizer."""
        plain = dataclasses.replace(mode, flags=("-O1",))
        source = self.source / f"tests/hostcuda/planted/{name}.cpp"
        self.compile(plain, [source], self.build / f"{name}_{mode.name}.o", self.source / "kernels", "-c")

    def run(self, mode, kernel, kernels, folder):
        """What the program says, and whether it found something wrong."""
        unit = folder / "kernel.cpp"
        unit.write_text(kernel.source())
        program = folder / f"program_{mode.name}"
        parts = [unit, self.build / f"{kernel.driver}_{mode.name}.o", *self.libraries[kernel.driver]]
        self.compile(mode, parts, program, kernels, "-lpthread", "-ldl")
        try:
            result = subprocess.run([program, *kernel.arguments(), str(mode.cases), str(mode.patience)],
                                    capture_output=True, text=True, timeout=300,
                                    env={**os.environ, **mode.environment, **kernel.environment})
        except subprocess.TimeoutExpired:
            return "it does not end", True
        program.unlink()
        lines = [line.strip() for line in (result.stdout + result.stderr).splitlines() if line.strip(" =")]
        what = next((line for line in lines if "Sanitizer" in line), lines[0] if lines else f"code {result.returncode}")
        return what, result.returncode != 0

    def clean(self, kernel_and_mode):
        kernel, mode = kernel_and_mode
        folder = self.build / f"clean_{re.sub(r'[^a-z0-9]', '_', kernel.name())}_{mode.name}"
        folder.mkdir()
        what, failed = self.run(mode, kernel, self.source / "kernels", folder)
        return f"without a bug, {kernel.name()}, {mode.name}: {what}", not failed

    def plant(self, bug):
        folder = self.build / f"bug_{BUGS.index(bug)}"
        kernels = folder / "kernels"
        shutil.copytree(self.source / "kernels", kernels)
        path = kernels / (bug.file if "/" in bug.file else f"{bug.kernel.folder}/{bug.file}")
        text = path.read_text()
        # Line breaks and indentation are the formatter's business.
        found = re.findall(r"\s+".join(map(re.escape, bug.text.split())), text)
        count = len(found)
        if count != 1:
            return f"{bug.name}: its text occurs {count} times in {path.relative_to(folder)}; update planted.py", False
        path.write_text(text.replace(found[0], bug.planted))
        caught = []
        for mode in self.modes:
            if caught and mode.name != bug.also:
                continue
            what, failed = self.run(mode, bug.kernel, kernels, folder)
            if failed and (mode.name != bug.also or mode.name in what):
                caught.append(f"{mode.name} ({what[:120]})")
            elif mode.name == bug.also:
                return f"{bug.name}: NOT CAUGHT by {mode.name}", False
        return f"{bug.name}: " + (", ".join(caught) if caught else "NOT CAUGHT"), bool(caught)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True)
    parser.add_argument("--build", required=True, help="folder of this job's own; emptied")
    parser.add_argument("--cxx", default="c++")
    parser.add_argument("--clang", default="clang++", help="for ThreadSanitizer")
    for name, what in (("main", "cases"), ("calls", "FlashNCE with kernels for the harness")):
        parser.add_argument(f"--{name}-libraries", required=True, nargs="+",
                            help=f"static libraries: {what}; the harness")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="bugs whose name contains this")
    arguments = parser.parse_args()
    if not shutil.which(arguments.clang):
        print("clang is not installed: its ThreadSanitizer is needed")
        return 77
    shutil.rmtree(arguments.build, ignore_errors=True)
    pathlib.Path(arguments.build).mkdir(parents=True)
    job = Job(arguments)
    for mode in job.modes:
        for name in job.libraries:
            job.compile_driver(name, mode)
    bugs = [bug for bug in BUGS if arguments.only in bug.name]
    kernels = sorted({bug.kernel for bug in bugs}, key=lambda kernel: kernel.name())
    start = time.monotonic()
    failures = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        clean = pool.map(job.clean, [(kernel, mode) for kernel in kernels for mode in job.modes])
        planted = pool.map(job.plant, bugs)
        for line, good in [*clean, *planted]:
            failures += not good
            print(("ok    " if good else "FAIL  ") + line)
    print(f"{len(bugs)} bugs, {failures} failures, {time.monotonic() - start:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
