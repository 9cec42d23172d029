"""The randomness contract written a second time, from the text of docs/maths.md alone: pure Python, exact integers.

Recomputes every line of known_answers.inc and compares to the bit, so that the document is proven sufficient to
reimplement the draws. usage: reference_draws.py [FILE] [--write]     (--write puts the computed answers into FILE)
"""
import pathlib
import re
import struct
import sys
from fractions import Fraction


def round32(exact):
    """An exact number to the nearest float32, ties to even, as an exact number."""
    exponent = -149
    while abs(exact) >= Fraction(2) ** (exponent + 24):
        exponent += 1
    return round(exact / Fraction(2) ** exponent) * Fraction(2) ** exponent  # Python rounds ties to even


def bits(exact):
    return struct.unpack("<I", struct.pack("<f", float(exact)))[0]


def from_bits(word):
    return Fraction(struct.unpack("<f", struct.pack("<I", word))[0])


def fma(a, b, c):
    return round32(a * b + c)


def horner(coefficients, x):
    p = Fraction(float(coefficients[0]))
    for c in coefficients[1:]:
        p = fma(p, x, Fraction(float(c)))
    return p


def square_root(value):
    """Correctly rounded: the float32 whose neighbouring midpoints enclose the root."""
    guess = bits(Fraction(float(value) ** 0.5))
    for candidate in (guess, guess - 1, guess + 1):
        low = (from_bits(candidate - 1) + from_bits(candidate)) / 2 if candidate else Fraction(0)
        high = (from_bits(candidate) + from_bits(candidate + 1)) / 2
        if low * low <= value <= high * high:
            return from_bits(candidate)
    raise ArithmeticError("no root")


def philox(c0, c1, c2, c3, k0, k1):
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def block(seed, offset, stream, index):
    counter = (stream << 56 | index) << 64 | offset // 4
    words = [counter >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96)]
    return philox(*words, seed & 0xFFFFFFFF, seed >> 32)


LOG2 = ("0.12583564221858978 -0.20726905763149261 0.21571579575538635 -0.23894493281841278 0.28791624307632446 "
        "-0.3607036769390106 0.48091062903404236 -0.7213473320007324 1.4426950216293335").split()
EXP2 = ("0.00015403538418468088 0.0013390735257416964 0.009618237614631653 0.05550357326865196 0.24022649228572845 "
        "0.6931471824645996").split()
SINPI = ("-0.00702216662466526 0.08204647898674011 -0.5992513298988342 2.5501632690429688 -5.167712688446045 "
         "3.1415927410125732").split()


def beta_from_uniforms(u, x, inv_alpha):
    shifted = (bits(u) - 0x3F3504F3) & 0xFFFFFFFF
    exponent = (shifted >> 23) - (512 if shifted >> 31 else 0)
    f = from_bits((shifted & 0x7FFFFF) + 0x3F3504F3) - 1
    log2 = fma(horner(LOG2, f), f, exponent)
    t = min(Fraction(100), round32(-log2 * inv_alpha))
    r = round(t)
    f = t - r
    p = horner(EXP2, f)
    scale = Fraction(2) ** r
    e = fma(scale, round32(p * f), round32(scale - 1))
    s = round32(horner(SINPI, round32(x * x)) * x)
    y = round32(e * round32(s * s))
    h = round32(square_root(round32(y / round32(1 + y))) / 2)
    return round32(Fraction(1, 2) - h if x < 0 else Fraction(1, 2) + h)


def inverse(alpha):
    return round32(1 / round32(Fraction(alpha)))


def beta(r0, r1, alpha):
    u, v = (Fraction(2 * (word >> 9) + 1, 2**24) for word in (r0, r1))
    return beta_from_uniforms(u, v - Fraction(1, 2), inverse(alpha))


def beta16(word, alpha):
    u, v = (Fraction(2 * half + 1, 2**17) for half in (word >> 16, word & 0xFFFF))
    return beta_from_uniforms(u, v - Fraction(1, 2), inverse(alpha))


def shifted(draw, shift):
    return bits(round32(draw + Fraction(shift)))


def lambda_row(seed, offset, stream, alpha, shift, row):
    words = block(seed, offset, stream, row)
    return shifted(beta(words[0], words[1], alpha), shift)


