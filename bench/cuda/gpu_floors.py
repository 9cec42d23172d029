"""The least time of a step on a device, from rates measured on it: whatever takes longest of

  memory        the queue, x_q and x_k read, dq written, once, at the rate of HBM (cold); with mixed rows made first,
                also those written
  L2            the queue once per block of 128 queries, at the rate of L2, whether it comes from HBM or not
  products      the two GEMMs, 4 N K D operations with N rounded up to 16, at the rate of mma.sync; three times as many
                where a float32 queue is split in two float16
  exponentials  N K of them

Nothing else is counted: no launch, no random draw, no merging. Rates are those of `gpu_bench`.
"""

from __future__ import annotations

from gpu_cells import Cell

ROWS = 128  # queries that one reading of the queue serves, at most
SIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float32-fast": 4}
NEEDED = ("hbm_read", "l2_read", "mma_f16", "mma_bf16", "ex2", "l2_bytes")


def parts_us(cell: Cell, rates: dict[str, float], cold: bool) -> dict[str, float]:
    """Microseconds of each part alone. Hot: a queue that fits in L2 is not read from memory."""
    size, (n, k, d) = SIZES[cell.type], cell.shape
    queue = k * d * size
    features = 2 * n * d * size + 4 * n * d
    memory, l2 = features, -(-n // ROWS) * queue
    if cold or queue > rates["l2_bytes"]:
        memory += queue
    if cell.preset == "ft-elementwise":
        memory += queue
        l2 += queue
    rows = -(-n // 16) * 16
    operations = 4 * rows * k * d * (3 if cell.type == "float32" else 1)
    matrix = rates["mma_bf16" if cell.type == "bfloat16" else "mma_f16"]
    return {
        "memory": memory / rates["hbm_read"] * 1e6,
        "L2": l2 / rates["l2_read"] * 1e6,
        "products": operations / matrix * 1e6,
        "exponentials": n * k / rates["ex2"] * 1e6,
    }


def floor_us(cell: Cell, rates: dict[str, float], cold: bool) -> tuple[float, str]:
    """The floor and what sets it."""
    parts = parts_us(cell, rates, cold)
    limit = max(parts, key=parts.get)
    return parts[limit], limit


def with_floors(measured: dict, rates: dict[str, float]) -> dict:
    """A cell as gpu_results gives it with its floors, and the step's and the pass's multiple of them, for what was
    measured."""
    if "error" in measured or any(name not in rates for name in NEEDED):
        return measured
    cell = Cell(*measured["shape"], measured["type"], measured["preset"])
    floors = {}
    for state in ("cold", "hot"):
        times = [measured["us"].get(f"{part}_graph_{state}") for part in ("step", "partial")]
        if None in times:
            continue
        step, partial = (time["median"] for time in times)
        us, limit = floor_us(cell, rates, state == "cold")
        floors[state] = {
            "us": round(us, 3),
            "limit": limit,
            "step_over_floor": round(step / us, 3),
            "partial_over_floor": round(partial / us, 3),
        }
    return {**measured, "floors": floors} if floors else measured
