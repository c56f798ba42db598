#!/usr/bin/env python3
"""Golden files of tests/io from the reference implementation (Python safetensors and torch):

  tests/golden/safetensors/dtypes.safetensors   one small tensor of every dtype torch can write
  tests/golden/safetensors/dtypes.json          their dtypes, shapes, bytes and float32 values
  tests/golden/safetensors/sharded/             two shards with an index
  tests/golden/safetensors/verdicts.json        small files, valid and broken, and whether the
                                                reference library accepts them

Usage: tools/make_safetensors_goldens.py   (needs torch, safetensors)
"""
import json
import pathlib
import struct

import safetensors
import safetensors.torch
import torch

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/safetensors"
FLOATS = ["float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2",
          "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
INTS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


def as_bytes(t):
    return bytes(t.contiguous().reshape(-1).view(torch.uint8).tolist()) if t.numel() else b""


def write_dtypes():
    values = torch.tensor([[0.0, -0.0, 1.0, -1.5], [0.1, 3.14159, 300.0, 1e-3],
                           [57344.0, 2.0**-9, 1e5, -7.0]], dtype=torch.float64)
    tensors = {}
    for name in FLOATS:
        source = values.abs() + 1e-4 if name == "float8_e8m0fnu" else values
        tensors[name] = source.to(torch.float32).to(getattr(torch, name)) if "8" in name else source.to(getattr(torch, name))
    for name in INTS:
        info = torch.iinfo(getattr(torch, name))
        tensors[name] = torch.tensor([0, 1, info.max, info.min], dtype=getattr(torch, name))
    tensors["bool"] = torch.tensor([True, False, True])
    tensors["complex64"] = torch.tensor([1 + 2j, -0.5j], dtype=torch.complex64)
    tensors["codes_e4m3fn"] = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    tensors["codes_e5m2"] = torch.arange(256, dtype=torch.uint8).view(torch.float8_e5m2)
    tensors["codes_e4m3fnuz"] = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fnuz)
    tensors["codes_e5m2fnuz"] = torch.arange(256, dtype=torch.uint8).view(torch.float8_e5m2fnuz)
    tensors["codes_e8m0"] = torch.arange(256, dtype=torch.uint8).view(torch.float8_e8m0fnu)
    tensors["rank0"] = torch.tensor(2.5, dtype=torch.bfloat16)
    tensors["empty"] = torch.zeros((0, 7), dtype=torch.float16)
    tensors["rank3"] = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4).to(torch.bfloat16)
    safetensors.torch.save_file(tensors, OUT / "dtypes.safetensors", metadata={"made by": "torch"})
    expected = {}
    with safetensors.safe_open(OUT / "dtypes.safetensors", "pt") as f:
        for name in f.keys():
            t = f.get_tensor(name)
            row = {"dtype": f.get_slice(name).get_dtype(), "shape": list(t.shape), "hex": as_bytes(t).hex()}
            if t.dtype.is_floating_point:
                as_f32 = t.to(torch.float32).reshape(-1)
                row["float32_hex"] = as_bytes(as_f32).hex()
            expected[name] = row
    versions = f"safetensors {safetensors.__version__}, torch {torch.__version__}"
    text = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in expected.items())
    (OUT / "dtypes.json").write_text(f'{{"made by": "tools/make_safetensors_goldens.py, {versions}",\n"tensors": {{\n{text}\n}}}}\n')


