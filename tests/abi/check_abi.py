"""The binary interface of the library against the committed one: additions only.

The header is read declaration by declaration (one it cannot read is an error), a C program made from it prints what the
compiler makes of them, and the result is compared with FILE: functions, types, structs field by field, constants. Tools
that read debug information see neither macros nor enumerators that no function refers to.

usage: check_abi.py [options] FILE      exit status 1 if the header or the library differs from FILE

Nothing that FILE holds may change or go. What may come, and is taken into FILE by --update: functions, types,
constants, fields at the end of a struct that carries its size, and fields in the place of a `reserved` one.
FNCE_VERSION may grow.
"""
import argparse
import dataclasses
import difflib
import pathlib
import re
import subprocess
import sys
import tempfile

HEADING = """\
# The binary interface of the library, as the compiler sees it where pointers and size_t have 8 bytes (x86-64, arm64).
# Written by check_abi.py from the public header; docs/abi.md says what may change. A field: offset, bytes, type, name.
"""
# The version's parts and what is no number.
NOT_RECORDED = {"FNCE_API", "FNCE_VERSION_MAJOR", "FNCE_VERSION_MINOR", "FNCE_VERSION_PATCH"}


@dataclasses.dataclass(frozen=True)
class Field:
    offset: int
    size: int
    type: str
    name: str

    def overlaps(self, other):
        return self.offset < other.offset + other.size and other.offset < self.offset + self.size

    def inside(self, other):
        return other.offset <= self.offset and self.offset + self.size <= other.offset + other.size

    def __str__(self):
        return f"{self.offset:5} {self.size:4}  {self.type} {self.name}"


@dataclasses.dataclass
class Struct:
    size: int
    alignment: int
    fields: list


class Unreadable(Exception):
    pass


def words(text):
    """A type or declaration in one spelling: single spaces, the stars at the type."""
    return re.sub(r"\s*\*\s*", "* ", re.sub(r"\s+", " ", text)).replace("* *", "**").strip()


def declarator(text, what):
    """(type, name) of `type name` or `type name[count]`."""
    match = re.fullmatch(r"((?:const )?(?:struct )?\w+(?:\*| const\*)*) ?(?: const )?(\w+)(\[\d+\])?",
                         words(text).replace("* const* ", "* const*"))
    if not match:
        raise Unreadable(f"cannot read {what} `{words(text)}`")
    return match[1] + (match[3] or ""), match[2]


def parameter_type(text):
    text = words(text)
    if text == "void":
        return text
    return declarator(text, "parameter")[0]


def statements(text):
    """The declarations of C text without comments and directives, split at the semicolons outside braces."""
    depth, start = 0, 0
    for position, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if char == ";" and depth == 0:
            yield text[start:position].strip()
            start = position + 1
    if text[start:].strip():
        raise Unreadable(f"text after the last declaration: {text[start:].strip()[:60]}")


@dataclasses.dataclass
class Declarations:
    """What the header declares; sizes, offsets and values are the compiler's to say."""

    functions: dict = dataclasses.field(default_factory=dict)  # name: "result (parameters)"
    aliases: dict = dataclasses.field(default_factory=dict)    # name: type
    opaque: list = dataclasses.field(default_factory=list)
    structs: dict = dataclasses.field(default_factory=dict)    # name: [(type, field)]
    enumerators: list = dataclasses.field(default_factory=list)
    macros: list = dataclasses.field(default_factory=list)

    def take(self, statement):
        if match := re.fullmatch(r"FNCE_API\b(.*?)\b(fnce_\w+)\s*\((.*)\)", statement, re.S):
            parameters = ", ".join(parameter_type(p) for p in match[3].split(","))
            self.functions[match[2]] = f"{words(match[1])} ({parameters})"
        elif match := re.fullmatch(r"typedef\s+struct\s+(\w+)\s*\{(.*)\}\s*(\w+)", statement, re.S):
            body = [field.strip() for field in match[2].split(";") if field.strip()]
            self.structs[match[3]] = [declarator(field, "field") for field in body]
        elif match := re.fullmatch(r"typedef\s+struct\s+(\w+)\s+(\w+)", statement):
            self.opaque.append(match[2])
        elif match := re.fullmatch(r"enum\s*\{(.*)\}", statement, re.S):
            for part in filter(None, (p.strip() for p in match[1].split(","))):
                name = re.fullmatch(r"(FNCE_\w+)\s*=\s*\d+", part)
                if not name:
                    raise Unreadable(f"cannot read enumerator `{part}`: it must be FNCE_NAME = number")
                self.enumerators.append(name[1])
        elif statement.startswith("typedef"):
            kind, name = declarator(statement[len("typedef"):].strip(), "typedef")
            self.aliases[name] = kind
        else:
            raise Unreadable(f"cannot read declaration `{words(statement)[:80]}`")


