#!/usr/bin/env python3
"""Writes tests/golden/text/spm/: small SentencePiece models, and what sentencepiece says with them.

  unigram.model, bpe.model  trained here on the first part of WikiText-2's test, with a normalization
                            map of our own (unigram) and byte fallback (bpe)
  unigram.json, bytes.json  tokenizer.json files with the unigram model, for the tokenizers library
  spm.json                  ids (CRC-32) of tests/golden/text/fuzz.json's strings, by tokenizer, and
                            of all of WikiText-2 for the shared models

Control and user-defined pieces written out in a text become their ids, here and in Mantissa; what
lies between them is encoded by sentencepiece.

Usage: make_sentencepiece_goldens.py SHARED_DIR GOLDEN_DIR   (needs: pip install sentencepiece tokenizers)
"""
import json
import re
import struct
import sys
import tempfile
import unicodedata
import zlib
from pathlib import Path

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

SHARED_MODELS = {
    "llama-2": "tokenizers/llama2/tokenizer.model",
    "mistral-v1": "tokenizers/mistral/tokenizer.model.v1",
    "mistral-v2": "tokenizers/mistral/mistral_instruct_tokenizer_240216.model.v2",
    "mistral-v3": "tokenizers/mistral/mistral_instruct_tokenizer_240323.model.v3",
}
CONTROL, USER_DEFINED, UNKNOWN = 3, 4, 2


def crc(ids):
    return f"{zlib.crc32(struct.pack(f'<{len(ids)}i', *ids)):08x}"


class Reference:
    def __init__(self, file):
        self.processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
        model = proto.ModelProto()
        model.ParseFromString(Path(file).read_bytes())
        self.model = model
        special = {p.piece: i for i, p in enumerate(model.pieces)
                   if p.type in (CONTROL, USER_DEFINED, UNKNOWN)}
        self.special = special
        self.cut = re.compile("|".join(
            re.escape(s) for s in sorted(special, key=lambda s: -len(s.encode()))))

    def encode(self, text):
        ids, begin = [], 0
        for match in self.cut.finditer(text):
            ids += self.processor.encode(text[begin:match.start()])
            ids.append(self.special[match[0]])
            begin = match.end()
        return ids + self.processor.encode(text[begin:])


def rules(file):
    """A small map: compatibility forms of Latin, Greek and signs, letters with marks, spaces."""
    lines = []

    def add(source, target):
        lines.append(" ".join(f"{ord(c):X}" for c in source) + "\t" +
                     " ".join(f"{ord(c):X}" for c in target))

    for c in list(range(0xA0, 0x250)) + list(range(0x2000, 0x2100)) + list(range(0x2460, 0x2480)) \
            + list(range(0xFB00, 0xFB07)) + list(range(0xFF01, 0xFF5F)):
        normal = unicodedata.normalize("NFKC", chr(c))
        if normal != chr(c):
            add(chr(c), normal)
        parts = unicodedata.normalize("NFD", chr(c))
        if len(parts) > 1:
            add(parts, unicodedata.normalize("NFC", chr(c)))
    for c in (0x9, 0xA, 0xD, 0x3000, 0x200B):
        add(chr(c), " ")
    for c in (0x7F, 0xAD, 0xFEFF):
        add(chr(c), "")
    file.write_text("\n".join(dict.fromkeys(lines)) + "\n")


def train(shared, out):
    text = (shared / "data/wikitext-2-raw/wiki.test.raw").read_text()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        corpus = folder / "text"
        corpus.write_text("\n".join(line for line in text[:300_000].split("\n") if line.strip()))
        rules(folder / "rules.tsv")
        common = {"input": str(corpus), "num_threads": 1, "minloglevel": 2}
        sentencepiece.SentencePieceTrainer.train(
            model_prefix=str(folder / "unigram"), model_type="unigram", vocab_size=900,
            normalization_rule_tsv=str(folder / "rules.tsv"), control_symbols=["<ctl>"],
            character_coverage=0.9995, **common)
        sentencepiece.SentencePieceTrainer.train(
            model_prefix=str(folder / "bpe"), model_type="bpe", vocab_size=1100, byte_fallback=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False,
            split_digits=True, user_defined_symbols=["<tool>", "[X]"], **common)
        for name in ("unigram", "bpe"):
            (out / f"{name}.model").write_bytes((folder / f"{name}.model").read_bytes())


def write_unigram_json(out):
    model = Reference(out / "unigram.model").model
    vocab = [(p.piece, p.score) for p in model.pieces]
    charsmap = model.normalizer_spec.precompiled_charsmap
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=model.trainer_spec.unk_id))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Precompiled(charsmap), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    (out / "unigram.json").write_text(tokenizer.to_str() + "\n")
    # Byte fallback, and no pre-tokenizer: the whole text is one piece.
    vocab += [(f"<0x{b:02X}>", -20.0) for b in range(256)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    (out / "bytes.json").write_text(tokenizer.to_str() + "\n")


def main():
    shared, golden = Path(sys.argv[1]), Path(sys.argv[2])
    out = golden / "spm"
    out.mkdir(parents=True, exist_ok=True)
    train(shared, out)
    write_unigram_json(out)
    texts = [bytes.fromhex(t).decode("utf-8", errors="replace")
             for t in json.loads((golden / "fuzz.json").read_text())["hex"]]
    wiki = (shared / "data/wikitext-2-raw/wiki.test.raw").read_text()
    rows = {}
    files = {name: (f"spm/{name}.model", out / f"{name}.model") for name in ("unigram", "bpe")}
    files |= {name: (path, shared / path) for name, path in SHARED_MODELS.items()}
    for name, (path, file) in files.items():
        reference = Reference(file)
        ids = [reference.encode(text) for text in texts]
        whole = reference.encode(wiki)
        rows[name] = {"file": path, "crc": "".join(map(crc, ids)), "wiki_count": len(whole),
                      "wiki_crc": crc(whole)}
        print(name, len(whole), file=sys.stderr)
    for name in ("unigram", "bytes"):
        tokenizer = Tokenizer.from_file(str(out / f"{name}.json"))
        whole = tokenizer.encode(wiki, add_special_tokens=False).ids
        rows[f"{name}.json"] = {
            "file": f"spm/{name}.json", "wiki_count": len(whole), "wiki_crc": crc(whole),
            "crc": "".join(crc(tokenizer.encode(t, add_special_tokens=False).ids) for t in texts)}
        print(name, len(whole), file=sys.stderr)
    head = {"made_by": f"tools/make_sentencepiece_goldens.py, sentencepiece "
                       f"{sentencepiece.__version__}, tokenizers {tokenizers.__version__}"}
    (out / "spm.json").write_text(json.dumps(head | {"tokenizers": rows}, separators=(",", ":"))
                                  + "\n")


if __name__ == "__main__":
    main()
