#!/usr/bin/env python3
"""Golden codes and scales of every scheme row and recipe: tests/golden/schemes/*.txt.

Written from the published conventions with numpy and ml_dtypes, without looking at the C++ side;
where compressed-tensors is installed, the recipe `ct` is also compared with the library itself.
float32 arithmetic throughout: numpy rounds each operation once, as the C++ code does.

Differences from the systems that a recipe is named after, all in degenerate blocks:
  - vLLM and torchao divide by 0 on all-zero tensors or rows; here such scales have a floor
  - vLLM's dynamic azp does not force 0 into the range; here it does (its constant rows are NaN)
  - a scale below 2^-126 counts as zero
torch's own bf16 division and multiplication round once from float32, as here.

Files: inputs.txt (matrices, hexadecimal bits), weights.txt and activations.txt (cases).
Usage: tools/make_scheme_goldens.py
"""
import argparse
import pathlib
import warnings

import ml_dtypes
import numpy as np

warnings.simplefilter("ignore")
ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tests/golden/schemes"
F32 = np.float32
TINY = np.finfo(F32).tiny
HUGE = np.finfo(F32).max
EPS = np.finfo(F32).eps
DTYPES = {"bf16": ml_dtypes.bfloat16, "f16": np.float16, "f32": np.float32}
KINDS = {
    "e4m3fn": (ml_dtypes.float8_e4m3fn, 448.0, 8),
    "e3m2": (ml_dtypes.float6_e3m2fn, 28.0, 6),
    "e2m3": (ml_dtypes.float6_e2m3fn, 7.5, 6),
    "e2m1": (ml_dtypes.float4_e2m1fn, 6.0, 4),
}
MAN_BITS = {"e4m3fn": 3, "e3m2": 2, "e2m3": 3, "e2m1": 1}
ALL = None


# ---- conversions


def rounded(dtype, x):
    """To a storage format and back."""
    return np.asarray(x, F32).astype(DTYPES[dtype]).astype(F32)


def scale_to(dtype, x):
    """The same for scales, saturating."""
    top = F32(ml_dtypes.finfo(DTYPES[dtype]).max)
    return rounded(dtype, np.minimum(F32(x), top))


def float_codes(elem, v):
    kind, top, _ = KINDS[elem]
    return np.clip(v, F32(-top), F32(top)).astype(F32).astype(kind).view(np.uint8)


def float_value(elem, code):
    return np.uint8(code).view(KINDS[elem][0]).astype(F32)


def e4m3(x):
    return float_value("e4m3fn", float_codes("e4m3fn", F32(x)))


def int_bounds(bits):
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def int_codes(bits, v, zero=0):
    lo, hi = int_bounds(bits)
    q = np.clip(np.rint(np.asarray(v, np.float64)) + zero, lo, hi).astype(np.int64)
    return (q & ((1 << bits) - 1)).astype(np.uint8)


def floor_of(scale, least):
    return F32(scale) if scale >= TINY else F32(least)


# ---- one block: (codes, scale, zero point or None)


def amax_of(x):
    return F32(np.abs(x).max())


def fp8_block(x, c):
    m, top = amax_of(x), F32(448)
    least = F32(1) / F32(448 * 512)
    recipe, scope = c["recipe"], c["scope"]
    if recipe == "vllm" and scope == "row":
        s = max(F32(m / top), least)
        return float_codes("e4m3fn", x / s), s, None
    if recipe == "vllm" and scope == "tensor":
        s = floor_of(m / top, least)
        return float_codes("e4m3fn", x * (F32(1) / s)), s, None
    if recipe == "vllm":
        s = F32(max(m, F32(1e-10)) / top)
        return float_codes("e4m3fn", x / s), s, None
    dtype = c["dtype"]
    if recipe == "autofp8":
        r = scale_to(dtype, top / max(m, rounded(dtype, 1e-12)))
        return float_codes("e4m3fn", rounded(dtype, x * r)), F32(1) / r, None
    if recipe == "torchao":
        s = floor_of(scale_to(dtype, m / top), least)
        return float_codes("e4m3fn", x / s), s, None
    if recipe == "ct":
        s = floor_of(scale_to(dtype, m / top), ml_dtypes.finfo(DTYPES[dtype]).eps)
        return float_codes("e4m3fn", rounded(dtype, x / s)), s, None
    assert recipe == "modelopt"
    s = floor_of(m / top, least)
    return float_codes("e4m3fn", x / s), s, None


