#!/usr/bin/env python3
"""Writes tests/golden/text/*.json: what the reference library (Python `tokenizers`) says.

  corpora.json     ids of the whole WikiText-2 test, by tokenizer: count and CRC-32 of the ids
  fuzz.json        random Unicode strings (also invalid UTF-8): CRC-32 of their ids, by tokenizer
  cases.json       chosen texts with their ids; ids with their texts
  components.json  normalizers, pre-tokenizers, decoders one by one; patterns
  properties.json  character sets and normalization over every code point

Usage: make_tokenizer_goldens.py SHARED_DIR OUT_DIR     (needs: pip install tokenizers)
"""
import json
import random
import struct
import sys
import zlib
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer

FOLDERS = {
    "llama-3": "tokenizers/llama3",
    "llama-2": "tokenizers/llama2",
    "qwen2.5": "tokenizers/qwen2.5",
    "gpt-2": "tokenizers/gpt2",
    "phi-3-mini": "tokenizers/phi-3-mini",
    "minimind": "tokenizers/minimind-6400",
    "wiki-6m": "models/wiki-6m",
    "wiki-29m": "models/wiki-29m",
    "stories260K": "models/stories260K",
}


def crc(data):
    return f"{zlib.crc32(data):08x}"


def hash_ids(ids):
    return crc(struct.pack(f"<{len(ids)}i", *ids))


def load(shared, name):
    tokenizer = Tokenizer.from_file(str(shared / FOLDERS[name] / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def decoder_of(shared, name):
    """The tokenizer as it decodes. tokenizers 0.23 shows a special token that is `normalized` in
    its normalized spelling and does not skip it; earlier versions, and we, take it as written."""
    data = json.loads((shared / FOLDERS[name] / "tokenizer.json").read_text())
    for token in data["added_tokens"]:
        if token["special"]:
            token["normalized"] = False
    return Tokenizer.from_str(json.dumps(data))


# ---- corpora and random strings

SPACES = "\x85\xa0\u1680\u180e\u2003\u2028\u2029\u202f\u205f\u3000\u200b\u200d\ufeff\u2581\ufffd\0"


def random_text(rng, specials):
    def code_point():
        c = rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)])
        return chr(c)

    pools = [
        lambda: chr(rng.randrange(32, 127)),
        lambda: rng.choice(" \t\n\r  "),
        lambda: rng.choice(["'s", "'t", "'re", "'VE", "'m", "'LL", "'d", "\u017f", "'\u017f"]),
        lambda: chr(rng.randrange(0xA0, 0x250)),
        lambda: chr(rng.randrange(0x300, 0x370)),
        lambda: chr(rng.randrange(0x4E00, 0x9FFF)),
        lambda: chr(rng.randrange(0x1F300, 0x1FAFF)),
        lambda: rng.choice(SPACES),
        lambda: rng.choice(specials),
        lambda: rng.choice(specials)[: rng.randrange(1, 6)],
        lambda: "".join(rng.choice("etaoinshrdlucmfwypvbgkqjxzETAOIN") for _ in range(
            rng.randrange(1, 9))),
        lambda: str(rng.randrange(10 ** rng.randrange(1, 7))),
        code_point,
        lambda: rng.choice(["the ", " of", "▁", "Ġ", "<0x0A>", "e\u0301", "가", "각"]),
        lambda: rng.choice(" \n") * rng.randrange(1, 6),
    ]
    weights = [rng.random() ** 3 for _ in pools]
    return "".join(rng.choices(pools, weights)[0]() for _ in range(rng.randrange(40)))


def random_inputs(count):
    rng = random.Random(20240229)
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|endoftext|>", "<|im_start|>", "<s>",
                "</s>", "<unk>", "<|user|>", "<|eot_id|>", "<|reserved_special_token_1|>",
                "<|end|>", "<|reserved_special_token_12|>", "<pad>", "<|file_sep|>", "<tool_call>"]
    out = []
    for i in range(count):
        data = random_text(rng, specials).encode()
        if i % 8 == 0 and data:  # invalid UTF-8: bytes changed or cut
            cut = bytearray(data)
            for _ in range(rng.randrange(1, 4)):
                cut[rng.randrange(len(cut))] = rng.randrange(256)
            data = bytes(cut[: rng.randrange(len(cut) + 1)])
        out.append(data)
    return out


