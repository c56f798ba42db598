#!/usr/bin/env python3
"""Writes src/text/unicode_sets.inc: what character properties mean to the reference tokenizers.

The reference library (Python `tokenizers`) carries its own Unicode tables, newer or older than
those of PCRE2 and utf8proc. Each row holds a set as PCRE2 class items plus the code points that
PCRE2's own tables miss, found by asking the reference about every code point.

Usage: make_unicode_sets.py > src/text/unicode_sets.inc     (needs: pip install tokenizers)
"""
import ctypes
import sys

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
ALL = "".join(map(chr, CODE_POINTS))

pcre = ctypes.CDLL("libpcre2-8.so.0")
for name in ("pcre2_compile_8", "pcre2_match_data_create_8", "pcre2_get_ovector_pointer_8"):
    getattr(pcre, name).restype = ctypes.c_void_p
UTF, UCP, NO_UTF_CHECK = 0x00080000, 0x00020000, 0x40000000


def pcre_version():
    buffer = ctypes.create_string_buffer(64)
    pcre.pcre2_config_8(11, buffer)
    version = buffer.value.decode()
    pcre.pcre2_config_8(10, buffer)
    return f"{version}, Unicode {buffer.value.decode()}"


def pcre_set(items):
    pattern = f"[{items}]+".encode()
    error, offset = ctypes.c_int(), ctypes.c_size_t()
    code = pcre.pcre2_compile_8(pattern, ctypes.c_size_t(len(pattern)), UTF | UCP,
                                ctypes.byref(error), ctypes.byref(offset), None)
    if not code:
        raise SystemExit(f"PCRE2 refuses {pattern!r}: error {error.value} at {offset.value}")
    data = pcre.pcre2_match_data_create_8(1, None)
    subject = ALL.encode()
    found, start = set(), 0
    while pcre.pcre2_match_8(ctypes.c_void_p(code), subject, ctypes.c_size_t(len(subject)),
                             ctypes.c_size_t(start), NO_UTF_CHECK, ctypes.c_void_p(data),
                             None) > 0:
        pair = ctypes.cast(pcre.pcre2_get_ovector_pointer_8(ctypes.c_void_p(data)),
                           ctypes.POINTER(ctypes.c_size_t))
        found |= set(map(ord, subject[pair[0]:pair[1]].decode()))
        start = pair[1]
    return found


def pre_tokenizer_set(splitter):
    """Code points that a pre-tokenizer removes or isolates, asked for between two letters."""
    found = set()
    for c in CODE_POINTS:
        if len(splitter.pre_tokenize_str("a" + chr(c) + "a")) > 1:
            found.add(c)
    return found


def regex_set(pattern):
    left = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(ALL)
    return set(CODE_POINTS) - set(map(ord, "".join(part for part, _ in left)))


def ranges(code_points):
    out = []
    for c in sorted(code_points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def items_of(code_points):
    return "".join(f"\\\\x{{{a:x}}}" + (f"-\\\\x{{{b:x}}}" if b > a else "")
                   for a, b in ranges(code_points))


CATEGORIES = """L Letter;Lu Uppercase_Letter;Ll Lowercase_Letter;Lt Titlecase_Letter;
Lm Modifier_Letter;Lo Other_Letter;M Mark;Mn Nonspacing_Mark;Mc Spacing_Mark;Me Enclosing_Mark;
N Number;Nd Decimal_Number;Nl Letter_Number;No Other_Number;P Punctuation;Pc Connector_Punctuation;
Pd Dash_Punctuation;Ps Open_Punctuation;Pe Close_Punctuation;Pi Initial_Punctuation;
Pf Final_Punctuation;Po Other_Punctuation;S Symbol;Sm Math_Symbol;Sc Currency_Symbol;
Sk Modifier_Symbol;So Other_Symbol;Z Separator;Zs Space_Separator;Zl Line_Separator;
Zp Paragraph_Separator;Cc Control;Cf Format"""
SCRIPTS = """Arabic Armenian Bengali Bopomofo Common Cyrillic Devanagari Ethiopic Georgian Greek
Gujarati Gurmukhi Han Hangul Hebrew Hiragana Inherited Kannada Katakana Khmer Lao Latin Malayalam
Mongolian Myanmar Oriya Sinhala Tamil Telugu Thai Tibetan Yi"""
SPACE = r"\x09-\x0d\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
NOT_SPACE = (r"\x00-\x08\x0e-\x1f\x21-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}"
             r"\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}"
             r"\x{3001}-\x{10ffff}")
WORD = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}"
# The names a pattern may use, PCRE2's items, the reference's spelling. ASCII stands first where it is
# common: PCRE2 finds it in a bitmap.
FAST = {"L": r"A-Za-z\p{L}", "N": r"0-9\p{N}"}
ROWS = [(names, FAST.get(names.split()[0], rf"\p{{{names.split()[0]}}}"),
         rf"\p{{{names.split()[0]}}}") for names in CATEGORIES.replace("\n", "").split(";")]
