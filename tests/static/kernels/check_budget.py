"""Registers, stack and shared memory of every kernel and architecture are those of budget.json.

A change of a kernel that costs registers so shows in review; fewer registers are a change as well. Spilled registers,
ptxas' notes and more than a block can have are errors whatever the file says. --update writes the file anew. Registers
depend on the compiler: with another nvcc than the file's, only the limits are checked.
"""
import argparse
import json
import pathlib
import re
import sys

import kernel_code

MAX_REGISTERS = 255  # of a thread
REGISTER_FILE = 65536  # of a block
MAX_SHARED = 99 * 1024  # of a block on every architecture
ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)\w?'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
STATIC = re.compile(r"(\d+) bytes smem")
NOTE = re.compile(r"\bwarning\b|\(C\d{4}\)|\berror\b", re.I)


def read_report(text, table):
    """({(name): numbers}, notes) of ptxas' report."""
    kernels, notes, symbol = {}, [], None
    for line in text.splitlines():
        if NOTE.search(line):
            notes.append(line.strip())
        if match := ENTRY.search(line):
            symbol = match.group(1)
            key = kernel_code.demangled(symbol)
            kernels[symbol] = {"registers": 0, "stack": 0, "spills": 0, "static_shared": 0,
                               "shared": table[key]["shared_bytes"] if key in table else None,
                               "threads": table[key]["threads"] if key in table else None}
        elif symbol is None:
            continue
        elif match := STACK.search(line):
            # ptxas says it of the kernel, and of each function that it calls.
            kernels[symbol]["stack"] += int(match.group(1))
            kernels[symbol]["spills"] += int(match.group(2)) + int(match.group(3))
        elif match := USED.search(line):
            kernels[symbol]["registers"] = int(match.group(1))
            if match := STATIC.search(line):
                kernels[symbol]["static_shared"] = int(match.group(1))
    return {kernel_code.name_of(table, symbol): numbers for symbol, numbers in kernels.items()}, notes


def measure(units, table):
    """({"sm_80 name": numbers}, problems)."""
    found, problems = {}, []
    for unit in units:
        kernels, notes = read_report(unit.report.read_text(), table)
        problems += [f"{unit.source.name} for sm_{unit.arch}: {note}" for note in notes]
        if not kernels:
            problems.append(f"{unit.source.name} for sm_{unit.arch}: no kernel in ptxas' report")
        for name, numbers in kernels.items():
            key = f"sm_{unit.arch} {name}"
            if key in found:
                problems.append(f"two kernels go by the name {key}")
            found[key] = numbers
    return found, problems


def limits(found):
    for key, numbers in found.items():
        if numbers["spills"]:
            yield f"{key}: {numbers['spills']} bytes of registers are spilled"
        if numbers["registers"] > MAX_REGISTERS:
            yield f"{key}: {numbers['registers']} registers"
        if numbers["threads"] and numbers["threads"] * numbers["registers"] > REGISTER_FILE:
            yield (f"{key}: {numbers['threads']} threads of {numbers['registers']} registers do not fit on a "
                   "multiprocessor")
        if (numbers["shared"] or 0) + numbers["static_shared"] > MAX_SHARED:
            yield f"{key}: {numbers['shared']} bytes of shared memory"


def missing_kernels(found, table, archs):
    for arch in archs:
        for row in table.values():
            if f"sm_{arch} {row['name']}" not in found:
                yield f"sm_{arch} {row['name']}: tile.h has it, but it is not compiled"


def entry_of(numbers):
    entry = {"registers": numbers["registers"], "stack": numbers["stack"], "static_shared": numbers["static_shared"]}
    if numbers["shared"] is not None:
        entry |= {"shared": numbers["shared"], "threads": numbers["threads"]}
    return entry


def differences(found, budget, archs, same_compiler):
    checked = {key: entry for key, entry in budget.items() if key.split()[0].removeprefix("sm_") in archs}
    for key in sorted(found.keys() | checked.keys()):
        if key not in checked:
            yield f"{key}: new, not in the budget"
        elif key not in found:
            yield f"{key}: in the budget, but there is no such kernel"
        else:
            entry = entry_of(found[key])
            for field in sorted(entry.keys() | checked[key].keys()):
                if field == "registers" and not same_compiler:
                    continue
                if entry.get(field) != checked[key].get(field):
                    yield f"{key}: {field} {entry.get(field)}, the budget says {checked[key].get(field)}"


def write_budget(path, version, found):
    def order(key):
        arch, name = key.split(" ", 1)
        return name, int(arch.removeprefix("sm_"))

    lines = [f"    {json.dumps(key)}: {json.dumps(entry_of(found[key]))}" for key in sorted(found, key=order)]
    path.write_text(f'{{\n  "nvcc": "{version}",\n  "kernels": {{\n' + ",\n".join(lines) + "\n  }\n}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kernel_code.add_arguments(parser)
    parser.add_argument("--budget", type=pathlib.Path, default=pathlib.Path(__file__).with_name("budget.json"))
    parser.add_argument("--update", action="store_true", help="write the budget instead of comparing with it")
    options = parser.parse_args()
    version = kernel_code.nvcc_version(options.nvcc)
    if version is None:
        print("nvcc is not installed")
        sys.exit(kernel_code.SKIPPED)
    archs, released = kernel_code.archs_of(options), kernel_code.release_archs(options.source)
    table = kernel_code.kernel_table(options)
    found, problems = measure(kernel_code.compiled_units(options, version), table)
    problems += [*limits(found), *missing_kernels(found, table, kernel_code.archs_of_folders(options)["engines/sm80"])]
    if options.update:
        if set(archs) != set(released):
            sys.exit(f"--update needs all architectures: {';'.join(released)}")
        write_budget(options.budget, version, found)
    budget = json.loads(options.budget.read_text())
    same = budget["nvcc"] == version
    if not same:
        print(f"the budget was written with nvcc {budget['nvcc']}, this is {version}: registers are not compared")
    problems += differences(found, budget["kernels"], archs, same)
    for problem in problems:
        print(problem)
    print(f"{len(found)} kernels, {len(problems)} problems" + ("; see --update" if problems else ""))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
