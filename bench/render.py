"""The Markdown of a record, part by part: what README.md and docs/performance.md show of it."""

from __future__ import annotations

from record import GEMMS, PAGES, STEPS, names_of

PRESETS = ("moco", "ft", "ft-elementwise")
# Columns of the table of steps: heading, peer. FlashNCE through PyTorch, as most callers see it.
COLUMNS = (
    ("FlashNCE `moco`", "flashnce-moco-torch"),
    ("FlashNCE `ft`", "flashnce-ft-torch"),
    ("FlashNCE `ft-elementwise`", "flashnce-ft-elementwise-torch"),
    ("MoCo code", "moco-code"),
    ("FT, eager", "eager-ft"),
    ("FT, `torch.compile`", "compiled-ft"),
    ("elementwise FT, eager", "eager-ft-elementwise"),
)
SHORT = tuple(column for column in COLUMNS if "elementwise" not in column[1])
GEMM_HEADS = ["two GEMMs, PyTorch", "two GEMMs, NumPy"]


def significant(value: float, digits: int = 3) -> str:
    """With so many significant digits, one less below 1, never in scientific notation."""
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 1
    return f"{value:.{max(digits - whole, 0) + (0 < abs(value) < 0.1)}f}"


def sizes(shape: list[int]) -> str:
    return ", ".join(map(str, shape))


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def measured_where(record: dict) -> list[str]:
    """When, at which commit, by which command and on which machine."""
    machine, commit = record["machine"], record["commit"]
    return [
        f"Measured {record['date']} at commit {commit['id'][:12]} by `{record['command']}` on {machine['cpu']}",
        f"(family {machine['cpu_family']}, model {machine['cpu_model']}), {machine['cores']} cores"
        + (" of a virtual machine." if machine["virtual"] else "."),
    ]


def table_of(head: list[str], rows: list[list[str]], left: int = 1) -> list[str]:
    return [row(head), row(["---"] * left + ["---:"] * (len(head) - left)), *map(row, rows)]


def ms(cell: dict, name: str) -> str:
    peer = cell["peers"].get(name)
    return significant(peer["ms"]["median"]) if peer else "–"


def compared(cell: dict, name: str) -> str:
    """The median of a comparison."""
    comparison = cell["comparisons"].get(name)
    return f"{comparison['median']:.2f}×" if comparison else "–"


def with_ratio(cell: dict, name: str, base: str) -> str:
    peer = cell["peers"].get(name)
    return f"{significant(peer['ms']['median'])} ({peer['ratios'][base]['median']:.2f}×)" if peer else "–"


def worst(cells: list[dict], name: str, error: str) -> str:
    """The largest error over the cells."""
    errors = [cell["peers"][name][error] for cell in cells if error in cell["peers"].get(name, {})]
    return f"{max(errors):.1e}" if errors else "–"


def span(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}" if values else "not measured"


def of_comparison(cells: list[dict], name: str) -> str:
    """The smallest and the largest median over the cells."""
    return span([cell["comparisons"][name]["median"] for cell in cells if name in cell["comparisons"]])


def threads_of(cells: list[dict]) -> list[int]:
    return sorted({cell["threads"] for cell in cells})


def not_run(cells: list[dict], words) -> list[str]:
    """A paragraph of what did not run and why: peers with the same reason together, in how many cells."""
    reasons: dict[str, list[tuple[int, str]]] = {}
    for number, cell in enumerate(cells):
        for name, reason in cell["skipped"].items():
            reasons.setdefault(reason, []).append((number, words(name)))
    lines = []
    for reason, found in reasons.items():
        names = ", ".join(dict.fromkeys(name for _, name in found))
        lines.append(f"Not run in {len({number for number, _ in found})} of {len(cells)} cells: {names} ({reason}).")
    return ["", *lines] if lines else []


def times(cells: list[dict], columns: tuple) -> list[str]:
    """Milliseconds per step, and the multiple of the faster two GEMMs."""
    rows = []
    for cell in cells:
        words = [sizes(cell["shape"]), str(cell["threads"]), *(ms(cell, name) for name in GEMMS)]
        rows.append(words + [with_ratio(cell, name, cell["gemms"]) for _, name in columns])
    return table_of(["N, K, D", "threads", *GEMM_HEADS, *(head for head, _ in columns)], rows)


def explained(record: dict) -> list[str]:
    software = record["software"]
    return [
        "Milliseconds of one training step: loss and gradient of the queries. Two GEMMs are the "
        "matrix products that every",
        f"such step contains and nothing else, by PyTorch's BLAS ({software['torch_blas']}), which "
        "the plain PyTorch steps",
        f"also use, and by NumPy's ({software['numpy_blas']}); in parentheses the multiple of the faster of the two.",
        "",
    ]


