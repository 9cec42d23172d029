"""Include directions: a call walks api -> problem -> plan -> backend -> kernel, and no layer includes one above it.

usage: check_includes.py ROOT      prints each include that breaks a rule; exit status 1 if there is one
"""
import pathlib
import re
import sys

PUBLIC = "include/flashnce/"
# The first rule whose folder holds a file applies to it: what it may include of this project, by path prefix.
RULES = [
    ("include/", ["include/"]),
    ("src/math/", ["src/math/"]),
    ("src/core/", ["src/core/", "src/math/", PUBLIC]),
    ("src/api/", ["src/api/", "src/core/", "src/math/", "src/registry.h", PUBLIC]),
    ("src/registry", ["src/registry.h", "src/core/", "src/cpu/", "kernels/host/backend.h", PUBLIC]),
    # Both engines of the CPU share simd (vectors, conversions) and pass (columns, softmax, statistics), and not each other.
    ("src/cpu/simd/", ["src/cpu/simd/", "src/cpu/kernels.h", "src/cpu/tiling.h", "src/core/", "src/math/", PUBLIC]),
    ("src/cpu/pass/", ["src/cpu/pass/", "src/cpu/simd/", "src/cpu/kernels.h", "src/cpu/tiling.h", "src/core/", "src/math/",
                       PUBLIC]),
    ("src/cpu/engines/isa/", ["src/cpu/engines/isa/", "src/cpu/pass/", "src/cpu/simd/", "src/cpu/kernels.h",
                              "src/cpu/tiling.h", "src/core/", "src/math/", PUBLIC]),
    ("src/cpu/engines/bf16/", ["src/cpu/engines/bf16/", "src/cpu/pass/", "src/cpu/simd/", "src/cpu/kernels.h",
                               "src/cpu/tiling.h", "src/cpu/features.h", "src/core/", "src/math/", "tests/cpu/amx_model/",
                               PUBLIC]),
    ("src/cpu/", ["src/cpu/", "src/core/", "src/math/", PUBLIC]),
    # The CUDA backend. The contract is what host and kernels share; engines know pass (what a row does with
    # its columns) and rows, and no other engine; the host
    # knows rows, and the engines by its list of families alone.
    # The harness, tests/hostcuda, takes the place of CUDA, and of what names it here, by include path: nobody in kernels/ knows it.
    ("kernels/contract/", ["kernels/contract/", "src/core/", "src/math/", PUBLIC]),
    ("kernels/pass/", ["kernels/pass/", "kernels/rows/", "kernels/contract/", "src/core/", "src/math/", PUBLIC]),
    ("kernels/rows/", ["kernels/rows/", "kernels/contract/", "src/core/", "src/math/", PUBLIC]),
    ("kernels/engines/sm80/", ["kernels/engines/sm80/", "kernels/pass/", "kernels/rows/", "kernels/contract/", "src/core/", "src/math/",
                               PUBLIC]),
    ("kernels/engines/plain/", ["kernels/engines/plain/", "kernels/pass/", "kernels/rows/", "kernels/contract/", "src/core/", "src/math/",
                                PUBLIC]),
    ("kernels/host/families.cpp", ["kernels/host/", "kernels/engines/", "kernels/contract/", "src/core/", "src/math/", PUBLIC]),
    ("kernels/host/", ["kernels/host/", "kernels/rows/", "kernels/contract/", "src/core/", "src/math/", PUBLIC]),
    # The oracle must not share a mistake with the library; the API tests see what a user sees.
    ("tests/oracle/", ["tests/oracle/"]),
    ("tests/support/", ["tests/support/", "tests/oracle/", PUBLIC]),
    ("tests/api/", ["tests/api/", "tests/support/", "tests/oracle/", PUBLIC]),
    ("tests/math/", ["tests/math/", "tests/support/", "src/math/"]),
    ("tests/core/", ["tests/core/", "tests/support/", "tests/oracle/", "src/core/", "src/math/", PUBLIC]),
    ("tests/cpu/", ["tests/cpu/", "tests/support/", "tests/oracle/", "src/cpu/", "src/core/", "src/math/", PUBLIC]),
    ("tests/cuda/", ["tests/cuda/", "tests/hostcuda/", "tests/support/", "tests/oracle/", "kernels/", "src/core/", "src/math/",
                     PUBLIC]),
    ("tests/static/", ["tests/static/", "kernels/", PUBLIC]),
    ("tests/hostcuda/", ["tests/hostcuda/", "tests/support/", "kernels/", "src/core/", "src/math/", PUBLIC]),
    ("tests/gpu/", ["tests/gpu/", "tests/support/", "tests/oracle/", "tests/hostcuda/", "kernels/", "src/core/", "src/math/",
                    PUBLIC]),
    ("tests/bench/", ["tests/bench/", "tests/hostcuda/", "bench/"]),
    ("tests/bits/", ["tests/bits/", "tests/support/", PUBLIC]),
    ("tests/abi/", ["tests/abi/", PUBLIC]),
    ("tests/fuzz/", ["tests/fuzz/", PUBLIC]),
    ("tests/soak/", ["tests/soak/", PUBLIC]),
    ("examples/", ["examples/", PUBLIC]),
    ("bench/", ["bench/", PUBLIC]),
    # Handlers see what a user of the C interface sees.
    ("python/", ["python/", PUBLIC]),
]
SEARCH = ["src", "include", "tests", "bench", ""]
SUFFIXES = {".h", ".hpp", ".c", ".cc", ".cpp", ".cu", ".cuh", ".inc"}
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>|(\w+))')


def rule_of(path):
    return next((allowed for folder, allowed in RULES if path.startswith(folder)), None)


def resolve(root, source, name, quoted):
    """The included file relative to the root, or None for a header that is not of this project."""
    folders = ([source.parent] if quoted else []) + [root / folder for folder in SEARCH]
    for folder in folders:
        candidate = (folder / name).resolve()
        if candidate.is_file() and candidate.is_relative_to(root):
            return candidate.relative_to(root).as_posix()
    return None


def problems_of(root, source):
    path = source.relative_to(root).as_posix()
    allowed = rule_of(path)
    if allowed is None:
        yield f"{path}: no rule of {pathlib.Path(__file__).name} covers this file"
        return
    for number, line in enumerate(source.read_text().splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quoted, angled, macro = match.groups()
        if macro and macro.startswith(("HWY_", "FNCE_")) is False:
            yield f"{path}:{number}: include of the macro {macro}"
            continue
        target = resolve(root, source, quoted or angled or "", bool(quoted))
        if quoted and target is None:
            yield f'{path}:{number}: "{quoted}" was not found in this project (other headers go in <>)'
        elif target and not target.startswith(tuple(allowed)):
            yield f"{path}:{number}: includes {target}; {path.rsplit('/', 1)[0]} may include {', '.join(allowed)}"


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    folders = ["include", "src", "kernels", "tests", "examples", "bench", "python"]
    sources = [f for folder in folders for f in sorted((root / folder).rglob("*")) if f.suffix in SUFFIXES]
    sources = [f for f in sources if not f.relative_to(root).as_posix().startswith("tests/package/")]
    if not any(f.is_relative_to(root / "src" / "core") for f in sources):
        sys.exit(f"no sources found under {root}/src/core: is this the project's root?")
    problems = [p for source in sources for p in problems_of(root, source)]
    for problem in problems:
        print(problem)
    print(f"{len(sources)} files, {len(problems)} forbidden includes")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