def lambda_dimension(seed, offset, stream, alpha, shift, dim):
    return shifted(beta16(block(seed, offset, stream, dim // 4)[dim % 4], alpha), shift)


def lambda_element(seed, offset, stream, alpha, shift, row, dim, d):
    words = block(seed, offset, stream, row * ((d + 3) // 4) + dim // 4)
    return shifted(beta16(words[dim % 4], alpha), shift)


def feistel_pass(seed, offset, index, size, x, inverse_order=False):
    words = [w for part in range(4) for w in block(seed, offset, 3, 4 * index + part)]
    width = max(8, (size - 1).bit_length())
    left_bits, right_bits = width // 2, width - width // 2
    left, right = x >> right_bits, x & ((1 << right_bits) - 1)
    for i in reversed(range(8)) if inverse_order else range(8):
        a, b = words[2 * i] | 1, words[2 * i + 1]
        if i % 2 == 0:
            right ^= ((a * left + b) & 0xFFFFFFFF) >> (32 - right_bits)
        else:
            left ^= ((a * right + b) & 0xFFFFFFFF) >> (32 - left_bits)
    return left << right_bits | right


def sigma(seed, offset, index, size, i, inverse_order=False):
    i = feistel_pass(seed, offset, index, size, i, inverse_order)
    while i >= size:
        i = feistel_pass(seed, offset, index, size, i, inverse_order)
    return i


def cycle(size, i):
    order = (0, 1, 8, 9)
    base = i & ~9
    position = order.index(i & 9)
    while True:
        position = (position + 1) % 4
        if base + order[position] < size:
            return base + order[position]


def permutation(seed, offset, index, size, j):
    return sigma(seed, offset, index, size, cycle(size, sigma(seed, offset, index, size, j, True)))


def permutation_global(seed, offset, perm_block, k_global, column):
    width = perm_block or k_global
    index = column // width
    first = index * width
    return first + permutation(seed, offset, index, min(width, k_global - first), column - first)


ANSWERS = {
    "PHILOX": philox,
    "BLOCK": block,
    "BETA": lambda r0, r1, alpha: bits(beta(r0, r1, alpha)),
    "BETA16": lambda word, alpha: bits(beta16(word, alpha)),
    "LAMBDA_CALL": lambda *numbers: lambda_row(*numbers, 0),
    "LAMBDA_ROW": lambda_row,
    "LAMBDA_DIMENSION": lambda_dimension,
    "LAMBDA_ELEMENT": lambda_element,
    "SIGMA": sigma,
    "CYCLE": cycle,
    "PI": permutation,
    "PI_GLOBAL": permutation_global,
}


def number(text):
    return float(text) if re.search(r"^[^x]*[.e]", text) else int(text, 0)


def main():
    paths = [a for a in sys.argv[1:] if not a.startswith("--")]
    path = pathlib.Path(paths[0]) if paths else pathlib.Path(__file__).with_name("known_answers.inc")
    wrong = checked = 0
    lines = path.read_text().splitlines()
    for row, line in enumerate(lines):
        match = re.match(r"^([A-Z0-9_]+)\((.*?), =, (.*)\)$", line.replace(" ANSWER(", " =, ").replace("))", ")"))
        if not match:
            continue
        name, given, expected = match.group(1), match.group(2), match.group(3)
        answer = ANSWERS[name](*[number(n) for n in given.split(", ")])
        answer = answer if isinstance(answer, tuple) else (answer,)
        checked += 1
        if "--write" in sys.argv:
            form = str if name in ("SIGMA", "CYCLE", "PI", "PI_GLOBAL") else "0x{:08X}".format
            lines[row] = f"{name}({given}, ANSWER({', '.join(form(n) for n in answer)}))"
        elif expected == "" or answer != tuple(number(n) for n in expected.split(", ")):
            wrong += 1
            print(f"{path.name}:{row + 1}: {line}\n  computed {', '.join(map(hex, answer))}")
    if "--write" in sys.argv:
        path.write_text("\n".join(lines) + "\n")
    print(f"{checked} known answers, {wrong} wrong")
    return 1 if wrong or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