ROWS += [(name, rf"\p{{sc:{name}}}", rf"\p{{{name}}}") for name in SCRIPTS.split()]
ROWS += [
    ("Alphabetic Alpha", r"A-Za-z\p{Alphabetic}", r"\p{Alphabetic}"),
    ("Uppercase Upper", r"\p{Uppercase}", r"\p{Uppercase}"),
    ("Lowercase Lower", r"\p{Lowercase}", r"\p{Lowercase}"),
    ("White_Space Space", SPACE, r"\s"),
    ("#not_space", NOT_SPACE, r"\S"),  # an item of a bracket, where [^...] cannot stand
    ("Digit", r"\p{Nd}", r"\d"),
    ("Alnum", r"A-Za-z0-9\p{Alphabetic}\p{Nd}", r"\p{Alnum}"),
    ("Word", "A-Za-z0-9_" + WORD, r"\w"),
    # Inside of brackets, Oniguruma does not count U+00B2, U+00BD and four others.
    ("#bracket_word", "A-Za-z0-9_" + WORD, r"[\w]"),
    ("Punct", r"\p{P}\p{S}", r"[[:punct:]]"),
    ("XDigit", "0-9A-Fa-f", r"\p{XDigit}"),
    ("ASCII", r"\x00-\x7f", r"\p{ASCII}"),
    ("Any", r"\x{0}-\x{10ffff}", r"\p{Any}"),
]
# Sets of the reference's own code, not of its regex engine: names no pattern can spell.
BUILT_IN = [
    ("#word", "A-Za-z0-9_" + WORD + r"\x{200c}\x{200d}",
     lambda: regex_crate_word()),
    ("#numeric", r"0-9\p{N}", lambda: pre_tokenizer_set(pre_tokenizers.Digits(True))),
    ("#punctuation", r"!-/:-@\[-`{-~\p{P}",
     lambda: pre_tokenizer_set(pre_tokenizers.Punctuation("isolated"))),
    ("#combining", r"\p{M}",
     lambda: {c for c in CODE_POINTS if normalizers.StripAccents().normalize_str(chr(c)) == ""}),
]


def regex_crate_word():
    splitter = pre_tokenizers.Whitespace()
    return {c for c in CODE_POINTS if splitter.pre_tokenize_str("a" + chr(c) + "a")
            == [("a" + chr(c) + "a", (0, 3))]}


def literal(text):
    """C++ string literals of at most 90 columns, cut between items."""
    lines = []
    while len(text) > 80:
        cut = text.rindex("\\\\x", 0, 80)
        cut = text.rindex("\\\\x", 0, cut) if text[cut - 1] == "-" else cut
        lines.append(text[:cut])
        text = text[cut:]
    return "\n     ".join(f'"{line}"' for line in lines + [text])