def machine(record: dict) -> list[str]:
    """Where it comes from."""
    machine, software, commit = record["machine"], record["software"], record["commit"]
    changed = ", with changes" if commit["dirty"] else ""
    return [
        f"Measured {record['date']} at commit {commit['id'][:12]}{changed} by `{record['command']}` "
        f"on {machine['cpu']}",
        f"(family {machine['cpu_family']}, model {machine['cpu_model']}), {machine['cores']} cores"
        f"{' of a virtual machine' if machine['virtual'] else ''}. {software['flashnce']}, {software['compiler']};",
        f"PyTorch {software['torch']}, NumPy {software['numpy']}.",
        f"Medians of {record['settings']['rounds']} interleaved rounds (fewer of slow peers, and "
        "beside the table of steps),",
        f"ratios taken within rounds; temperature {record['settings']['temperature']}.",
    ]


def short(record: dict) -> list[str]:
    """The table of README.md: the steps on all threads."""
    cells = record["tables"]["steps"]
    most = max(threads_of(cells))
    return [
        *explained(record),
        *times([cell for cell in cells if cell["threads"] == most], SHORT),
        "",
        *machine(record),
        "",
        "The rest, with errors, memory, shapes, element types and instruction sets, is in",
        "[docs/performance.md](docs/performance.md).",
    ]


def steps(record: dict) -> list[str]:
    cells, memory = record["tables"]["steps"], record["memory"]
    head = ["", "loss error", "dq error"] + ([f"MiB at {sizes(memory['shape'])}"] if memory else [])
    rows = []
    for name, words in STEPS.items():
        if not any(name in cell["peers"] for cell in cells):
            continue
        line = [words, worst(cells, name, "loss_error"), worst(cells, name, "dq_error")]
        if memory:
            extra = memory["extra_mib"].get(name)
            line.append("–" if extra is None else significant(extra, 2))
        rows.append(line)
    return [
        *explained(record),
        *times(cells, COLUMNS),
        "",
        f"FlashNCE's FT step takes {of_comparison(cells, 'FT over no FT')} of the time of its step "
        "without FT. Largest error",
        "over all shapes against float64 (loss: relative; dq: of a row, relative to its norm), and "
        "peak memory beyond the",
        "inputs:",
        "",
        *table_of(head, rows),
        *not_run(cells, names_of),
    ]


def shapes(record: dict) -> list[str]:
    cells, name = record["tables"]["shapes"], "flashnce-ft-c"
    counts = threads_of(cells)
    head = ["N, K, D"]
    for threads in counts:
        head += [f"`ft`, {threads} thread{'s' * (threads > 1)}", "/ PyTorch's GEMMs", "/ NumPy's GEMMs"]
    by_shape: dict[str, dict[int, dict]] = {}
    for cell in sorted(cells, key=lambda cell: cell["shape"]):
        by_shape.setdefault(sizes(cell["shape"]), {})[cell["threads"]] = cell
    rows = []
    for shape, found in by_shape.items():
        line = [shape]
        for threads in counts:
            cell = found.get(threads)
            ratios = cell["peers"][name]["ratios"] if cell else {}
            line += [ms(cell, name) if cell else "–", *(f"{ratios[b]['median']:.2f}×" if cell else "–" for b in GEMMS)]
        rows.append([*line, worst(list(found.values()), name, "dq_error")])
    lines = [
        "Milliseconds of FlashNCE's `ft` step in C, and its multiple of the two GEMMs by PyTorch and "
        "by NumPy; the largest",
        "error of dq of a few rows against float64, relative to the row's norm.",
        "",
        *table_of([*head, "dq error"], rows),
        "",
    ]
    for threads in counts:
        there = [cell for cell in cells if cell["threads"] == threads]
        over = [span([cell["peers"][name]["ratios"][base]["median"] for cell in there]) for base in GEMMS]
        words = f"{threads} thread{'s' * (threads > 1)}"
        lines.append(f"On {words}: {over[0]} of the time of PyTorch's two GEMMs, {over[1]} of that of NumPy's.")
    reasons: dict[tuple[int, str], list[str]] = {}
    for entry in record["left_out"]:
        reasons.setdefault((entry["threads"], entry["reason"]), []).append(sizes(entry["shape"]))
    for (threads, reason), found in reasons.items():
        lines.append(f"Left out on {threads} thread{'s' * (threads > 1)}, as {reason}: {'; '.join(found)}.")
    return lines


