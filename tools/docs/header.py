"""A C header as a page: each section of it a heading, its comments text, its declarations code.

A section opens with a line `/* ---- 1. Title ---- */`. A comment at the start of a line is text, and lines in it that
are indented further are code; everything between two such comments is shown as it stands.
"""

from __future__ import annotations

import re
import textwrap

SECTION = re.compile(r"^/\* -{2,} (.+?) -{2,} \*/$", re.M)
COMMENT = re.compile(r"^/\*(.*?)\*/[ \t]*\n", re.S | re.M)
NAME = re.compile(r"^FNCE_API .*?\b(fnce_\w+)\(|^typedef struct (fnce_\w+)|^typedef \S+ (fnce_\w+);", re.M)

IDENTIFIER = re.compile(r"\b((?:fnce|FNCE)_\w+(?:\.\w+)?(?:\(\))?\*?)")


def text_of(comment: str) -> str:
    """A comment as Markdown."""
    lines = [re.sub(r"^ \* ?| \*$", "", line).rstrip() for line in (" *" + comment).split("\n")]
    parts = []
    for block in re.split(r"\n{2,}", "\n".join(lines).strip("\n")):
        kept = block.split("\n")
        if all(line.startswith("  ") or not line for line in kept):
            parts.append("```text\n" + textwrap.dedent(block) + "\n```")
        else:
            words = IDENTIFIER.split("\n".join(line.strip() for line in kept))
            escaped = [re.sub(r"([\\*_\[\]<>|#])", r"\\\1", part) for part in words[::2]]
            names = [f"`{name}`" for name in words[1::2]] + [""]
            parts.append("".join(part + name for part, name in zip(escaped, names)))
    return "\n\n".join(parts)


def section_text(body: str) -> str:
    """The declarations of a section with their comments."""
    parts, end = [], 0

    def declarations(code: str) -> None:
        code = code.strip("\n")
        if code.strip():
            parts.append(f"```c\n{code}\n```")

    for comment in COMMENT.finditer(body):
        declarations(body[end : comment.start()])
        following = body[comment.end() :].split("\n\n")[0]
        following = following[: found.start()] if (found := COMMENT.search(following)) else following
        names = list(dict.fromkeys(next(filter(None, match)) for match in NAME.findall(following)))
        if names:
            parts.append("### " + ", ".join(f"`{name}`" for name in names))
        parts.append(text_of(comment[1]))
        end = comment.end()
    declarations(body[end:])
    return "\n\n".join(parts)


def page(text: str) -> str:
    """The whole header."""
    opening = COMMENT.match(text)
    sections = list(SECTION.finditer(text))
    if opening is None or not sections:
        raise ValueError("the header has no opening comment or no sections")
    parts = ["# The C interface", text_of(opening[1])]
    ends = [section.start() for section in sections[1:]] + [text.index("#ifdef __cplusplus\n}")]
    for section, end in zip(sections, ends):
        parts += [f"## {section[1]}", section_text(text[section.end() : end])]
    return "\n\n".join(parts) + "\n"