def corpora(shared, inputs):
    wiki = (shared / "data/wikitext-2-raw/wiki.test.raw").read_text()
    texts = [data.decode("utf-8", errors="replace") for data in inputs]
    corpus, fuzz = {}, {}
    for name in FOLDERS:
        tokenizer = load(shared, name)
        plain = tokenizer.encode(wiki, add_special_tokens=False).ids
        special = tokenizer.encode(wiki, add_special_tokens=True).ids
        corpus[name] = {
            "folder": FOLDERS[name], "count": len(plain), "crc": hash_ids(plain),
            "count_special": len(special), "crc_special": hash_ids(special),
        }
        fuzz[name] = "".join(hash_ids(tokenizer.encode(text, add_special_tokens=i % 2 == 1).ids)
                             for i, text in enumerate(texts))
        print(name, len(plain), file=sys.stderr)
    return corpus, {"hex": [data.hex() for data in inputs], "crc": fuzz}


# ---- chosen cases

TEXTS = [
    "", " ", "  ", "\n", "\t", "a", "Hello world", " Hello  world ", "Hello, y'all! How are you?",
    "I'M we'Re 'S 'ſ", "3 33 333 3333 33333", "\n\n\n\t\t x\n y\r\n z", "ab 中文字符 ひらがな カタカナ",
    "Привет, мир; Ελληνικά; עברית; العربية; हिन्दी; ไทย", "🚀 👩‍👩‍👧 🇩🇪 ☺️ \u200d", "cafe\u0301 café naïve Åström ﬁ ½ ²",
    "<|begin_of_text|>a<|end_of_text|>", "<s>x</s> <s> </s>y<unk>", "x <|user|> y", "<|im_start|>user\nhi<|im_end|>\n",
    "</s> a  <|end|>  b", "<|begin_of_text", "▁a ▁▁b", "Ġthe Ċ", "\0\x01\x7f\x80", "\u2028\u3000\u00a0\u1680x",
    "if (x != NULL) { return *x++; }  // done", "1,234.56 + 7e-8 = ½?", "       indented\n        code",
    "a" * 300, "ab" * 100 + " " * 40 + "\n" * 7, "<0x0A><0xFF>", "e\u0301\u0316 \u0316\u0301e",
]


def cases(shared):
    out = {"texts": TEXTS, "tokenizers": {}}
    rng = random.Random(7)
    for name in FOLDERS:
        tokenizer, decoder = load(shared, name), decoder_of(shared, name)
        size = tokenizer.get_vocab_size()
        plain = [tokenizer.encode(t, add_special_tokens=False).ids for t in TEXTS]
        special = [tokenizer.encode(t, add_special_tokens=True).ids for t in TEXTS]
        id_lists = special + [ids[1:] for ids in plain if len(ids) > 2]
        id_lists += [[rng.randrange(size) for _ in range(12)] for _ in range(20)]
        id_lists += [[rng.randrange(min(size, 300)) for _ in range(12)] for _ in range(20)]
        out["tokenizers"][name] = {
            "folder": FOLDERS[name],
            "plain": plain,
            "special": special,
            "decode": [{"ids": ids, "text": decoder.decode(ids, skip_special_tokens=False),
                        "skipped": decoder.decode(ids, skip_special_tokens=True)}
                       for ids in id_lists],
        }
    return out


# ---- components

