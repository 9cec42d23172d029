"""House rules that a program can check: sizes, the width of lines, comments without a subject, markers of unfinished
work, paths of one machine, kernels without a harness.

Files stay near 400 lines and functions near 80, so that each can be read in one sitting; the limits here leave a little
room. The public header, the reference of the API in one piece, may be longer.

usage: check_house.py ROOT
"""
import ast
import pathlib
import re
import sys

FILE_LINES, FUNCTION_LINES, COLUMNS = 440, 90, 120
LONG_FILES = {"include/flashnce/flashnce.h", "tests/abi/first/flashnce/flashnce.h", "LICENSE"}
DATA = "bench/records/"  # written by a program, read by one
# These still have lines beyond COLUMNS. A name must go once it is clean, and none comes. tests/abi/first is a header as
# it was, and stays.
LONG_LINES = ("tests/abi/first/", "tests/static/check_includes.py")
# A comment that opens so has no subject. Names as above.
FRAGMENT = re.compile(r"\s*(?://|#|/\*) (?:Of|Whether)\b")
FRAGMENTS = ()
FOLDERS = ["include", "src", "kernels", "tests", "bench", "python", "examples", "cmake", "tools", "docs"]
TOP_FILES = ["CMakeLists.txt", "CMakePresets.json", "pyproject.toml", "dev", ".ci/run", "README.md", "CHANGELOG.md",
             "CONTRIBUTING.md"]
CODE = {".h", ".hpp", ".c", ".cpp", ".cu", ".cuh"}
PROGRAMS = CODE | {".py", ".sh", ".cmake"}
TEXT = CODE | {".abi", ".py", ".sh", ".md", ".txt", ".cmake", ".in", ".map", ".toml", ".json", ""}
MARKERS = re.compile(r"\b(" + "TO" + "DO|FIX" + "ME|X" + r"XX)\b")
# Absolute paths that exist on somebody's machine only.
MACHINE_PATHS = re.compile(r"(?<![\w.}/])/(?:work|root|home|tmp|opt|Users)/\w")
# Kernels and what launches them are one text for a GPU and for tests/hostcuda, which takes CUDA's place by include
# path.
HARNESS = re.compile(r"\w*hostcuda\w*", re.I)


def without_comments(text):
    """Comments and literals blanked out, line breaks kept."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def c_functions(text):
    """(first line, lines) of every outermost block that follows a parameter list."""
    text = re.sub(r"^[ \t]*#.*(?:\\\n.*)*", "", without_comments(text), flags=re.M)
    depth_of_function, depth, start, head = None, 0, 0, 0
    for position, char in enumerate(text):
        if char == "{":
            before = text[head:position]
            scope = re.search(r"\b(namespace|class|struct|union|enum|extern)\b", before)
            if depth_of_function is None and "(" in before and not scope and "=" not in before.split("(")[0]:
                depth_of_function = depth
                start = text.count("\n", 0, head + len(before) - len(before.lstrip())) + 1
            depth += 1
        elif char == "}":
            depth -= 1
            if depth_of_function == depth:
                yield start, text.count("\n", 0, position) + 2 - start
                depth_of_function = None
        if char in "{};":
            head = position + 1


def python_functions(text):
    """(first line, lines without the docstring) of every function."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            documentation = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
            length = node.end_lineno - node.lineno + 1
            yield node.lineno, length - (documentation.end_lineno - documentation.lineno + 1 if documentation else 0)


def is_program(source):
    return source.suffix in PROGRAMS or source.name in ("dev", "CMakeLists.txt")


def style_problems(source):
    """(line, what is wrong, the exemptions of this rule) of a program's lines."""
    before = ""
    for number, line in enumerate(source.read_text().splitlines(), 1):
        if len(line) > COLUMNS:
            yield number, f"{len(line)} columns (limit {COLUMNS})", LONG_LINES
        if FRAGMENT.match(line) and not re.match(r"\s*(//|#)", before):
            yield number, f"a comment without a subject: {line.strip()[:60]}", FRAGMENTS
        before = line


def all_style_problems(root, sources):
    """Those outside the exemptions, and the exemptions that nothing needs any more."""
    needed = set()
    for source in filter(is_program, sources):
        path = source.relative_to(root).as_posix()
        for number, what, exempt in style_problems(source):
            names = [(id(exempt), name) for name in exempt if path.startswith(name)]
            needed.update(names)
            if not names:
                yield f"{path}:{number}: {what}"
    for name, exempt in [(name, exempt) for exempt in (LONG_LINES, FRAGMENTS) for name in exempt]:
        if (id(exempt), name) not in needed:
            yield f"{name}: clean, so it leaves its list in check_house.py"


def problems_of(root, source):
    path = source.relative_to(root).as_posix()
    text = source.read_text()
    lines = text.splitlines()
    if len(lines) > FILE_LINES and path not in LONG_FILES and not path.startswith(DATA):
        yield f"{path}: {len(lines)} lines (limit {FILE_LINES})"
    for number, line in enumerate(lines, 1):
        if marker := MARKERS.search(line):
            yield f"{path}:{number}: unfinished work is marked with {marker.group()}"
        if place := MACHINE_PATHS.search(line):
            yield f"{path}:{number}: path of one machine: {line.strip()[:80]} (at {place.group()})"
        if line != line.rstrip() or (source.suffix in CODE | {".py"} and "\t" in line):
            yield f"{path}:{number}: trailing space or tab"
    if path.startswith("kernels/"):
        for number, line in enumerate(without_comments(text).splitlines(), 1):
            if harness := HARNESS.search(line):
                yield f"{path}:{number}: {harness.group()}: kernels/ knows nothing of the harness"
    functions = c_functions(text) if source.suffix in CODE else python_functions(text) if source.suffix == ".py" else ()
    for number, length in functions:
        if length > FUNCTION_LINES:
            yield f"{path}:{number}: function of {length} lines (limit {FUNCTION_LINES})"


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    sources = [root / name for name in TOP_FILES if (root / name).is_file()]
    for folder in FOLDERS:
        found = sorted((root / folder).rglob("*"))
        sources += [f for f in found if f.is_file() and f.suffix in TEXT and "__pycache__" not in f.parts]
    if len(sources) < 10:
        sys.exit(f"only {len(sources)} files found under {root}: is this the project's root?")
    problems = [p for source in sources for p in problems_of(root, source)]
    problems += all_style_problems(root, sources)
    for problem in problems:
        print(problem)
    print(f"{len(sources)} files, {len(problems)} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
