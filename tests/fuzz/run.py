"""Runs the libFuzzer programs side by side: each target for --runs inputs, from the committed corpus and what earlier
runs have found.

    cmake --preset fuzz && cmake --build --preset fuzz
    python3 tests/fuzz/run.py --build build/fuzz --runs 500000

New inputs go to a folder of their own (--work), never into the tree. A finding ends the program with its input's path;
to keep it as a test, fix the cause and copy the input to tests/fuzz/corpus/<target>, which every build replays.
"""
import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGETS = ("one_call", "sequence")
MAX_BYTES = 256  # longer inputs say nothing new


def run(target: str, args: argparse.Namespace) -> int:
    """Runs a target; returns how many inputs it ran."""
    program = args.build.resolve() / "tests" / "fuzz" / f"fuzz_{target}"
    if not program.is_file():
        sys.exit(f"run.py: no program {program}: build the preset `fuzz`")
    found = args.work.resolve() / target
    found.mkdir(parents=True, exist_ok=True)
    log = args.work.resolve() / f"{target}.log"
    command = [str(program), f"-runs={args.runs}", f"-seed={args.seed}", f"-max_len={MAX_BYTES}", "-len_control=0",
               "-timeout=60", "-rss_limit_mb=4096", "-print_final_stats=1",
               f"-artifact_prefix={found.parent}/{target}-", str(found), str(HERE / "corpus" / target)]
    environment = os.environ | {"UBSAN_OPTIONS": "print_stacktrace=1"}
    began = time.monotonic()
    with open(log, "wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False)
    status = done.returncode
    text = log.read_text(errors="replace")
    if status != 0:
        print("\n".join(text.splitlines()[-60:]))
        sys.exit(f"run.py: {target} found something (exit status {status}); the input is named above, the log is {log}")
    runs = int(re.findall(r"stat::number_of_executed_units:\s+(\d+)", text)[-1])
    seconds = time.monotonic() - began
    edges = re.findall(r"cov: (\d+)", text)[-1]
    print(f"{target}: {runs} runs in {seconds:.0f} s ({runs / max(seconds, 1):.0f} a second), {edges} edges, "
          f"{len(list(found.iterdir()))} new inputs", flush=True)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path("build/fuzz"), help="build folder (default build/fuzz)")
    parser.add_argument("--work", type=Path, help="where logs and new inputs go (default: fuzzing in the build folder)")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs per target (default 100000)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0 takes another one each time (default)")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    args = parser.parse_args()
    args.work = args.work or args.build / "fuzzing"
    with concurrent.futures.ThreadPoolExecutor(len(args.targets)) as pool:
        total = sum(pool.map(lambda target: run(target, args), args.targets))
    print(f"{total} runs, nothing found")


if __name__ == "__main__":
    main()