def emit(name, items, wanted):
    have = pcre_set(items)
    missing, extra = wanted - have, have - wanted
    shown = items.replace("\\", "\\\\")
    print(f'    {{"{name}", {literal(shown) if len(shown) > 80 else chr(34) + shown + chr(34)},'
          f"\n     {literal(items_of(missing))},\n     {literal(items_of(extra))}}},")
    print(f"{name}: {len(have)} in PCRE2, {len(missing)} missing, {len(extra)} too many",
          file=sys.stderr)


class Property(ctypes.Structure):  # utf8proc_property_t of utf8proc 2.8, its first fields
    _fields_ = [("category", ctypes.c_int16), ("combining_class", ctypes.c_int16),
                ("bidi_class", ctypes.c_int16), ("decomp_type", ctypes.c_int16),
                ("decomp_seqindex", ctypes.c_uint16)]


def utf8proc_differences():
    """(code points whose decomposition or order newer tables changed, lower case pairs)."""
    lib = ctypes.CDLL("libutf8proc.so.2")
    lib.utf8proc_get_property.restype = ctypes.POINTER(Property)
    nfd, nfkd = normalizers.NFD(), normalizers.NFKD()
    lower = normalizers.Lowercase()
    buffer = (ctypes.c_int32 * 64)()
    opaque, pairs = set(), []

    def decomposed(c, options):
        n = lib.utf8proc_decompose_char(c, buffer, 64, options, None)
        return "".join(chr(buffer[i]) for i in range(n))

    for c in CODE_POINTS:
        # UTF8PROC_DECOMPOSE, and with UTF8PROC_COMPAT
        if decomposed(c, 16) != nfd.normalize_str(chr(c)) or decomposed(
                c, 16 | 4) != nfkd.normalize_str(chr(c)):
            opaque.add(c)
        order = lib.utf8proc_get_property(c).contents.combining_class
        neighbour = "\u0315" if order < 232 else "\u0301"  # classes 232 and 230
        text = "a" + (neighbour + chr(c) if order < 232 else chr(c) + neighbour)
        swapped = "a" + text[:0:-1]
        moved = nfd.normalize_str(text) == swapped and nfd.normalize_str(chr(c)) == chr(c)
        if moved != (order != 0) and nfd.normalize_str(chr(c)) == chr(c):
            opaque.add(c)
        want = lower.normalize_str(chr(c))
        if want != chr(lib.utf8proc_tolower(c)):
            pairs.append((c, want))
    return opaque, pairs


HEAD = """// Written by tools/make_unicode_sets.py; data only. Meaning: unicode_sets.h.
// tokenizers {}; PCRE2 {}; utf8proc {}.
#include "text/unicode_sets.h"

namespace mantissa {{

// clang-format off
namespace {{
constexpr CharSet kSets[] = {{"""


def main():
    lib = ctypes.CDLL("libutf8proc.so.2")
    lib.utf8proc_version.restype = ctypes.c_char_p
    print(HEAD.format(tokenizers.__version__, pcre_version(), lib.utf8proc_version().decode()))
    for name, items, pattern in ROWS:
        emit(name, items, regex_set(pattern))
    for name, items, ask in BUILT_IN:
        emit(name, items, ask())
    opaque, pairs = utf8proc_differences()
    print("};\n\nconstexpr CodePointRange kOpaque[] = {")
    for a, b in ranges(opaque):
        print(f"    {{0x{a:x}, 0x{b:x}}},")
    print("};\n\nconstexpr LowerCase kLower[] = {")
    for c, want in pairs:
        text = "".join(f"\\x{byte:02x}" for byte in want.encode())
        print(f'    {{0x{c:x}, "{text}"}},')
    print("""};
}  // namespace
// clang-format on

std::span<const CharSet> char_sets() {
  return kSets;
}
std::span<const CodePointRange> opaque_to_normalization() {
  return kOpaque;
}
std::span<const LowerCase> special_lower_case() {
  return kLower;
}

}  // namespace mantissa""")


if __name__ == "__main__":
    main()