MIXED = [
    "", "Hello  World, it's 42!", " leading and trailing \u3000", "▁a b▁c  d", "ÀÉÎõü ﬁ ½ Ⅷ ㎏ Å e\u0301 ǅ İI ß ς",
    "a1b22c333 ٣٤ ① ³", "x--y__z (a) [b] «c» 。、!?", "tab\tnl\ncr\r\nvt\x0b ff\x0c nel\x85 nbsp\xa0 zwsp\u200b",
    "中文 ひら カタ 한국어 각", "aaa ab abab", "\u0301\u0316e\u0316\u0301", "e.g. U.S. 'tis", "\0\x01\ufeff\u200e",
    "don't DON'T I'll", "   ", "a\n\n b\r\r c", "Ω≈ç√∫ $5 €6 ^_^ `x` ~", "1e10 3.14 -7", "ａｂｃ１２３", "🚀👩‍👧",
]
NORMALIZERS = [
    {"type": "NFC"}, {"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}, {"type": "Lowercase"},
    {"type": "Prepend", "prepend": "▁"}, {"type": "Prepend", "prepend": "xy"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    {"type": "Replace", "pattern": {"String": "ab"}, "content": ""},
    {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
    {"type": "Replace", "pattern": {"Regex": "a*"}, "content": "-"},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Strip", "strip_left": True, "strip_right": False},
    {"type": "Strip", "strip_left": False, "strip_right": True},
    {"type": "StripAccents"}, {"type": "Nmt"}, {"type": "ByteLevel"},
    {"type": "Sequence", "normalizers": []},
    {"type": "Sequence", "normalizers": [
        {"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"},
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
]


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
PATTERNS = [
    LLAMA3, LLAMA3.replace("{1,3}", ""), O200K,
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\s+$", r"^\s+|\s+$", r"\p{N}", r"[0-9][0-9][0-9]",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r" ?[^(\s|[.,!?…。，、।۔،])]+", r"[\p{Han}]+", r"[\p{L}&&[^\p{Han}]]+", r"[a-z&&[^aeiou]]+", r"[^a-c&&[a-z]]", r"[\p{L}--z]",
    r"\w+", r"\W+", r"\d+", r"\D+", r"\s", r"\S+", r"\h+", r"\H", r"[\w\-]+", r"[^\w\s]+", r"[\W\d]+", r"[\S]",
    r"[^\S\n]+", r"[\s\S]{2}", r"[[:word:]]+",
    r"\bi", r"\Bt", r"\b", r"\Ax", r"e\z", r"\R", r".", r".+", r"(?m:.+)", r"^", r"$", r"(?i)HELLO|world", r"a(?i)B|C", r"(?i:ẞ|k)",
    r"a{2}", r"a{2}?", r"a{1,2}?", r"a{,2}", r"a{2,}+", r"a{x}", r"a++b?", r"(?>a|ab)b", r"(a|b)+", r"(?<name>a)b", r"(?<=a)b", r"(?<!a)b",
    r"a(?=b)", r"a(?!b)", r"\x61\x{62}", r"\u0061", r"\t|\n|\r|\f|\v|\a|\e", r"[\b\t\n]", r"[\x{4e00}-\x{9fff}]", r"[a-]", r"[-a]", r"[+--]",
    r"[[:alpha:]]+", r"[[:^digit:][:space:]]+", r"[[:punct:]]", r"[a[bc]d]+", r"[^a[^b]]", r"\p{^L}", r"\P{L}+", r"[\P{L}]+", r"\p{Lu}",
    r"\p{Uppercase_Letter}", r"\p{letter}", r"\p{Script_Extensions}|x", r"", r"a*", r"x*", r"(?:)", r"\.|\-|\_|\/|\ ", r"é|ß", r"{|}|]",
]
PRE_TOKENIZERS = (
    [split(" ", b, i, "String") for b in BEHAVIORS for i in (False, True)]
    + [split(r"\s+", b, i) for b in BEHAVIORS for i in (False, True)]
    + [split("a*", b, i) for b in BEHAVIORS for i in (False, True)]
    + [{"type": "ByteLevel", "add_prefix_space": p, "trim_offsets": True, "use_regex": r}
       for p in (False, True) for r in (False, True)]
    + [{"type": "Metaspace", "replacement": "▁", "prepend_scheme": s, "split": c}
       for s in ("always", "first", "never") for c in (False, True)]
    + [{"type": "Metaspace", "replacement": "_", "add_prefix_space": True}]
    + [{"type": t} for t in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")]
    + [{"type": "Digits", "individual_digits": b} for b in (False, True)]
    + [{"type": "Punctuation", "behavior": b} for b in BEHAVIORS] + [{"type": "Punctuation"}]
    + [{"type": "CharDelimiterSplit", "delimiter": " "}]
    + [{"type": "Sequence", "pretokenizers": [
        split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(r"\s+$"), split(r"\p{N}"),
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
       {"type": "Sequence", "pretokenizers": [
           {"type": "WhitespaceSplit"},
           {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}]},
       {"type": "Sequence", "pretokenizers": []}])
DECODERS = [
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}, {"type": "Strip", "content": "a", "start": 2, "stop": 0},
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "Replace", "pattern": {"Regex": "[ab]+"}, "content": "x"},
    {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    {"type": "Sequence", "decoders": [
        {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "aba"}, "content": "-"}]},
    {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Metaspace", "replacement": "▁"}]},
    {"type": "Sequence", "decoders": [
        {"type": "ByteFallback"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}]},
    {"type": "Sequence", "decoders": [
        {"type": "Fuse"}, {"type": "Strip", "content": "a", "start": 3, "stop": 0},
        {"type": "Strip", "content": "b", "start": 0, "stop": 2}]},
    None,
]
TOKEN_LISTS = [
    [], ["▁Hello", "▁world"], ["Ġthe", "Ċ", "é", "ç", "½", "ł", "Ģ"], ["a", "b", "a", "b", "a", "ab", "aba"],
    ["<0xE4>", "<0xB8>", "<0xAD>", "▁x"], ["<0xE4>", "<0xB8>", "y", "<0xFF>", "<0x41>"], ["<0x41>", "<0x0A>"],
    ["<0xF0>", "<0x9F>", "<0x9A>", "<0x80>", "<0xF0>", "<0x9F>"], ["<0xZZ>", "<0x4>", "<0x412>"], ["▁▁a", "▁", "b▁"],
    ["aa", "a", "ab", "bbb"], ["ì", "Ĥ", "Ī", "ìĤ"], ["中", "é中", "Ġ中"], [" a", " ", " b "], ["aab", "▁aabb"],
]


def component(kind, spec):
    return json.dumps({"version": "1.0", "added_tokens": [], "model": {
        "type": "BPE", "vocab": {"a": 0}, "merges": []}, kind: spec})


def components():
    out = {"normalizer": [], "pre_tokenizer": [], "pattern": [], "decoder": []}
    for spec in NORMALIZERS:
        normalizer = Tokenizer.from_str(component("normalizer", spec)).normalizer
        out["normalizer"].append({"json": spec, "cases": [
            [text, normalizer.normalize_str(text)] for text in MIXED]})
    for key, specs in (("pre_tokenizer", PRE_TOKENIZERS), ("pattern", [split(p) for p in PATTERNS])):
        for spec in specs:
            try:
                pre = Tokenizer.from_str(component("pre_tokenizer", spec)).pre_tokenizer
            except Exception as error:  # what the reference refuses is no golden
                print("reference refuses", spec, error, file=sys.stderr)
                continue
            out[key].append({"json": spec, "cases": [
                [text, [piece for piece, _ in pre.pre_tokenize_str(text)]] for text in MIXED]})
    for spec in DECODERS:
        if spec is None:
            out["decoder"].append({"json": None, "cases": [[t, " ".join(t)] for t in TOKEN_LISTS]})
            continue
        decoder = Tokenizer.from_str(component("decoder", spec)).decoder
        pairs = []
        for tokens in TOKEN_LISTS:
            try:
                pairs.append([tokens, decoder.decode(tokens)])
            except BaseException as error:  # Strip of more than there is: the library panics
                print("reference panics on", spec, tokens, type(error), file=sys.stderr)
        out["decoder"].append({"json": spec, "cases": pairs})
    return out


# ---- every code point

SETS = [r"\s", r"\S", r"\w", r"\W", r"\d", r"\h", "[[:alpha:]]", "[[:alnum:]]", "[[:punct:]]", "[[:upper:]]",
        "[[:lower:]]", r"(?i:s)", r"(?i:k)", r"."] + [rf"\p{{{name}}}" for name in (
            "L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp Cc Cf "
            "Alphabetic Uppercase Lowercase White_Space Any Han Hiragana Katakana Hangul Latin Greek Cyrillic "
            "Arabic Hebrew Thai Devanagari Common Inherited").split()]


def properties():
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    text = "".join(every)
    out = {"sets": [], "normalizers": [], "splits": []}
    for pattern in SETS:
        pre = Tokenizer.from_str(component("pre_tokenizer", split(pattern, "Removed"))).pre_tokenizer
        left = "".join(piece for piece, _ in pre.pre_tokenize_str(text))
        out["sets"].append({"pattern": pattern, "left": len(left), "crc": crc(left.encode())})
    for spec in NORMALIZERS:
        if spec["type"] not in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt"):
            continue
        normalizer = Tokenizer.from_str(component("normalizer", spec)).normalizer
        # A letter before each, and marks of two classes behind: order and composition matter.
        done = "".join(normalizer.normalize_str(f"e{c}\u0301\u0316") for c in every)
        out["normalizers"].append({"json": spec, "crc": crc(done.encode())})
    for spec in ({"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"},
                 {"type": "Punctuation", "behavior": "Isolated"},
                 {"type": "Digits", "individual_digits": True}):
        pre = Tokenizer.from_str(component("pre_tokenizer", spec)).pre_tokenizer
        done = "\n".join(piece for piece, _ in pre.pre_tokenize_str(text))
        out["splits"].append({"json": spec, "crc": crc(done.encode())})
    return out


def main():
    shared, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)

    def write(name, data):
        head = {"made_by": f"tools/make_tokenizer_goldens.py, tokenizers {tokenizers.__version__}"}
        (out / name).write_text(json.dumps(head | data, ensure_ascii=True, separators=(",", ":"))
                                + "\n")

    write("components.json", components())
    write("cases.json", cases(shared))
    corpus, fuzz = corpora(shared, random_inputs(3000))
    write("corpora.json", {"tokenizers": corpus})
    write("fuzz.json", fuzz)
    write("properties.json", properties())


if __name__ == "__main__":
    main()