def write_sharded():
    folder = OUT / "sharded"
    folder.mkdir(exist_ok=True)
    shards = [{"a.weight": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3), "b.weight": torch.ones(4)},
              {"c.weight": torch.full((1, 2), 7.0, dtype=torch.float16)}]
    weight_map = {}
    for i, tensors in enumerate(shards):
        name = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        safetensors.torch.save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map |= {k: name for k in tensors}
    total = sum(t.nbytes for s in shards for t in s.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def file_of(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else header.encode() if isinstance(header, str) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype="U8", shape=(2,), offsets=(0, 2), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


def cases():
    one = {"a": tensor()}
    yield "one tensor", file_of(one, b"ab")
    yield "no tensor", file_of({})
    yield "no tensor, data", file_of({}, b"a")
    yield "empty file", b""
    yield "seven bytes", b"1234567"
    yield "length 0", struct.pack("<Q", 0)
    yield "length beyond the file", file_of(one, b"", 1000)
    yield "length 2^63", file_of(one, b"ab", 1 << 63)
    yield "length 2^64-1", file_of(one, b"ab", (1 << 64) - 1)
    yield "length 100000001", file_of(one, b"ab", 100_000_001)
    yield "length one short", file_of(one, b"ab", len(json.dumps(one, separators=(",", ":"))) - 1)
    yield "length into the data", file_of(one, b"ab", len(json.dumps(one, separators=(",", ":"))) + 1)
    yield "spaces after", file_of(json.dumps(one) + "   ", b"ab")
    yield "spaces before", file_of("  " + json.dumps(one), b"ab")
    yield "newlines around", file_of("\n\t" + json.dumps(one) + "\r\n", b"ab")
    yield "NUL padding", file_of(json.dumps(one) + "\0", b"ab")
    yield "not UTF-8", file_of(json.dumps(one).encode().replace(b'"a"', b'"\xff"'), b"ab")
    yield "name in UTF-8", file_of('{"\u00e4\u20ac":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', b"ab")
    yield "name with lone surrogate", file_of(b'{"\\ud800":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', b"ab")
    yield "name with NUL", file_of(b'{"\\u0000":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', b"ab")
    yield "empty name", file_of({"": tensor()}, b"ab")
    yield "header is an array", file_of([])
    yield "header is a string", file_of('"a"')
    yield "two documents", file_of("{}{}")
    yield "open object", file_of('{"a":')
    yield "comment", file_of("{}//")
    yield "trailing comma", file_of('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},}', b"ab")
    yield "NaN", file_of('{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,2]}}', b"ab")
    yield "metadata", file_of({"__metadata__": {"k": "v"}, **one}, b"ab")
    yield "metadata empty", file_of({"__metadata__": {}, **one}, b"ab")
    yield "metadata null", file_of({"__metadata__": None, **one}, b"ab")
    yield "metadata number", file_of({"__metadata__": {"k": 1}, **one}, b"ab")
    yield "metadata nested", file_of({"__metadata__": {"k": {}}, **one}, b"ab")
    yield "metadata string", file_of({"__metadata__": "v", **one}, b"ab")
    yield "metadata array", file_of({"__metadata__": [], **one}, b"ab")
    yield "tensor is null", file_of({"a": None})
    yield "tensor is a number", file_of({"a": 1})
    yield "no dtype", file_of({"a": {"shape": [2], "data_offsets": [0, 2]}}, b"ab")
    yield "no shape", file_of({"a": {"dtype": "U8", "data_offsets": [0, 2]}}, b"ab")
    yield "no data_offsets", file_of({"a": {"dtype": "U8", "shape": [2]}}, b"ab")
    yield "unknown dtype", file_of({"a": tensor("U9")}, b"ab")
    yield "lower-case dtype", file_of({"a": tensor("u8")}, b"ab")
    yield "dtype is a number", file_of({"a": tensor(8)}, b"ab")
    yield "additional field", file_of({"a": tensor(extra=[1, {}])}, b"ab")
    yield "shape is a number", file_of({"a": {"dtype": "U8", "shape": 2, "data_offsets": [0, 2]}}, b"ab")
    yield "shape is a string", file_of({"a": {"dtype": "U8", "shape": "2", "data_offsets": [0, 2]}}, b"ab")
    yield "negative dimension", file_of({"a": tensor(shape=(-2,))}, b"ab")
    yield "two negative dimensions", file_of({"a": tensor(shape=(-2, -1))}, b"ab")
    yield "fractional dimension", file_of('{"a":{"dtype":"U8","shape":[2.0],"data_offsets":[0,2]}}', b"ab")
    yield "dimension with exponent", file_of('{"a":{"dtype":"U8","shape":[2e0],"data_offsets":[0,2]}}', b"ab")
    yield "dimension is a string", file_of({"a": tensor(shape=("2",))}, b"ab")
    yield "dimension is true", file_of({"a": tensor(shape=(True, 2))}, b"ab")
    yield "shape overflows", file_of({"a": tensor(shape=(1 << 33, 1 << 33))}, b"ab")
    yield "bits overflow", file_of({"a": tensor("F64", shape=(1 << 60, 1))}, b"ab")
    yield "overflow to the right size", file_of({"a": tensor("U8", (1 << 32, 1 << 32, 2))}, b"ab")
    yield "zero after overflow", file_of({"a": tensor(shape=(1 << 40, 1 << 40, 0), offsets=(0, 0))})
    yield "zero before large", file_of({"a": tensor(shape=(0, 1 << 40, 1 << 40), offsets=(0, 0))})
    yield "dimension 2^64", file_of({"a": tensor(shape=(1 << 64,))}, b"ab")
    yield "rank 0", file_of({"a": tensor("F32", (), (0, 4))}, b"abcd")
    yield "rank 0, no data", file_of({"a": tensor("F32", (), (0, 0))})
    yield "zero size", file_of({"a": tensor("F32", (0,), (0, 0))})
    yield "zero size among others", file_of({"a": tensor(), "b": tensor("F32", (3, 0), (2, 2)), "c": tensor("U8", (1,), (2, 3))}, b"abc")
    yield "zero size listed last, lying first", file_of({"c": tensor(), "b": tensor("F32", (0,), (0, 0))}, b"ab")
    yield "zero size with wrong offset", file_of({"a": tensor(), "b": tensor("F32", (0,), (1, 1))}, b"ab")
    yield "zero size beyond the end", file_of({"a": tensor(), "b": tensor("F32", (0,), (3, 3))}, b"ab")
    yield "sixteen dimensions", file_of({"a": tensor(shape=[1] * 15 + [2])}, b"ab")
    yield "size too small", file_of({"a": tensor(offsets=(0, 1))}, b"a")
    yield "size too large", file_of({"a": tensor(offsets=(0, 3))}, b"abc")
    yield "offsets reversed", file_of({"a": tensor(offsets=(2, 0))}, b"ab")
    yield "offsets negative", file_of({"a": tensor(offsets=(-2, 0))}, b"ab")
    yield "one offset", file_of({"a": tensor(offsets=(2,))}, b"ab")
    yield "three offsets", file_of({"a": tensor(offsets=(0, 2, 2))}, b"ab")
    yield "fractional offsets", file_of('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0.0,2.0]}}', b"ab")
    yield "offsets 2^64", file_of({"a": tensor(offsets=(1 << 64, (1 << 64) + 2))}, b"ab")
    yield "hole at the start", file_of({"a": tensor(offsets=(1, 3))}, b"abc")
    yield "hole between", file_of({"a": tensor(), "b": tensor(offsets=(3, 5))}, b"abcde")
    yield "overlap", file_of({"a": tensor(), "b": tensor(offsets=(1, 3))}, b"abc")
    yield "same data twice", file_of({"a": tensor(), "b": tensor()}, b"ab")
    yield "order of the header is free", file_of({"b": tensor(offsets=(2, 4)), "a": tensor()}, b"abcd")
    yield "truncated by one byte", file_of(one, b"a")
    yield "one byte too many", file_of(one, b"abc")
    yield "F4, even", file_of({"a": tensor("F4", (4,), (0, 2))}, b"ab")
    yield "F4, odd", file_of({"a": tensor("F4", (3,), (0, 2))}, b"ab")
    yield "F4, odd rows", file_of({"a": tensor("F4", (4, 3), (0, 6))}, b"abcdef")
    yield "F6, whole bytes", file_of({"a": tensor("F6_E2M3", (4,), (0, 3))}, b"abc")
    yield "F6, part of a byte", file_of({"a": tensor("F6_E3M2", (2,), (0, 2))}, b"ab")
    for dtype, bits in {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16,
                        "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64}.items():
        yield f"{dtype}, right size", file_of({"a": tensor(dtype, (3,), (0, 3 * bits // 8))}, bytes(3 * bits // 8))
        yield f"{dtype}, one byte less", file_of({"a": tensor(dtype, (3,), (0, 3 * bits // 8 - 1))}, bytes(3 * bits // 8 - 1))
    deep = b'{"a":' + b"[" * 60 + b"]" * 60 + b"}"
    yield "deep nesting", file_of(deep)
    yield "very deep nesting", file_of(b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}")
    yield "many dimensions", file_of(b'{"a":{"dtype":"U8","shape":[' + b"1," * 5000 + b'2],"data_offsets":[0,2]}}', b"ab")


def write_verdicts():
    rows = []
    for name, content in cases():
        try:
            safetensors.deserialize(content)
            accepted, error = True, ""
        except Exception as e:  # the library's own class
            accepted, error = False, str(e)[:160]
        rows.append({"name": name, "accepted": accepted, "error": error, "hex": content.hex()})
    text = ",\n".join(json.dumps(row) for row in rows)
    (OUT / "verdicts.json").write_text(f'{{"made by": "safetensors {safetensors.__version__}", "cases": [\n{text}\n]}}\n')
    print(len(rows), "cases,", sum(r["accepted"] for r in rows), "accepted")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    write_dtypes()
    write_sharded()
    write_verdicts()
