"""Runs a test program with the CPU backend's code for one instruction set, or ends with 77 where that cannot be used.

usage: run_with_isa.py ISA LIBRARY PROGRAM [ARGUMENTS]
"""
import os
import subprocess
import sys


def main():
    isa, library, program = sys.argv[1:4]
    environment = dict(os.environ, FNCE_CPU_ISA=isa)
    # The library reads the variable once; asked in another process, it tells what it would take.
    ask = f"import ctypes; f = ctypes.CDLL({library!r}).fnce_build_info; f.restype = ctypes.c_char_p; print(f().decode())"
    info = subprocess.run([sys.executable, "-c", ask], env=environment, check=True, capture_output=True, text=True).stdout
    if f"cpu ({isa} of " not in info:
        print(f"this machine cannot run {isa}: {info.strip()}")
        sys.exit(77)
    print(info.strip(), flush=True)
    sys.exit(subprocess.run([program, *sys.argv[4:]], env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
