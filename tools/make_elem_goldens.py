#!/usr/bin/env python3
"""Golden values of every element format, by ml_dtypes and numpy: tests/golden/elem/elem.txt.

Lines, each followed by `count` tokens:
  decode NAME count            float32 bits (hex) of the value of code 0, 1, ...; nan or -nan
  encode NAME saturate count   pairs float32 bits, code: saturating conversion
  encode NAME infinity count   the same where overflow becomes infinity
Formats of 16 bits have hashes (FNV-1a, 64 bits, over little-endian 32-bit words) instead:
  decode_hash NAME count hash         of all codes' values, NaN as 7fc00000 with its sign
  encode_hash NAME saturate count hash  of the codes of 16-bit inputs(): see inputs_of_code()

Integers that neither library has follow the formula of two's complement.
Usage: tools/make_elem_goldens.py
"""
import pathlib
import warnings

import ml_dtypes
import numpy as np

warnings.simplefilter("ignore")
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/elem/elem.txt"

# name, type, bits, has a sign, overflow becomes infinity
FLOATS = [
    ("e4m3fn", ml_dtypes.float8_e4m3fn, 8, True, False),
    ("e5m2", ml_dtypes.float8_e5m2, 8, True, True),
    ("e4m3fnuz", ml_dtypes.float8_e4m3fnuz, 8, True, False),
    ("e5m2fnuz", ml_dtypes.float8_e5m2fnuz, 8, True, False),
    ("e8m0", ml_dtypes.float8_e8m0fnu, 8, False, False),
    ("e3m2", ml_dtypes.float6_e3m2fn, 6, True, False),
    ("e2m3", ml_dtypes.float6_e2m3fn, 6, True, False),
    ("e2m1", ml_dtypes.float4_e2m1fn, 4, True, False),
]
INTS = {
    "int1": ml_dtypes.int1, "int2": ml_dtypes.int2, "int4": ml_dtypes.int4, "int8": np.int8,
    "uint1": ml_dtypes.uint1, "uint2": ml_dtypes.uint2, "uint4": ml_dtypes.uint4, "uint8": np.uint8,
}
HALVES = [("f16", np.float16), ("bf16", ml_dtypes.bfloat16)]


def bits_of(x):
    return np.asarray(x, np.float32).view(np.uint32)


def fnv(words):
    h = 0xCBF29CE484222325
    for byte in np.asarray(words, "<u4").tobytes():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def decoded(kind, bits):
    codes = np.arange(1 << bits, dtype=np.uint8)
    return codes.view(kind).astype(np.float32)


def encoded(kind, x, mask):
    codes = x.astype(np.float32).astype(kind).view(np.uint8) & mask
    if kind == ml_dtypes.float8_e8m0fnu:
        # ml_dtypes 0.6 rounds every float32 subnormal above 2^-127 up; to nearest it is:
        nearest = np.where(x.astype(np.float64) < 1.5 * 2.0**-127, 0, 1)
        codes = np.where(np.abs(x) < np.float32(2.0**-126), nearest, codes)
    return codes


def neighbours(x):
    return [np.nextafter(x, np.float32(-np.inf)), x, np.nextafter(x, np.float32(np.inf))]


def encode_inputs(values, signed):
    """Every finite value, every midpoint with its float32 neighbours, overflow, underflow, zeros,
    infinities, NaN where the format has it."""
    v = np.unique(values[np.isfinite(values)]).astype(np.float32)
    middles = ((v[1:].astype(np.float64) + v[:-1]) / 2).astype(np.float32)
    top = np.float64(v[-1])
    step = top - np.float64(v[-2])
    beyond = np.array([top + step / 2, top + step, 2 * top, 3.4e38], np.float64)
    beyond = np.minimum(beyond, np.finfo(np.float32).max).astype(np.float32)
    least = np.abs(v[v != 0]).min()
    tiny = np.float32([1e-45, 1.1754944e-38, least / 2, least / 4])
    near = np.concatenate([np.concatenate(neighbours(part)) for part in (middles, beyond, tiny)])
    x = np.concatenate([v, near, np.float32([0.0, np.inf])])
    if np.isnan(values).any():
        x = np.append(x, np.float32(np.nan))
    x = np.concatenate([x, -x])
    if not signed:
        x = x[~np.signbit(x)]
    return x[np.sort(np.unique(x.view(np.uint32), return_index=True)[1])]