def types(record: dict) -> list[str]:
    cells = record["tables"]["types"]
    rows = []
    for cell in cells:
        for preset in PRESETS:
            line = [sizes(cell["shape"]), str(cell["threads"]), f"`{preset}`", ms(cell, f"flashnce-{preset}-float32")]
            for element in ("bfloat16", "float16"):
                line += [ms(cell, f"flashnce-{preset}-{element}"), compared(cell, f"{element} over float32, {preset}")]
            rows.append([*line, ms(cell, "gemms-torch-bfloat16"), compared(cell, f"bfloat16 {preset} over its GEMMs")])
    head = ["N, K, D", "threads", "preset", "float32", "bfloat16", "/ float32", "float16", "/ float32"]
    errors = []
    for element in ("float32", "bfloat16", "float16"):
        names = [f"flashnce-{preset}-{element}" for preset in PRESETS]
        products = {c["peers"][n].get("products", "–") for c in cells for n in names if n in c["peers"]}
        line = [element, ", ".join(sorted(products)) or "–"]
        errors.append(line + [worst(cells, name, error) for error in ("loss_error", "dq_error") for name in names])
    return [
        "Milliseconds of FlashNCE's step in C with features and queue of one type (dq is float32, as "
        "a trainer saves it);",
        "the two GEMMs in bfloat16 are PyTorch's, by oneDNN.",
        "",
        *table_of([*head, "two GEMMs, bfloat16", "bfloat16 / those"], rows, left=3),
        "",
        "Largest errors of a few rows against float64 on the same rounded numbers, and what the products are of:",
        "",
        *table_of(["type", "products", *(f"{e}, `{p}`" for e in ("loss", "dq") for p in PRESETS)], errors, left=2),
        *not_run(cells, names_of),
    ]


def isa(record: dict) -> list[str]:
    cells, rows = record["tables"]["isa"], []
    for cell in cells:
        line = [f"`{cell['isa']}`", sizes(cell["shape"]), str(cell["threads"]), *(ms(cell, name) for name in GEMMS)]
        for preset in PRESETS:
            peer = cell["peers"][f"flashnce-{preset}-c"]
            ratios = " / ".join(f"{peer['ratios'][base]['median']:.2f}×" for base in GEMMS)
            line.append(f"{significant(peer['ms']['median'])} ({ratios})")
        rows.append(line)
    kernels = []
    for entry in record["instruction_sets"]:
        for name, said in entry["peers"].items():
            speed = "–" if said["gflops"] is None else significant(said["gflops"])
            kernels.append([f"`{entry['limit']}`" if entry["limit"] else "none", name, said["kernels"], speed])
    return [
        "The library and its peers limited to one instruction set: milliseconds of the step in C, in parentheses its",
        "multiple of PyTorch's / NumPy's two GEMMs.",
        "",
        *table_of(["set", "N, K, D", "threads", *GEMM_HEADS, *(f"`{preset}`" for preset in PRESETS)], rows, left=2),
        "",
        "What the peers say of the kernels that they choose under each limit, and their speed in a "
        "square product on one",
        "thread:",
        "",
        *table_of(["limit", "peer", "kernels", "GFLOP/s"], kernels, left=3),
    ]


def pages(record: dict) -> list[str]:
    cells = record["tables"]["pages"]
    ratios = {"ft-queue-2m": "queue on 2M pages over 4K", "ft-all-2m": "all on 2M pages over 4K"}
    rows = []
    for cell in cells:
        line = [sizes(cell["shape"]), str(cell["threads"]), ms(cell, "ft-4k")]
        rows.append(line + [f"{ms(cell, name)} ({compared(cell, over)})" for name, over in ratios.items()])
    return [
        "Milliseconds of the `ft` step in C by the size of the pages that memory lies on "
        "(`madvise`); in parentheses the",
        "multiple of 4K pages.",
        "",
        *table_of(["N, K, D", "threads", *PAGES.values()], rows),
        *not_run(cells, names_of),
    ]


PARTS = {"": short, "machine": machine, "steps": steps, "shapes": shapes, "types": types, "isa": isa, "pages": pages}


def render(record: dict, part: str = "") -> str:
    """All of a part, ending in a line break; a sentence where the record has no such table."""
    needed = {"": "steps", "machine": None}.get(part, part)
    if needed is not None and needed not in record["tables"]:
        return f"The record {record['date']} has no table of {needed}.\n"
    return "\n".join(PARTS[part](record)) + "\n"
