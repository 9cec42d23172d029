"""Puts what a record of bench/records says into documents, as Markdown.

A document holds a part of it between `<!-- record: NAME PART -->` and `<!-- end record -->`, NAME being that of
bench/records/NAME.json and PART one of: steps, shapes, types, isa, pages, machine; without PART it is the short table.

usage: table.py RECORD [PART]       prints a part of a record (its file, or its name)
       table.py --check FILE        fails where a part in FILE is not that of its record, or FILE has none
       table.py --write FILE        puts the parts of the records into FILE
       table.py --use NAME FILE     first makes NAME the record of all parts in FILE
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from record import RecordError, load
from render import PARTS, render

RECORDS = Path(__file__).resolve().parent / "records"
BLOCK = re.compile(r"<!-- record: ([\w.-]+)(?: (\w+))? -->\n(.*?)<!-- end record -->", re.S)


def record_at(name: str) -> Path:
    path = Path(name)
    return path if path.suffix == ".json" else RECORDS / f"{name}.json"


def filled(text: str, name: str | None = None) -> str:
    """The document with the parts of its records, or of the record NAME."""
    if not BLOCK.search(text):
        raise RecordError("there is no `<!-- record: NAME -->` ... `<!-- end record -->`")

    def block(match: re.Match) -> str:
        used, part = name or match.group(1), match.group(2) or ""
        path = record_at(used)
        if not path.is_file():
            raise RecordError(f"bench/records has no {path.name}")
        if part not in PARTS:
            raise RecordError(f"a record has no part {part}; it has {', '.join(filter(None, PARTS))}")
        return f"<!-- record: {' '.join(filter(None, (used, part)))} -->\n{render(load(path), part)}<!-- end record -->"

    return BLOCK.sub(block, text)


def main(arguments: list[str]) -> int:
    option = arguments[0] if arguments and arguments[0].startswith("-") else None
    names = arguments[option is not None :]
    wanted = {None: (1, 2), "--check": (1,), "--write": (1,), "--use": (2,)}
    if len(names) not in wanted.get(option, ()) or (option is None and len(names) == 2 and names[1] not in PARTS):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    try:
        if option is None:
            print(render(load(record_at(names[0])), *names[1:]), end="")
            return 0
        document = Path(names[-1])
        text = document.read_text()
        new = filled(text, names[0] if option == "--use" else None)
        if option in ("--write", "--use"):
            document.write_text(new)
        elif new != text:
            print(f"{document.name}: a table differs from its record; update it by bench/table.py --write")
            return 1
    except (OSError, RecordError) as error:
        print(f"table.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