def write_pairs(out, name, mode, x, codes):
    out.append(f"encode {name} {mode} {len(x)}")
    tokens = [f"{b:08x} {int(c):02x}" for b, c in zip(bits_of(x), codes)]
    out.extend("  ".join(tokens[i : i + 8]) for i in range(0, len(tokens), 8))


def write_values(out, name, values):
    out.append(f"decode {name} {len(values)}")
    words = []
    for v, b in zip(values, bits_of(values)):
        words.append(("-nan" if b >> 31 else "nan") if np.isnan(v) else f"{b:08x}")
    out.extend(" ".join(words[i : i + 16]) for i in range(0, len(words), 16))


def floats(out):
    for name, kind, bits, signed, infinity in FLOATS:
        values = decoded(kind, bits)
        write_values(out, name, values)
        x = encode_inputs(values, signed)
        top = values[np.isfinite(values)].max()
        # e8m0 has no zero: what lies below its least value becomes that, as the header says.
        bottom = -top if signed else values[np.isfinite(values)].min()
        mask = (1 << bits) - 1
        write_pairs(out, name, "saturate", x, encoded(kind, np.clip(x, bottom, top), mask))
        if infinity:
            write_pairs(out, name, "infinity", x, encoded(kind, x, mask))


def integers(out):
    for bits in range(1, 9):
        for prefix in ("int", "uint"):
            name = f"{prefix}{bits}"
            codes = np.arange(1 << bits)
            lo = -(1 << (bits - 1)) if prefix == "int" else 0
            values = np.where(codes >= lo + (1 << bits), codes - (1 << bits), codes) if lo else codes
            if name in INTS:
                theirs = decoded(INTS[name], bits)
                assert (theirs == values).all(), name
            write_values(out, name, values.astype(np.float32))
            x = encode_inputs(values.astype(np.float32), True)
            rounded = np.clip(np.rint(x.astype(np.float64)), lo, lo + (1 << bits) - 1)
            write_pairs(out, name, "saturate", x, rounded.astype(np.int64) & ((1 << bits) - 1))


def inputs_of_code(values):
    """16-bit formats: for each finite code c >= 0: its value, then the midpoint to the next value
    (beyond the largest: as if the exponent went on) with its float32 neighbours below and above;
    then the same negated."""
    v = values[np.isfinite(values) & ~np.signbit(values)].astype(np.float64)
    following = np.append(v[1:], 2 * v[-1] - v[-2])
    middle = ((v + following) / 2).astype(np.float32)
    below, middle, above = neighbours(middle)
    x = np.stack([v.astype(np.float32), below, middle, above], 1).reshape(-1)
    return np.concatenate([x, -x])


def halves(out):
    for name, kind in HALVES:
        codes = np.arange(1 << 16, dtype=np.uint16)
        values = codes.view(kind).astype(np.float32)
        words = np.where(np.isnan(values), (bits_of(values) & 0x80000000) | 0x7FC00000, bits_of(values))
        out.append(f"decode_hash {name} {len(words)} {fnv(words)}")
        x = inputs_of_code(values)
        top = values[np.isfinite(values)].max()
        for mode, y in (("saturate", np.clip(x, -top, top)), ("infinity", x)):
            theirs = y.astype(kind).view(np.uint16)
            out.append(f"encode_hash {name} {mode} {len(theirs)} {fnv(theirs)}")


def main():
    out = [f"# tools/make_elem_goldens.py, ml_dtypes {ml_dtypes.__version__}, numpy {np.__version__}"]
    floats(out)
    integers(out)
    halves(out)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("\n".join(out) + "\n")
    print(OUT.name, OUT.stat().st_size, "bytes")


main()
