"""The shared library exports exactly the functions that the header declares with FNCE_API, and nothing else.

usage: check_exports.py --nm NM --library LIBRARY --header HEADER
"""
import argparse
import pathlib
import re
import subprocess
import sys


def declared_functions(header):
    text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S)
    return set(re.findall(r"^FNCE_API\b[^;(]*?\b(\w+)\s*\(", text, flags=re.M))


def exported_symbols(nm, library):
    lines = subprocess.run([nm, "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1].split("@")[0] for line in lines.splitlines() if line.strip()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nm", default="nm")
    parser.add_argument("--library", required=True)
    parser.add_argument("--header", required=True, type=pathlib.Path)
    options = parser.parse_args()
    declared = declared_functions(options.header)
    exported = exported_symbols(options.nm, options.library)
    if not declared:
        sys.exit(f"{options.header} declares no FNCE_API function")
    missing, surplus = sorted(declared - exported), sorted(exported - declared)
    print(f"{len(declared)} functions declared, {len(exported)} symbols exported")
    for name in missing:
        print(f"declared but not exported: {name}")
    for name in surplus:
        print(f"exported but not declared: {name}")
    sys.exit(1 if missing or surplus else 0)


if __name__ == "__main__":
    main()
