"""Writes the header of an imagined newer library: every struct that carries its size has a field `added` at its end.

usage: grow_header.py HEADER OUTPUT
"""
import pathlib
import re
import sys

STRUCTS = ("fnce_problem", "fnce_args", "fnce_push", "fnce_pairs", "fnce_layout", "fnce_plan_info")


def main():
    source, output = map(pathlib.Path, sys.argv[1:])
    text = source.read_text()
    sized = set(re.findall(r"typedef struct (\w+) \{\s*uint64_t struct_size;", text))
    if sized != set(STRUCTS):
        sys.exit(f"{source}: the structs with a struct_size are {sorted(sized)}, expected {sorted(STRUCTS)}")
    for name in STRUCTS:
        text, found = re.subn(rf"^\}} {name};", f"  int64_t added[2];\n}} {name};", text, flags=re.M)
        if found != 1:
            sys.exit(f"{source}: {found} ends of {name} found")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)


if __name__ == "__main__":
    main()