def int_range(x):
    return F32(min(x.min(), 0)), F32(max(x.max(), 0))


def step_of(lo, hi, steps):
    s = (hi - lo) / F32(steps)
    return s if np.isfinite(s) else F32(hi / F32(steps)) - F32(lo / F32(steps))


def int_block(x, c):
    bits, recipe, dtype, fmt = c["bits"], c["recipe"], c["dtype"], c["scale"]
    low, high = int_bounds(bits)
    steps = F32(high - low)
    mn, mx = int_range(x)
    m = amax_of(x)
    if recipe == "ct":
        eps = ml_dtypes.finfo(DTYPES[dtype]).eps
        exact = scale_to(dtype, mx - mn) / steps if c["asym"] else m / F32(steps / 2)
        s = floor_of(scale_to(fmt, scale_to(dtype, exact)), eps)
        v = rounded(dtype, x / s)
        if not c["asym"]:
            return int_codes(bits, v), s, None
        z = rounded(dtype, F32(low) - rounded(dtype, mn / s))
        z = int(np.rint(np.clip(z, low, high)))
        v = rounded(dtype, v + F32(z))
        return int_codes(bits, np.clip(v, low, high)), s, z
    if recipe == "torchao" and bits == 8:
        s = max(step_of(mn, mx, 255) if c["asym"] else F32(m / F32(127.5)), EPS)
        z = int(np.clip(low - np.rint(mn / s), low, high)) if c["asym"] else None
        return int_codes(bits, x * (F32(1) / s), z or 0), s, z
    if c["asym"]:
        s = floor_of(scale_to(fmt, step_of(mn, mx, steps)), EPS)
        z = int(np.clip(low - np.rint(mn / s), low, high))
        return int_codes(bits, x / s, z), s, z
    divisor = {"vllm": 127 if bits == 8 else steps / 2, "torchao": 8, "modelopt": high}[recipe]
    s = floor_of(scale_to(fmt, m / F32(divisor)), EPS)
    return int_codes(bits, x / s), s, None


def exponent(x):
    return int(F32(x).view(np.uint32) >> 23) - 127


def ceil_exponent(x):
    b = int(F32(x).view(np.uint32))
    field, mantissa = b >> 23, b & 0x7FFFFF
    return field - 127 + (1 if mantissa > (0x400000 if field == 0 else 0) else 0)


def mx_block(x, c):
    m, elem = amax_of(x), c["elem"]
    top = F32(KINDS[elem][1])
    emax = int(np.floor(np.log2(top)))
    recipe = c["recipe"]
    if recipe == "floor":
        e = exponent(m) - emax
    elif recipe in ("even", "ct"):
        half = 1 << (23 - (MAN_BITS[elem] if recipe == "even" else 1) - 1)
        e = exponent((m.view(np.uint32) + np.uint32(half)).astype(np.uint32).view(F32)) - emax
    elif recipe == "rceil":
        e = ceil_exponent(m * (F32(1) / top))
    else:
        e = ceil_exponent(m / top)
    e = int(np.clip(e, -127, 127))
    v = (x.astype(np.float64) * 2.0 ** -e).astype(F32)
    s = F32(2.0**e)
    if recipe != "modelopt":
        return float_codes(elem, v), s, None
    bounds = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], F32)
    count = (np.abs(v)[..., None] > bounds).sum(-1)
    return (count + np.where(v > 0, 0, 8)).astype(np.uint8), s, None


def nvfp4_global(w, c):
    m = amax_of(w)
    if c["recipe"] == "ct":
        g = F32(2688) / m
        c["G"] = g if g <= F32(2.0**120) else F32(1)
        return F32(1) / c["G"]
    g = F32(m / F32(2688))
    return g if g >= F32(2.0**-120) else F32(1)


def nvfp4_block(x, c):
    m, g = amax_of(x), c["global"]
    if c["recipe"] == "torchao":
        s = e4m3(np.clip(F32(m / F32(6)) / g, F32(2.0**-6), F32(448)))
        return float_codes("e2m1", x * (F32(F32(1) / g) / s)), s, None
    if c["recipe"] == "modelopt":
        s = e4m3(m / F32(F32(6) * g))
        s = s if s > 0 else F32(1)
        return float_codes("e2m1", x / F32(s * g)), s, None
    big = F32(1) / g if c["when"] == "static" else c["G"]
    s = e4m3(big * rounded(c["dtype"], m / F32(6)))
    s = s if s > 0 else F32(0.125)
    return float_codes("e2m1", x / F32(s / big)), s, None


