"""FlashNCE as a part of another project's build: FetchContent and add_subdirectory, offline, from the source tree.

usage: check_fetch.py --source ROOT --scratch DIR --cmake CMAKE --generator G --cc CC --cxx CXX [--launcher CCACHE]
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys

FOREIGN = ("-W", "-m", "-f", "-std", "-DFNCE", "-DHWY")


def run(command, expect_failure=False):
    command = [str(part) for part in command]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if (result.returncode != 0) != expect_failure:
        sys.exit(f"$ {' '.join(command)}\n{result.stdout}\nexit status {result.returncode}")
    return result.stdout


def configure(options, build, *definitions, expect_failure=False):
    shutil.rmtree(build, ignore_errors=True)
    launcher = [f"-DCMAKE_C{x}_COMPILER_LAUNCHER={options.launcher}" for x in ("", "XX") if options.launcher]
    return run([options.cmake, "-G", options.generator, "-S", options.source / "tests/package/fetch", "-B", build,
                "-DFLASHNCE_CUDA=OFF",
                f"-Dflashnce_source={options.source}", f"-DCMAKE_C_COMPILER={options.cc}",
                f"-DCMAKE_CXX_COMPILER={options.cxx}", "-DCMAKE_BUILD_TYPE=Release", *launcher, *definitions],
               expect_failure=expect_failure)


def check_missing_highway(options):
    """The message of a machine without Highway says what to do."""
    found = run([options.cmake, "-LA", "-N", options.scratch / "fetch"])
    folder = next(line.split("=", 1)[1] for line in found.splitlines() if line.startswith("FLASHNCE_HIGHWAY_INCLUDE"))
    output = " ".join(configure(options, options.scratch / "without-highway", f"-DCMAKE_IGNORE_PATH={folder}",
                                expect_failure=True).split())
    for words in ("hwy/highway.h was not found", "FLASHNCE_HIGHWAY_INCLUDE"):
        if words not in output:
            sys.exit(f"without Highway, the message does not say '{words}':\n{output}")
    print("without Highway: a sentence that names it")


def check_flags(build):
    """The project's own sources are compiled with its own flags."""
    own = [entry for entry in json.loads((build / "compile_commands.json").read_text()) if "consumer" in entry["file"]]
    if len(own) != 2:
        sys.exit(f"{len(own)} sources of the project found, expected 2")
    for entry in own:
        foreign = [flag for flag in entry["command"].split() if flag.startswith(FOREIGN)]
        if foreign:
            sys.exit(f"{entry['file']} is compiled with {foreign}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("source", "scratch"):
        parser.add_argument(f"--{name}", type=lambda text: pathlib.Path(text).resolve(), required=True)
    for name in ("cmake", "generator", "cc", "cxx"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--launcher", default="", help="a compiler cache")
    options = parser.parse_args()

    build = options.scratch / "fetch"
    configure(options, build)
    check_flags(build)
    run([options.cmake, "--build", build, "--target", "fetch_shared_c", "fetch_static_cpp"])
    for name in ("fetch_shared_c", "fetch_static_cpp"):
        print(f"{name}: {run([build / name]).strip()}")
    prefix = options.scratch / "fetch-prefix"
    shutil.rmtree(prefix, ignore_errors=True)
    run([options.cmake, "--install", build, "--prefix", prefix])
    installed = sorted(path.name for path in prefix.rglob("*") if path.is_file())
    if installed != ["fetch_static_cpp"]:
        sys.exit(f"the project's installation holds {installed}")

    configure(options, options.scratch / "subdirectory", "-Dway=subdirectory", "-DFLASHNCE_INSTALL=ON")
    print("add_subdirectory: configured, with FlashNCE's own installation")
    check_missing_highway(options)


if __name__ == "__main__":
    main()
