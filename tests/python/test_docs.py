"""The documents: every link leads somewhere on GitHub, and the public header becomes a page. MkDocs checks the site."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "docs"))

import header  # noqa: E402

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
HEADER = ROOT / "include/flashnce/flashnce.h"


def anchors(document: Path) -> set[str]:
    """Those that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.S | re.M)
    broken = []
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", text):
        path = (document.parent / target).resolve() if target else document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(f"{target}#{anchor}")
    return broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document):
    assert broken_links(document) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "a.md").write_text("# One heading\n[a](a.md) [b](b.md) [c](a.md#one-heading) [d](#two)\n")
    assert broken_links(tmp_path / "a.md") == ["b.md#", "#two"]


def test_the_header_becomes_a_page_that_leaves_nothing_out():
    text, page = HEADER.read_text(), header.page(HEADER.read_text())
    for name in re.findall(r"^FNCE_API .*?\b(fnce_\w+)\(", text, re.M):
        assert re.search(rf"^### .*`{name}`", page, re.M), name
    for name in "problem args push pairs plan_info score_buffers layout".split():
        assert re.search(rf"^### .*`fnce_{name}`", page, re.M), name
    titles = re.findall(r"^/\* ---- (\d+\. .*?) -+ \*/$", text, re.M)
    assert len(titles) == 12 and [title for title in titles if f"\n## {title}\n" not in page] == []
    # Every declaration stands in it, whatever became of the comments around it.
    declared = re.findall(r"^(?:FNCE_API|typedef|#define FNCE_|enum).*$", text, re.M)
    assert len(declared) > 60
    # Every one but the macro itself, which stands before the first section.
    assert [line for line in declared if line not in page and not line.startswith("#define FNCE_API")] == []


def test_text_of_a_comment_is_no_markup():
    assert header.text_of(" Scores a*b_c [N,D] of FNCE_CPU\n * <x>.\n *\n *     code;\n ") == (
        "Scores a\\*b\\_c \\[N,D\\] of `FNCE_CPU`\n\\<x\\>.\n\n```text\ncode;\n```"
    )