def int8_token(x, c):
    """vLLM's dynamic activations."""
    if c["asym"]:
        mn, mx = int_range(x)
        s = floor_of(step_of(mn, mx, 255), EPS)
        z = int(np.clip(np.rint(F32(-128) - F32(mn / s)), -128, 127))
        return int_codes(8, x * (F32(1) / s), z), s, z
    m = amax_of(x)
    s = F32(m / F32(127))
    if s < TINY:
        return int_codes(8, x * (F32(1) / EPS)), EPS, None
    return int_codes(8, x * (F32(127) / m)), s, None


def given(x, c):
    """Static activations."""
    s, z = c["given"]
    if c["family"] == "fp8":
        return float_codes("e4m3fn", x * (F32(1) / s)), s, None
    if c["asym"]:
        return int_codes(8, x * (F32(1) / s), z), s, z
    return int_codes(8, np.clip(x / s, -1000, 1000)), s, None


def codebook_block(x, bits):
    """Quantile start, at most 20 Lloyd steps in float64, entries in bf16; lower entry at ties."""
    values = np.sort(x.astype(np.float64).reshape(-1) + 0.0)
    k, n = 1 << bits, len(values)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    c = np.array([values[(2 * j + 1) * n // (2 * k)] for j in range(k)])
    for _ in range(20):
        middles = c[:-1] + (c[1:] - c[:-1]) / 2
        ends = np.append(np.searchsorted(values, middles, side="right"), n)
        new, first = c.copy(), 0
        for j in range(k):
            if ends[j] > first:
                new[j] = (sums[ends[j]] - sums[first]) / (ends[j] - first)
                first = ends[j]
        settled = (new == c).all()
        c = new
        if settled:
            break
    entries = np.sort(c).astype(ml_dtypes.bfloat16).astype(np.float64)
    middles = entries[:-1] + (entries[1:] - entries[:-1]) / 2
    codes = (x.astype(np.float64)[..., None] > middles).sum(-1).astype(np.uint8)
    return codes, entries.astype(F32)


# ---- a matrix


def tiles(shape, block):
    rows = shape[0] if block[0] is ALL else block[0]
    cols = shape[1] if block[1] is ALL else block[1]
    for r in range(0, shape[0], rows):
        for c in range(0, shape[1], cols):
            yield slice(r, r + rows), slice(c, c + cols)


def quantize(w, c):
    codes = np.zeros(w.shape, np.uint8)
    scales, zeros, books = [], [], []
    c = dict(c)
    if c["family"] == "nvfp4":
        c["global"] = c.get("given_global") or nvfp4_global(w, c)
    fn = {"fp8": fp8_block, "int": int_block, "mx": mx_block, "nvfp4": nvfp4_block}.get(c["family"])
    if c["when"] == "call" and c["family"] == "int":
        fn = int8_token
    if c["when"] == "static" and c["family"] != "nvfp4":
        fn = given
    for at in tiles(w.shape, c["block"]):
        if c["family"] == "codebook":
            codes[at], book = codebook_block(w[at], c["bits"])
            books += list(book)
            continue
        codes[at], s, z = fn(w[at].astype(F32), c)
        scales.append(F32(s))
        if z is not None:
            zeros.append(z)
    return codes, scales, zeros, books, c.get("global")


# ---- inputs


def inputs():
    rng = np.random.default_rng(20261121)
    k = 136
    i = np.arange(k)
    rows = [
        rng.normal(0, 0.02, k),
        np.zeros(k),
        np.where(i == 77, 10.0, rng.normal(0, 0.01, k)),  # one value dwarfs the rest
        np.where(i % 3 == 0, 1e-39, -3e-40) * (1 + i % 7),  # float32 subnormals
        np.where(i % 2 == 0, 1, -1) * ((i * 37 % 254) / 2 + 0.0),  # int8 ties: amax 126.5
        np.where(i == 0, 127.0, (i % 100) - 49.5),  # ties at scale 1
        np.where(i == 1, 448.0, np.where(i % 2 == 0, 1, -1) * (16 + i % 16) * 2.0 ** (i % 5)),
        -rng.uniform(1, 2, k),  # negative only
        rng.uniform(0.5, 0.75, k),  # positive only
        rng.normal(0, 1, k) * 2.0 ** rng.integers(-20, 7, k),
        np.where(i < 128, 0.0, 0.375 * (i - 131)),  # only the short last group holds anything
        rng.choice([-1.0, 1.0], k) * rng.uniform(2.9e38, 3.3e38, k),  # the largest: rows and groups
    ]
    w = np.stack(rows)
    out = {}
    for dtype in ("bf16", "f16", "f32"):
        top = np.float64(ml_dtypes.finfo(DTYPES[dtype]).max)
        x = np.clip(w, -top, top)
        if dtype == "f16":
            x[3] = w[3] * 2.0**110  # f16 subnormals
        out[dtype] = x.astype(F32).astype(DTYPES[dtype]).astype(F32)
    # A tensor of zeros; and for 128 x 128 tiles a tall one: both exact in any language.
    j = np.arange(130 * 136)
    tall = ((j * 7919 % 2003) - 1001) / 1024 * 2.0 ** (j // 997 % 7)
    out["zeros"] = np.zeros((2, 40), F32)
    out["tall"] = tall.reshape(130, 136).astype(ml_dtypes.bfloat16).astype(F32)
    return out


# ---- cases

INT_ROWS = {1: "int1_weight_only", 2: "int2_weight_only", 3: "int3_weight_only",
            4: "int4_weight_only", 5: "int5_weight_only", 6: "int6_weight_only",
            7: "int7_weight_only"}


def spec(family, block, recipe, dtype="bf16", when="load", **more):
    scope = "tensor" if block == (ALL, ALL) else "row" if block == (1, ALL) else "group"
    return dict(family=family, block=block, recipe=recipe, dtype=dtype, when=when, scope=scope,
                asym=more.pop("asym", False), **more)


def with_recipe(name, recipe, default):
    return name if recipe == default else f"{name}:recipe={recipe}"


def fp8_weights():
    rows = {"fp8": (ALL, ALL), "ptpc_fp8": (1, ALL), "fp8_block": (128, 128)}
    for name, block in rows.items():
        for recipe in ("vllm", "torchao", "ct", "modelopt", "autofp8"):
            if recipe == "autofp8" and name != "fp8":
                continue
            for dtype in ("bf16", "f16", "f32"):
                if dtype == "f16" and recipe in ("vllm", "modelopt"):
                    continue
                yield with_recipe(name, recipe, "vllm"), spec("fp8", block, recipe, dtype)


def int_weights():
    for recipe in ("vllm", "torchao", "ct"):
        for asym in (False, True):
            for dtype in ("bf16", "f16", "f32") if recipe == "ct" else ("bf16", "f32"):
                name = with_recipe("int8_weight_only" + (":asym" if asym else ""), recipe, "vllm")
                yield name, spec("int", (1, ALL), recipe, dtype, bits=8, scale="f32", asym=asym)
    yield "int8_weight_only:g32", spec("int", (1, 32), "vllm", bits=8, scale="f32")
    yield "int8_int8", spec("int", (1, 128), "vllm", bits=8, scale="f32")
    yield "int8_int8:asym", spec("int", (1, 128), "vllm", bits=8, scale="f32", asym=True)
    for group in (32, 64, 128, 256, ALL):
        option = {ALL: ":channel", 128: ""}.get(group, f":g{group}")
        for asym in (False, True):
            name = f"int4_weight_only{option}" + (":asym" if asym else "")
            yield name, spec("int", (1, group), "vllm", bits=4, scale="bf16", asym=asym)
    for dtype in ("bf16", "f16", "f32"):
        for asym in (False, True):
            name = "int4_weight_only:g32" + (":asym" if asym else "") + ":recipe=ct"
            yield name, spec("int", (1, 32), "ct", dtype, bits=4, scale="bf16", asym=asym)
    yield "int4_weight_only:recipe=modelopt", spec("int", (1, 128), "modelopt", bits=4, scale="bf16")
    yield "int4_fp8:recipe=torchao", spec("int", (1, 128), "torchao", bits=4, scale="bf16")
    for bits, name in INT_ROWS.items():
        if bits == 4:
            continue
        default = spec("int", (1, 128), "vllm", bits=bits, scale="bf16", asym=bits == 1)
        yield name, default
        option = ":g32" + (":asym" if bits > 1 else "")
        yield name + option, spec("int", (1, 32), "vllm", bits=bits, scale="bf16", asym=True)


def block_weights():
    for dtype in ("bf16", "f32"):
        for recipe in ("floor", "rceil", "even"):
            for name, elem in (("mxfp8", "e4m3fn"), ("mxfp6", "e3m2"), ("mxfp6:e2m3", "e2m3"),
                               ("mxfp4", "e2m1")):
                yield with_recipe(name, recipe, "floor"), spec("mx", (1, 32), recipe, dtype, elem=elem)
    yield "mxfp8:recipe=ct", spec("mx", (1, 32), "ct", elem="e4m3fn")
    yield "mxfp4:recipe=ct", spec("mx", (1, 32), "ct", elem="e2m1")
    yield "mxfp4:recipe=modelopt", spec("mx", (1, 32), "modelopt", elem="e2m1")
    for dtype in ("bf16", "f32"):
        for recipe in ("torchao", "modelopt", "ct"):
            yield with_recipe("nvfp4", recipe, "torchao"), spec("nvfp4", (1, 16), recipe, dtype)
    for bits in (2, 3, 4):
        for group in (32, 128):
            option = "" if group == 128 else f":g{group}"
            yield f"codebook{bits}{option}", spec("codebook", (1, group), "vllm", bits=bits)


def activations():
    for dtype in ("bf16", "f32"):
        yield "mxfp6", spec("mx", (1, 32), "floor", dtype, "call", elem="e3m2")
        yield "fp8", spec("fp8", (ALL, ALL), "vllm", dtype, "call")
        yield "ptpc_fp8", spec("fp8", (1, ALL), "vllm", dtype, "call")
        yield "fp8_block", spec("fp8", (1, 128), "vllm", dtype, "call")
        yield "int8", spec("int", (1, ALL), "vllm", dtype, "call", bits=8)
        yield "int8:asym", spec("int", (1, ALL), "vllm", dtype, "call", bits=8, asym=True)
        yield "nvfp4", spec("nvfp4", (1, 16), "torchao", dtype, "call")
    yield "fp8_static", spec("fp8", (ALL, ALL), "vllm", when="static", given=(F32(0.0237), None))
    yield "int8:static", spec("int", (ALL, ALL), "vllm", when="static", bits=8,
                              given=(F32(0.0413), None))
    yield "int8:asym:static", spec("int", (ALL, ALL), "vllm", when="static", bits=8,
                                   asym=True, given=(F32(0.0413), -17))
    yield "nvfp4:static", spec("nvfp4", (1, 16), "torchao", when="static", given_global=F32(0.0031))
    for recipe in ("floor", "rceil", "even"):
        for name, elem in (("mxfp8", "e4m3fn"), ("mxfp6:e2m3", "e2m3"), ("mxfp4", "e2m1")):
            yield (with_recipe(name, recipe, "floor"),
                   spec("mx", (1, 32), recipe, when="call", elem=elem))


def wide(c):
    return c["family"] == "fp8" or c.get("bits", 4) > 4 or c.get("elem") in ("e4m3fn", "e3m2", "e2m3")


def hexes(values):
    return " ".join(f"{int(b):08x}" for b in np.asarray(values, F32).view(np.uint32))


def spans_rows(c):
    return c["block"][0] is ALL or c["family"] == "nvfp4"


def case(out, name, c, matrices, key=None):
    key = key or ("tall" if c["block"] == (128, 128) and c["dtype"] == "bf16" else c["dtype"])
    x = matrices[key]
    if spans_rows(c) and key == c["dtype"]:
        x = x[:-1]  # the row of the largest values would leave nothing else
    codes, scales, zeros, books, glob = quantize(x, c)
    width = 2 if wide(c) else 1
    out.append(f"case {name} {c['dtype']} {key} {x.shape[0]} {x.shape[1]} {width}")
    if key == "tall":
        h = 0xCBF29CE484222325
        for byte in codes.tobytes():
            h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
        out.append(f"hash {h:016x}")
    else:
        out.append("codes")
        out += ["".join(f"{v:0{width}x}" for v in row) for row in codes]
    out.append(f"scales {len(scales)} {hexes(scales)}".rstrip())
    out.append(f"zeros {len(zeros)} {' '.join(map(str, zeros))}".rstrip())
    out.append(f"codebook {len(books)} {hexes(books)}".rstrip())
    out.append(f"global {hexes([1 if glob is None else glob])}")


def write(name, lines):
    OUT.mkdir(parents=True, exist_ok=True)
    head = f"# tools/make_scheme_goldens.py, numpy {np.__version__}, ml_dtypes {ml_dtypes.__version__}"
    (OUT / name).write_text("\n".join([head, *lines]) + "\n")
    print(name, (OUT / name).stat().st_size, "bytes")


# ---- recipe ct against the library


def library_block(ct, torch, x, c):
    """(code values, scale, zero point) of one block by compressed-tensors, in the run dtype."""
    float_type = c["family"] != "int"
    bits = c["bits"] if not float_type else KINDS[c.get("elem", "e4m3fn")][2]
    args = dict(num_bits=bits, type="float" if float_type else "int", symmetric=not c["asym"],
                strategy="tensor")
    glob = None
    if c["family"] == "mx":
        args.update(strategy="group", group_size=32, scale_dtype=torch.uint8)
    if c["family"] == "nvfp4":
        args.update(num_bits=4, strategy="tensor_group", group_size=16,
                    scale_dtype=torch.float8_e4m3fn)
        glob = torch.tensor([c["G"]])
    args = ct.QuantizationArgs(**args)
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[c["dtype"]]
    flat = np.zeros((1, max(x.size, args.group_size or 0)), F32)  # a short group filled up
    flat[0, : x.size] = x.reshape(-1)
    t = torch.tensor(flat).to(dtype)
    scale, zero = ct.calculate_qparams(t.min().reshape(1, 1), t.max().reshape(1, 1), args,
                                       global_scale=glob)
    q = ct.quantize(t, scale, zero, args, global_scale=glob)
    return q.float().numpy().reshape(-1)[: x.size].reshape(x.shape), F32(scale.float()), int(zero)


def check_against_library(matrices):
    """Every block of every ct case whose range is neither zero nor extreme."""
    try:
        import torch
        from compressed_tensors.quantization import QuantizationArgs
        from compressed_tensors.quantization.lifecycle.forward import quantize as ct_quantize
        from compressed_tensors.quantization.utils.helpers import calculate_qparams
    except ImportError as error:
        print(f"recipe ct is not compared with the library: {error}")
        return
    ct = argparse.Namespace(QuantizationArgs=QuantizationArgs, calculate_qparams=calculate_qparams,
                            quantize=ct_quantize)
    blocks = 0
    for name, c in (*fp8_weights(), *int_weights(), *block_weights()):
        if c["recipe"] != "ct" or c["block"] == (128, 128):
            continue
        x = matrices[c["dtype"]][:-1]
        if c["family"] == "nvfp4":
            nvfp4_global(x, c)
        codes, scales, zeros, _, _ = quantize(x, c)
        for i, at in enumerate(tiles(x.shape, c["block"])):
            m = amax_of(x[at])
            if m < 1e-4 or scale_to(c.get("scale", "f32"), scales[i]) < 1e-7:
                continue  # zeros, and what a scale cannot follow: floors differ, see above
            q, s, z = library_block(ct, torch, x[at], c)
            if c.get("scale") == "bf16" and c["dtype"] != "bf16":
                continue  # the library keeps the run dtype's scale; ours rounds it to the row's format
            ours = codes[at].astype(np.int64)
            if c["family"] == "int":
                ours = np.where(ours > int_bounds(c["bits"])[1], ours - (1 << c["bits"]), ours)
            else:
                ours = float_value(c.get("elem", "e2m1" if c["family"] == "nvfp4" else "e4m3fn"), ours)
            assert s == scales[i], (name, c["dtype"], i, s, scales[i])
            assert not c["asym"] or z == zeros[i], (name, c["dtype"], i, z, zeros[i])
            assert (q == ours).all(), (name, c["dtype"], i, q[q != ours], ours[q != ours])
            blocks += 1
    print(f"recipe ct: {blocks} blocks equal compressed-tensors")


def main():
    matrices = inputs()
    check_against_library(matrices)
    lines = []
    for key in ("bf16", "f16", "f32"):
        x = matrices[key]
        lines.append(f"input {key} {x.shape[0]} {x.shape[1]}")
        lines += ["".join(f"{int(b):08x}" for b in row.view(np.uint32)) for row in x]
    write("inputs.txt", lines)
    lines = []
    for cases in (fp8_weights(), int_weights(), block_weights()):
        for name, c in cases:
            case(lines, name, c, matrices)
            if spans_rows(c):
                case(lines, name, c, matrices, "zeros")
    write("weights.txt", lines)
    lines = []
    for name, c in activations():
        case(lines, name, c, matrices)
    write("activations.txt", lines)


if __name__ == "__main__":
    main()
