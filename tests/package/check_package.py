"""The installed tree serves C and C++ programs, by find_package and by pkg-config, and can be moved.

usage: check_package.py [options] install | find_package | pkg_config | examples | readme
`install` makes the tree that the others use.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

HEADER = "include/flashnce/flashnce.h"
SKIPPED = 77


def run(command, **more):
    command = [str(part) for part in command]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if result.returncode:
        sys.exit(f"$ {' '.join(command)}\n{result.stdout}\nexit status {result.returncode}")
    return result.stdout


def one(prefix, pattern):
    """The one file of the installed tree that matches."""
    found = sorted(prefix.rglob(pattern))
    if len(found) != 1:
        sys.exit(f"{len(found)} installed files match {pattern}, expected one: {found}")
    return found[0]


def install(options):
    first, prefix = options.scratch / "first", options.scratch / "prefix"
    shutil.rmtree(options.scratch, ignore_errors=True)
    run([options.cmake, "--install", options.build, "--prefix", first])
    # Everything below happens where the tree was not installed to.
    first.rename(prefix)
    for pattern in ("flashnce.h", "flashnce.hpp", "libflashnce.so", "libflashnce.so.0", "libflashnce.a", "LICENSE",
                    "flashnceConfig.cmake", "flashnceConfigVersion.cmake", "flashnceTargets.cmake", "flashnce.pc"):
        one(prefix, pattern)
    if (prefix / HEADER).read_bytes() != (options.source / HEADER).read_bytes():
        sys.exit("the installed header is not the header of the source tree")
    places = [str(p).encode() for p in (options.source, options.build, options.scratch)]
    for path in sorted(p for p in prefix.rglob("*") if p.is_file()):
        content = path.read_bytes()
        for place in places:
            if place in content:
                sys.exit(f"{path.relative_to(prefix)} holds a path of the build machine: {place.decode()}")


def cmake_project(options, source, build, *definitions):
    """Configures and builds a project against the installed tree; the programs it made."""
    prefix = options.scratch / "prefix"
    run([options.cmake, "-G", options.generator, "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}",
         f"-DCMAKE_C_COMPILER={options.cc}", f"-DCMAKE_CXX_COMPILER={options.cxx}", "-DCMAKE_BUILD_TYPE=Release",
         *definitions])
    run([options.cmake, "--build", build])
    programs = [p for p in build.rglob("*") if p.is_file() and os.access(p, os.X_OK) and "CMakeFiles" not in p.parts]
    if not programs:
        sys.exit(f"{source} built no program")
    return programs


def find_package(options):
    for language in ("C", "CXX"):
        for target in ("flashnce::flashnce", "flashnce::static"):
            build = options.scratch / f"cmake-{language}-{target.split('::')[1]}"
            shutil.rmtree(build, ignore_errors=True)
            for program in cmake_project(options, options.source / "tests/package/consumer", build,
                                         f"-Dlanguage={language}", f"-Dtarget={target}"):
                print(f"find_package, {language}, {target}: {run([program]).strip()}")


def pkg_config(options):
    if not options.pkg_config or "NOTFOUND" in options.pkg_config:
        print("pkg-config is not installed")
        sys.exit(SKIPPED)
    prefix = options.scratch / "prefix"
    library = one(prefix, "libflashnce.so").parent
    environment = dict(os.environ, PKG_CONFIG_PATH=str(one(prefix, "flashnce.pc").parent))

    def ask(*arguments):
        return run([options.pkg_config, *arguments, "flashnce"], env=environment).split()

    version = ask("--modversion")[0]
    sources = options.source / "tests/package/consumer"
    for name, compiler in (("consumer.c", [options.cc, "-std=c99"]), ("consumer.cpp", [options.cxx, "-std=c++20"])):
        for kind in ("shared", "static"):
            program = options.scratch / f"pkg-config-{name}-{kind}"
            command = [*compiler, sources / name, "-o", program, *ask("--cflags")]
            if kind == "shared":
                command += [*ask("--libs"), "-lm"]
            else:
                # -l prefers the shared library where both are; the archive is named by its path.
                libraries = [part for part in ask("--static", "--libs") if part != "-lflashnce"]
                command += [library / "libflashnce.a", *libraries]
            run(command)
            path = {"LD_LIBRARY_PATH": str(library)} if kind == "shared" else {}
            print(f"pkg-config {version}, {name}, {kind}: {run([program], env={**os.environ, **path}).strip()}")


def examples(options):
    found = [p.parent for p in sorted((options.source / "examples").glob("*/CMakeLists.txt"))]
    if not found:
        sys.exit("examples/ holds no CMake project")
    for source in found:
        build = options.scratch / f"example-{source.name}"
        shutil.rmtree(build, ignore_errors=True)
        for program in cmake_project(options, source, build):
            print(f"{source.name}/{program.name}:\n{run([program]).strip()}")


def readme(options):
    """The C example of README.md: the ```c block after a line <!-- example: c -->, called by readme_main.c."""
    text = (options.source / "README.md").read_text()
    block = re.search(r"<!-- example: c -->\s*```c\n(.*?)```", text, re.S)
    if not block:
        sys.exit("README.md has no ```c block after a line <!-- example: c -->")
    prefix, source, program = options.scratch / "prefix", options.scratch / "readme.c", options.scratch / "readme"
    source.write_text(block[1])
    library = one(prefix, "libflashnce.so").parent
    run([options.cc, "-std=c11", "-Wall", "-Wextra", "-Werror", source,
         options.source / "tests/package/readme_main.c", "-o", program,
         f"-I{prefix / 'include'}", f"-L{library}", f"-Wl,-rpath,{library}", "-lflashnce", "-lm"])
    print(run([program]).strip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("source", "build", "scratch"):
        parser.add_argument(f"--{name}", type=lambda text: pathlib.Path(text).resolve(), required=True)
    for name in ("cmake", "generator", "cc", "cxx", "pkg-config"):
        parser.add_argument(f"--{name}", required=True)
    steps = {step.__name__: step for step in (install, find_package, pkg_config, examples, readme)}
    parser.add_argument("step", choices=steps)
    options = parser.parse_args()
    steps[options.step](options)


if __name__ == "__main__":
    main()
