"""Renders a record of bench/records as the Markdown table that README.md shows.

README.md holds it between `<!-- record: NAME -->` and `<!-- end record -->`, NAME being that of bench/records/NAME.json.

usage: table.py RECORD          prints the table of a record (its file, or its name)
       table.py --check FILE    fails where a table in FILE is not that of its record, or FILE has none
       table.py --write FILE    puts the tables of the records into FILE
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from record import GEMMS, RecordError, load

RECORDS = Path(__file__).resolve().parent / "records"
BLOCK = re.compile(r"<!-- record: ([\w.-]+) -->\n(.*?)<!-- end record -->", re.S)

# Columns of the table of times: heading, peer. FlashNCE through PyTorch, as most callers see it.
COLUMNS = (
    ("FlashNCE `moco`", "flashnce-moco-torch"),
    ("FlashNCE `ft`", "flashnce-ft-torch"),
    ("FlashNCE `ft-elementwise`", "flashnce-ft-elementwise-torch"),
    ("MoCo code", "moco-code"),
    ("FT, eager", "eager-ft"),
    ("FT, `torch.compile`", "compiled-ft"),
    ("elementwise FT, eager", "eager-ft-elementwise"),
)
# Rows of the table of errors and memory: peer, words.
ROWS = {
    "gemms-torch": "two GEMMs, PyTorch",
    "gemms-numpy": "two GEMMs, NumPy",
    "flashnce-moco-torch": "FlashNCE `moco`, PyTorch",
    "flashnce-moco-c": "FlashNCE `moco`, C",
    "flashnce-ft-torch": "FlashNCE `ft`, PyTorch",
    "flashnce-ft-c": "FlashNCE `ft`, C",
    "flashnce-ft-elementwise-torch": "FlashNCE `ft-elementwise`, PyTorch",
    "flashnce-ft-elementwise-c": "FlashNCE `ft-elementwise`, C",
    "moco-code": "MoCo code",
    "eager-ft": "FT, eager",
    "compiled-ft": "FT, `torch.compile`",
    "eager-ft-elementwise": "elementwise FT, eager",
}


def significant(value: float, digits: int = 3) -> str:
    """With so many significant digits, never in scientific notation."""
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:.{max(digits - max(whole, 1), 0)}f}"


def sizes(shape: list[int]) -> str:
    return ", ".join(map(str, shape))


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def table_of(head: list[str], rows: list[list[str]], left: int = 1) -> list[str]:
    return [row(head), row(["---"] * left + ["---:"] * (len(head) - left)), *map(row, rows)]


def times(record: dict) -> list[str]:
    """Milliseconds per step, and the multiple of the faster two GEMMs."""
    rows = []
    for cell in record["cells"]:
        words = [sizes(cell["shape"]), str(cell["threads"])]
        words += [significant(cell["peers"][name]["ms"]["median"]) for name in GEMMS]
        for _, name in COLUMNS:
            peer = cell["peers"].get(name)
            ratio = peer and peer["ratios"][cell["gemms"]]["median"]
            words.append(f"{significant(peer['ms']['median'])} ({ratio:.2f}×)" if peer else "–")
        rows.append(words)
    return table_of(["N, K, D", "threads", "two GEMMs, PyTorch", "two GEMMs, NumPy", *(head for head, _ in COLUMNS)], rows)


def worst(record: dict, name: str, error: str) -> str:
    """The largest error over the cells."""
    errors = [cell["peers"][name][error] for cell in record["cells"] if error in cell["peers"].get(name, {})]
    return f"{max(errors):.1e}" if errors else "–"


def quality(record: dict) -> list[str]:
    """Errors and memory of every peer."""
    memory = record["memory"]
    head = ["", "loss error", "dq error"]
    if memory:
        head.append(f"MiB at {sizes(memory['shape'])}")
    rows = []
    for name, words in ROWS.items():
        if not any(name in cell["peers"] for cell in record["cells"]):
            continue
        line = [words, worst(record, name, "loss_error"), worst(record, name, "dq_error")]
        if memory:
            extra = memory["extra_mib"].get(name)
            line.append("–" if extra is None else significant(extra, 2))
        rows.append(line)
    return table_of(head, rows)


def ratio_range(record: dict, comparison: str) -> str:
    """The smallest and the largest median over the cells."""
    medians = [cell["comparisons"][comparison]["median"] for cell in record["cells"] if comparison in cell["comparisons"]]
    return f"{min(medians):.2f} to {max(medians):.2f}" if medians else "not measured"


def render(record: dict) -> str:
    """All of it, ending in a line break."""
    machine, software, commit = record["machine"], record["software"], record["commit"]
    changed = ", with changes" if commit["dirty"] else ""
    lines = [
        "Milliseconds of one training step: loss and gradient of the queries. Two GEMMs are the matrix products that every such",
        f"step contains and nothing else, by PyTorch's BLAS ({software['torch_blas']}), which the plain PyTorch steps also use, and by",
        f"NumPy's ({software['numpy_blas']}); in parentheses the multiple of the faster of the two.",
        "",
        *times(record),
        "",
        f"FlashNCE's FT step takes {ratio_range(record, 'FT over no FT')} of the time of its step without FT. Largest error over",
        "all shapes against float64 (loss: relative; dq: of a row, relative to its norm), and peak memory beyond the inputs:",
        "",
        *quality(record),
        "",
        f"Measured {record['date']} at commit {commit['id'][:12]}{changed} by `{record['command']}` on {machine['cpu']} (family",
        f"{machine['cpu_family']}, model {machine['cpu_model']}), {machine['cores']} cores"
        f"{' of a virtual machine' if machine['virtual'] else ''}. {software['flashnce']}, {software['compiler']};",
        f"PyTorch {software['torch']}, NumPy {software['numpy']}.",
        f"Medians of {record['settings']['rounds']} interleaved rounds (fewer of the slowest), ratios taken within rounds; "
        f"temperature {record['settings']['temperature']}.",
    ]
    for cell in record["cells"]:
        for name, reason in cell["skipped"].items():
            lines.append(f"Not run at {sizes(cell['shape'])} on {cell['threads']}: {ROWS[name]} ({reason}).")
    return "\n".join(lines) + "\n"


def record_at(name: str) -> Path:
    path = Path(name)
    return path if path.suffix == ".json" else RECORDS / f"{name}.json"


def filled(text: str) -> str:
    """The document with the tables of its records."""
    if not BLOCK.search(text):
        raise RecordError("there is no `<!-- record: NAME -->` ... `<!-- end record -->`")

    def block(match: re.Match) -> str:
        path = record_at(match.group(1))
        if not path.is_file():
            raise RecordError(f"bench/records has no {path.name}")
        return f"<!-- record: {match.group(1)} -->\n{render(load(path))}<!-- end record -->"

    return BLOCK.sub(block, text)


def main(arguments: list[str]) -> int:
    options = [argument for argument in arguments if argument.startswith("-")]
    names = [argument for argument in arguments if not argument.startswith("-")]
    if len(names) != 1 or options not in ([], ["--check"], ["--write"]):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    try:
        if not options:
            print(render(load(record_at(names[0]))), end="")
            return 0
        document = Path(names[0])
        text = document.read_text()
        new = filled(text)
        if options == ["--write"]:
            document.write_text(new)
        elif new != text:
            print(f"{document.name}: a table differs from its record; bench/table.py --write {document.name} updates it")
            return 1
    except (OSError, RecordError) as error:
        print(f"table.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