def read_header(text):
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    declarations = Declarations()
    for name, value in re.findall(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+(\S.*)$", text, re.M):
        if name.startswith("FNCE_") and name not in NOT_RECORDED:
            declarations.macros.append(name)
    text = re.sub(r"^[ \t]*#.*(?:\\\n.*)*$", "", text, flags=re.M)
    text, found = re.subn(r'extern\s+"C"\s*\{(.*)\}\s*$', r"\1", text, flags=re.S)
    if found != 1:
        raise Unreadable('the header has no extern "C" { ... } around its declarations')
    for statement in statements(text):
        declarations.take(statement)
    return declarations


def ask_compiler(cc, include, declarations):
    """Every number that the declarations leave to the compiler, in the order of the questions."""
    questions = []
    for name in declarations.aliases:
        questions.append(f"sizeof({name})")
    for name, fields in declarations.structs.items():
        questions += [f"sizeof({name})", f"_Alignof({name})"]
        for _, field in fields:
            questions += [f"offsetof({name}, {field})", f"sizeof((({name}*)0)->{field})"]
    questions += declarations.enumerators + declarations.macros
    body = "".join(f'  printf("%lld\\n", (long long)({question}));\n' for question in questions)
    with tempfile.TemporaryDirectory() as folder:
        source, program = pathlib.Path(folder) / "abi.c", pathlib.Path(folder) / "abi"
        source.write_text("#include <flashnce/flashnce.h>\n#include <stdio.h>\n\nint main(void) {\n" + body +
                          "  return 0;\n}\n")
        subprocess.run([cc, "-std=c11", f"-I{include}", source, "-o", program], check=True)
        output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return dict(zip(questions, map(int, output.split()), strict=True))


def interface_of(cc, header):
    """{("function", name): signature, ("struct", name): Struct, ...} of a header <include>/flashnce/flashnce.h."""
    declarations = read_header(header.read_text())
    answers = ask_compiler(cc, header.parent.parent, declarations)
    result = {("opaque", name): "" for name in declarations.opaque}
    for name, kind in declarations.aliases.items():
        result["type", name] = f"{kind}, {answers[f'sizeof({name})']} bytes"
    for name, fields in declarations.structs.items():
        layout = [Field(answers[f"offsetof({name}, {f})"], answers[f"sizeof((({name}*)0)->{f})"], kind, f)
                  for kind, f in fields]
        result["struct", name] = Struct(answers[f"sizeof({name})"], answers[f"_Alignof({name})"], layout)
    for name in declarations.enumerators + declarations.macros:
        result["constant", name] = answers[name]
    for name, signature in declarations.functions.items():
        result["function", name] = signature
    return result


def write(interface):
    lines = [HEADING]
    for kind in ("soname", "function", "opaque", "type", "constant", "struct"):
        for name in sorted(name for k, name in interface if k == kind):
            value = interface[kind, name]
            if kind == "struct":
                lines.append(f"\nstruct {name}: {value.size} bytes, aligned to {value.alignment}\n")
                lines += [f"{field}\n" for field in value.fields]
            else:
                separator = {"constant": " = ", "soname": "", "opaque": ""}.get(kind, ": ")
                lines.append(f"{kind} {name}{separator}{value}\n")
    return "".join(lines)


def read(text):
    result, fields = {}, None
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        if match := re.fullmatch(r" +(\d+) +(\d+)  (.*) (\w+)", line):
            fields.append(Field(int(match[1]), int(match[2]), match[3], match[4]))
        elif match := re.fullmatch(r"struct (\w+): (\d+) bytes, aligned to (\d+)", line):
            fields = []
            result["struct", match[1]] = Struct(int(match[2]), int(match[3]), fields)
        elif match := re.fullmatch(r"constant (\w+) = (-?\d+)", line):
            result["constant", match[1]] = int(match[2])
        elif match := re.fullmatch(r"(soname|opaque) (\S+)", line):
            result[match[1], match[2]] = ""
        elif match := re.fullmatch(r"(function|type) (\w+): (.*)", line):
            result[match[1], match[2]] = match[3]
        else:
            raise Unreadable(f"line {number} cannot be read: {line}")
    return result


def compare_structs(name, old, new):
    """(what breaks programs, what is new) as sentences."""
    breaks, additions = [], []
    sized = bool(old.fields) and old.fields[0].name == "struct_size"
    if new.alignment != old.alignment:
        breaks.append(f"{name}: its alignment was {old.alignment} and is {new.alignment}")
    if new.size < old.size or (new.size > old.size and not sized):
        why = "" if sized else "; a struct that does not carry its size cannot grow"
        breaks.append(f"{name}: its size was {old.size} and is {new.size}{why}")
    elif new.size != old.size:
        additions.append(f"{name}: {new.size} bytes instead of {old.size}")
    kept, reserved = set(new.fields), [f for f in old.fields if f.name.startswith("reserved")]
    for field in old.fields:
        if field in kept or field in reserved:
            continue
        now = next((str(f) for f in new.fields if f.name == field.name), None)
        breaks.append(f"{name}.{field.name}: was `{str(field).strip()}`, " +
                      (f"is `{now.strip()}`" if now else "is gone"))
    for field in reserved:
        covered = sum(f.size for f in new.fields if f.inside(field))
        if covered != field.size or any(f.overlaps(field) and not f.inside(field) for f in new.fields):
            breaks.append(f"{name}.{field.name}: its bytes {field.offset} .. {field.offset + field.size - 1} are not "
                          "taken whole by new fields and what is left of it")
    for field in new.fields:
        if field in old.fields or any(f.name == field.name and f not in reserved for f in old.fields):
            continue
        if field.offset >= old.size or any(field.inside(f) for f in reserved):
            additions.append(f"{name}: `{str(field).strip()}`")
        else:
            breaks.append(f"{name}.{field.name}: new at {field.offset}, neither behind the {old.size} bytes of the "
                          "struct as it was nor in the place of a reserved field")
    return breaks, additions


def compare(old, new):
    """(what breaks programs built against the old interface, what is new) as sentences."""
    breaks, additions = [], []
    for key in sorted({*old, *new}):
        kind, name = key
        if key not in new:
            breaks.append(f"{kind} {name} is gone")
        elif key not in old:
            (breaks if kind == "soname" else additions).append(f"{kind} {name}")
        elif kind == "struct":
            found = compare_structs(name, old[key], new[key])
            breaks += found[0]
            additions += found[1]
        elif old[key] != new[key]:
            grown_version = name == "FNCE_VERSION" and new[key] > old[key]
            (additions if grown_version else breaks).append(f"{kind} {name}: was {old[key]}, is {new[key]}")
    return breaks, additions


def library_of(nm, readelf, library):
    """(soname, exported symbols) of a shared library."""
    dynamic = subprocess.run([readelf, "-dW", library], check=True, capture_output=True, text=True).stdout
    soname = re.search(r"\(SONAME\)[^\[]*\[(.*?)\]", dynamic)
    symbols = subprocess.run([nm, "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    return soname and soname[1], {line.split()[-1].split("@")[0] for line in symbols.splitlines() if line.strip()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--header", required=True, type=pathlib.Path, help="<include>/flashnce/flashnce.h")
    parser.add_argument("--cc", default="cc")
    parser.add_argument("--library", type=pathlib.Path, required=True, help="the shared library")
    parser.add_argument("--nm", default="nm")
    parser.add_argument("--readelf", default="readelf")
    parser.add_argument("--update", action="store_true", help="write FILE where only additions are new, or no FILE is")
    parser.add_argument("file", type=pathlib.Path, metavar="FILE")
    options = parser.parse_args()
    try:
        new = interface_of(options.cc, options.header)
        old = read(options.file.read_text()) if options.file.exists() else None
    except Unreadable as error:
        sys.exit(f"{options.header} or {options.file}: {error}")
    soname, exported = library_of(options.nm, options.readelf, options.library)
    new["soname", str(soname)] = ""
    absent = sorted(name for kind, name in {**(old or {}), **new} if kind == "function" and name not in exported)
    for name in absent:
        print(f"{options.library.name} does not export {name}")
    if absent:
        sys.exit(1)
    breaks, additions = compare(old, new) if old is not None else ([], ["everything: there is no file"])
    if not breaks and not additions:
        print(f"{len(new)} entries of {options.file.name} are those of the header and the library")
        return
    if old is not None:
        before, after = (text.splitlines(True) for text in (options.file.read_text(), write(new)))
        sys.stdout.writelines(difflib.unified_diff(before, after, str(options.file), f"what {options.header} says"))
    for sentence in breaks:
        print(f"BREAKS PROGRAMS  {sentence}")
    for sentence in additions:
        print(f"new              {sentence}")
    if breaks:
        sys.stdout.flush()
        sys.exit("Programs built against an earlier header would go wrong. Such a change needs a new soname; --update "
                 "does not take it.")
    if not options.update:
        sys.stdout.flush()
        sys.exit("Only additions. To accept them, commit what this command writes:\n"
                 f"  python3 {' '.join(sys.argv)} --update")
    options.file.write_text(write(new))
    print(f"{options.file} is written anew")


if __name__ == "__main__":
    main()
