#!/usr/bin/env python3
"""Compares Mantissa's ids with the reference libraries' on many random Unicode strings.

Strings are made of code points assigned in Unicode 14 (Python's tables): letters of all scripts,
combining marks in any order, emoji sequences, control characters, white space, digits, punctuation,
look-alikes of special tokens; one in eight is bytes that are no UTF-8 (U+FFFD for each maximal
invalid part, as Python's errors="replace"). The references are tokenizers for tokenizer.json and
sentencepiece for .model.

Usage: compare_tokenizers.py MANTISSA_IDS SHARED_DIR GOLDEN_DIR OUT.json [--count 100000] [--seed 1]
  MANTISSA_IDS: the built tests/text/encode_lines, which reads hexadecimal lines
"""
import argparse
import json
import random
import struct
import subprocess
import sys
import unicodedata
import zlib
from pathlib import Path

import sentencepiece
import tokenizers

sys.path.insert(0, str(Path(__file__).parent))
from make_sentencepiece_goldens import Reference  # noqa: E402

FILES = {
    "llama-3": "tokenizers/llama3/tokenizer.json",
    "llama-2": "tokenizers/llama2/tokenizer.json",
    "llama-2 (tokenizer.model)": "tokenizers/llama2/tokenizer.model",
    "qwen2.5": "tokenizers/qwen2.5/tokenizer.json",
    "gpt-2": "tokenizers/gpt2/tokenizer.json",
    "phi-3-mini": "tokenizers/phi-3-mini/tokenizer.json",
    "minimind": "tokenizers/minimind-6400/tokenizer.json",
    "wiki-6m": "models/wiki-6m/tokenizer.json",
    "stories260K": "models/stories260K/tokenizer.json",
    "mistral v1 (tokenizer.model)": "tokenizers/mistral/tokenizer.model.v1",
    "mistral v3 (tokenizer.model)":
        "tokenizers/mistral/mistral_instruct_tokenizer_240323.model.v3",
    "own unigram (tokenizer.json)": "spm/unigram.json",
    "own unigram with bytes (tokenizer.json)": "spm/bytes.json",
    "own unigram (tokenizer.model)": "spm/unigram.model",
    "own BPE (tokenizer.model)": "spm/bpe.model",
}
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>",
           "<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>", "<|eot_id|>", "<|end|>", "[INST]",
           "[/INST]", "<|start_header_id|>", "<|reserved_special_token_12|>", "<pad>", "<tool>",
           "[X]", "<ctl>", "<0x0A>", "<0xE4>", "▁", "Ġ", "##"]


def strings(count, seed):
    rng = random.Random(seed)
    by_kind = {}
    for c in range(0x110000):
        kind = unicodedata.category(chr(c))
        if kind not in ("Cn", "Cs"):
            by_kind.setdefault(kind, []).append(chr(c))
    marks = by_kind["Mn"] + by_kind["Mc"] + by_kind["Me"]
    letters = [chr(c) for c in range(0x20, 0x250)] + [chr(c) for c in range(0x370, 0x600)]
    emoji = [chr(c) for c in range(0x1F300, 0x1F650)] + ["\u2764", "\U0001F9D1", "\U0001F469"]
    flags = [chr(c) for c in range(0x1F1E6, 0x1F200)]
    kinds = sorted(by_kind)

    def emoji_sequence():
        parts = []
        for _ in range(rng.randrange(1, 4)):
            one = rng.choice(emoji)
            parts.append(one + rng.choice(["", "\ufe0f", chr(rng.randrange(0x1F3FB, 0x1F400))]))
        return rng.choice(["\u200d".join(parts), rng.choice(flags) + rng.choice(flags),
                           rng.choice("0123456789#*") + "\ufe0f\u20e3"])

    def look_alike():
        token = rng.choice(SPECIAL)
        if rng.random() < 0.4:
            at = rng.randrange(len(token))
            token = token[:at] + rng.choice(["", " ", "|", "<", token[at] * 2]) + token[at + 1:]
        return token

    pools = [
        lambda: rng.choice(letters), lambda: rng.choice(letters[:96]),
        lambda: rng.choice(by_kind[rng.choice(kinds)]), lambda: rng.choice(by_kind["Lo"]),
        lambda: rng.choice(letters) + "".join(rng.choices(marks, k=rng.randrange(1, 5))),
        emoji_sequence, lambda: rng.choice(by_kind["Cc"] + by_kind["Cf"]),
        lambda: rng.choice(" \n\t\r\u3000\u00a0\u2003") * rng.randrange(1, 5), look_alike,
        lambda: rng.choice(by_kind["Nd"]) * rng.randrange(1, 4),
        lambda: chr(rng.randrange(0xAC00, 0xD7A4)),
        lambda: rng.choice(["'s", "'RE", "'ſ", "don't"]),
        lambda: rng.choice("abcdefghij ") * rng.randrange(1, 12),
        lambda: "".join(chr(rng.choice([0x1100 + rng.randrange(19), 0x1161 + rng.randrange(21),
                                        0x11A8 + rng.randrange(27)])) for _ in range(3)),
    ]
    for i in range(count):
        weights = [rng.random() ** 3 for _ in pools]
        data = "".join(rng.choices(pools, weights)[0]() for _ in range(rng.randrange(1, 24)))
        data = data.encode()
        if i % 8 == 7:
            cut = bytearray(data)
            for _ in range(rng.randrange(1, 4)):
                cut[rng.randrange(len(cut))] = rng.randrange(256)
            data = bytes(cut[: rng.randrange(len(cut) + 1)])
        yield data


def crc(ids):
    return zlib.crc32(struct.pack(f"<{len(ids)}i", *ids))


def reference(path):
    if path.suffix == ".json":
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    return Reference(path).encode


def main():
    parser = argparse.ArgumentParser()
    for name in ("mantissa_ids", "shared", "golden", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="tokenizers with this in their name; the other "
                                                   "rows of OUT.json stay")
    args = parser.parse_args()
    inputs = list(strings(args.count, args.seed))
    lines = "".join(data.hex() + "\n" for data in inputs)
    rows = {}
    if args.only:
        rows = {row["tokenizer"]: row for row in json.loads(args.out.read_text())["rows"]}
    for name, file in FILES.items():
        if args.only not in name:
            continue
        path = (args.golden if file.startswith("spm/") else args.shared) / file
        ours = subprocess.run([args.mantissa_ids, path], input=lines, check=True,
                              capture_output=True, text=True).stdout.split()
        assert len(ours) == len(inputs), name
        encode = reference(path)
        different = [data for data, ids in zip(inputs, ours)
                     if crc(encode(data.decode("utf-8", errors="replace"))) != int(ids, 16)]
        rows[name] = {"tokenizer": name, "strings": len(inputs), "different": len(different)}
        print(rows[name], [d.hex() for d in different[:3]], file=sys.stderr, flush=True)
    result = {"made_by": f"tools/compare_tokenizers.py --count {args.count} --seed {args.seed}",
              "tokenizers": tokenizers.__version__, "sentencepiece": sentencepiece.__version__,
              "unicode": unicodedata.unidata_version,
              "rows": [rows[name] for name in FILES if name in rows]}
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
