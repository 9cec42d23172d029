"""What the comparison prints while it measures."""

from __future__ import annotations

import sys

from record import GEMMS, names_of


def print_cell(table: str, cell: dict) -> None:
    n, k, d = cell["shape"]
    print(f"\n{table}: N={n} K={k} D={d}, {cell['threads']} thread{'s' * (cell['threads'] > 1)}, {cell['isa']}")
    over = bool(cell["gemms"])
    head = f"  {'':38}{'ms':>9}{'min':>9}{'max':>9}"
    if over:
        head += f"  {'/ torch mm':>10}  {'/ numpy mm':>10}  {'/ faster, min .. max':>22}"
    print(head + f"  {'loss err':>8}  {'dq err':>8}")
    for name, peer in cell["peers"].items():
        ms, ratios = peer["ms"], peer["ratios"]
        line = f"  {names_of(name):38}{ms['median']:9.3f}{ms['min']:9.3f}{ms['max']:9.3f}"
        if over:
            faster = ratios[cell["gemms"]]
            line += "".join(f"  {ratios[base]['median']:10.3f}" for base in GEMMS)
            line += f"  {faster['median']:8.3f} {faster['min']:6.2f} ..{faster['max']:5.2f}"
        line += "".join(f"  {peer[error]:8.1e}" for error in ("loss_error", "dq_error") if error in peer)
        print(line + (f"  {peer['products']} products" if "products" in peer else ""))
    for name, reason in cell["skipped"].items():
        print(f"  {names_of(name):38}  skipped: {reason}")
    for name, ratio in cell["comparisons"].items():
        print(f"  {name:38}{ratio['median']:9.3f}{ratio['min']:9.3f}{ratio['max']:9.3f}")
    sys.stdout.flush()


def print_memory(memory: dict) -> None:
    n, k, d = memory["shape"]
    print(f"\nPeak memory of a step beyond its inputs, N={n} K={k} D={d}, {memory['threads']} threads, MiB")
    for name, extra in memory["extra_mib"].items():
        print(f"  {names_of(name):38}{extra:9.1f}")
    sys.stdout.flush()


def print_kernels(entry: dict) -> None:
    print(f"\nInstruction set: {entry['limit'] or 'no limit'}; FlashNCE {entry['flashnce']}")
    for name, said in entry["peers"].items():
        speed = f"{said['gflops']:7.1f} GFLOP/s" if said["gflops"] else " " * 15
        print(f"  {name:16}{speed}  {said['kernels']}")
    sys.stdout.flush()
