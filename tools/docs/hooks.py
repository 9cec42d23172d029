"""Hooks of MkDocs: what the site has beyond docs/, and where the links of the documents lead on it.

The documents link as GitHub wants it, to files of the tree. README.md becomes the front page; a source that a document
links to gets a page that shows it; the public header and the Python interface get pages of reference. A link that leads
nowhere stays as it is, for MkDocs to find.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))

import header  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
HEADER = "include/flashnce/flashnce.h"
# Files of the tree that are pages under another name than theirs in docs/.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    HEADER: "api/c.md",
}
# Pages of the Python interface: title, module, what is shown of it where that is not __all__.
MODULES = {
    "api/torch.md": ("PyTorch", [("flashnce.torch", None)]),
    "api/scores.md": (
        "Score statistics",
        [
            ("flashnce.scores._meter", ["ScoreMeter"]),
            ("flashnce.scores._sinks", ["TensorBoard", "Parquet", "Dictionary", "AuthorsNpy"]),
            ("flashnce.scores._runs", ["read_run", "Run"]),
            ("flashnce.scores._row", ["merge_rows"]),
            ("flashnce.scores._explain", ["explain", "Explanation", "OfAlpha", "Spread"]),
            ("flashnce.report", ["compare", "write_page", "write_figures", "watch"]),
        ],
    ),
    "api/jax.md": ("JAX", [("flashnce.jax", ["info_nce", "Scores"])]),
    "api/numpy.md": (
        "NumPy and the reference",
        [
            ("flashnce.numpy_api", ["info_nce", "Result", "sample_lambda", "permutation"]),
            ("flashnce.reference", ["info_nce", "statistics"]),
        ],
    ),
}
LANGUAGES = {".h": "c", ".c": "c", ".hpp": "cpp", ".cpp": "cpp", ".py": "python", ".txt": "cmake"}
LINK = re.compile(r"(?<!\\)(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
CODE = re.compile(r"^(?:```.*?^```|(?: {4}[^\n]*\n)+)|`[^`\n]*`", re.S | re.M)


def place_of(target: str) -> str | None:
    """The page of the site that shows a file or folder of the tree, or None where there is no such file."""
    if target in PAGES:
        return PAGES[target]
    path = ROOT / target
    if not path.exists():
        return None
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"source/{target}.md"


def rewrite(markdown: str, source: str, page: str, found: set[str]) -> str:
    """`markdown`, the text of the file `source`, with links for the page; `found` gets the sources that they name."""

    def link(match: re.Match) -> str:
        opening, target, anchor, closing = match[1], match[2], match[3] or "", match[4]
        if re.match(r"\w+:", target):
            return match[0]
        place = place_of(posixpath.normpath(posixpath.join(posixpath.dirname(source), target)))
        if place is None:
            return match[0]
        found.add(place)
        return f"{opening}{posixpath.relpath(place, posixpath.dirname(page) or '.')}{anchor}{closing}"

    parts, end = [], 0
    for code in CODE.finditer(markdown):
        parts += [LINK.sub(link, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(link, markdown[end:])])


def shown_notebook(path: Path) -> str:
    """A notebook's words, programs and pictures."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                parts.append(f"![](data:image/png;base64,{''.join(picture).strip()})")
            elif words := "".join(output.get("text", [])):
                parts.append(f"```text\n{words.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def shown_source(target: str) -> str:
    """The page of a file or of all files of a folder."""
    path = ROOT / target
    if path.suffix == ".ipynb":
        return shown_notebook(path)
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file() and f.suffix != ".pyc")
    parts = [f"# {target}\n"]
    for file in files:
        if path.is_dir():
            parts.append(f"## {file.relative_to(path).as_posix()}\n")
        parts.append(f"````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text().rstrip()}\n````\n")
    return "\n".join(parts)


def public_names(module: str) -> list[str]:
    """__all__ of a module, read and not run."""
    tree = ast.parse((ROOT / "python" / module.replace(".", "/") / "__init__.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return [name for name in ast.literal_eval(node.value)]
    raise ValueError(f"{module} has no __all__")


def interface_page(title: str, modules: list[tuple[str, list[str] | None]]) -> str:
    parts = [f"# {title}\n"]
    for module, names in modules:
        if len(modules) == 1:
            alone = "{members: false, show_root_heading: false, show_root_toc_entry: false}"
            parts.append(f"::: {module}\n    options: {alone}\n")
        parts += [f"::: {module}.{name}\n" for name in names or public_names(module)]
    return "\n".join(parts)


def texts() -> dict[str, str]:
    """The pages that are not in docs/: place in the site, text."""
    made = {PAGES[HEADER]: header.page((ROOT / HEADER).read_text())}
    made |= {page: interface_page(*content) for page, content in MODULES.items()}
    found: set[str] = set()
    for source in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        made[PAGES[source]] = rewrite((ROOT / source).read_text(), source, PAGES[source], found)
    for path in (ROOT / "docs").rglob("*.md"):
        source = path.relative_to(ROOT).as_posix()
        rewrite(path.read_text(), source, source.removeprefix("docs/"), found)
    made |= {page: shown_source(page[len("source/") : -len(".md")]) for page in found if page.startswith("source/")}
    return made


def on_files(files, config):
    for page, text in texts().items():
        files.append(File.generated(config, page, content=text))
        if page.startswith("source/"):
            files.get_file_from_path(page).inclusion = type(files.get_file_from_path(page).inclusion).NOT_IN_NAV
    return files


def on_page_markdown(markdown, page, config, files):
    """Links of the files that MkDocs reads from docs/ itself."""
    if page.file.generated_by:
        return markdown
    place = page.file.src_uri
    return rewrite(markdown, f"docs/{place}", place, set())
