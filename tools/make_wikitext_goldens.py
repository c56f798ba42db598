#!/usr/bin/env python3
"""Writes tests/golden/wikitext_lm_eval.json: lm-eval's own loglikelihood_rolling, page by page.

The model side is lm-eval's HFLM (transformers, float32, CPU), the text side its wikitext task
(wikitext_detokenizer; words and bytes counted on the original page by its process_results).
Two settings of HFLM, because they differ by one BOS token:
  default  add_bos_token not given: the tokenizer's post-processor adds BOS, so BOS is itself the
           first target, predicted from the prefix token (also BOS)
  no_bos   add_bos_token=False: the first target is the text's first token

The rolling rule that the numbers follow is in docs/evaluation.md.

Run: nice python3 tools/make_wikitext_goldens.py [--shared DIR]   (lm_eval, transformers, torch)
"""
import argparse
import importlib.metadata
import json
import math
import pathlib

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks.wikitext.preprocess_wikitext import process_results, wikitext_detokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = (("wiki-6m", 512, None), ("wiki-29m", 1024, 10))  # name, max_length, pages (None: all)
SETTINGS = {"default": {}, "no_bos": {"add_bos_token": False}}


def rolling(model, max_length, docs, setting):
    lm = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=1,
              max_length=max_length, **setting)
    requests = [Instance("loglikelihood_rolling", doc, (wikitext_detokenizer(doc),), i)
                for i, doc in enumerate(docs)]
    return lm, lm.loglikelihood_rolling(requests, disable_tqdm=True)


def evaluate(model, max_length, docs):
    out = {"model": model.name, "max_length": max_length}
    pages = []
    for name, setting in SETTINGS.items():
        lm, scores = rolling(model, max_length, docs, setting)
        for i, (doc, score) in enumerate(zip(docs, scores)):
            if len(pages) <= i:
                counts = process_results(doc, (score,))
                pages.append({"page": i, "words": counts["word_perplexity"][1],
                              "bytes": counts["byte_perplexity"][1], "tokens": {}})
            pages[i]["tokens"][name] = len(lm.tok_encode(wikitext_detokenizer(doc)))
            pages[i][name] = float(f"{score:.9g}")
        total = math.fsum(scores)
        words, size = sum(p["words"] for p in pages), sum(p["bytes"] for p in pages)
        out[name] = {"word_perplexity": math.exp(-total / words),
                     "byte_perplexity": math.exp(-total / size),
                     "bits_per_byte": -total / size / math.log(2)}
    return out | {"prefix_token_id": lm.prefix_token_id, "pages": pages}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=pathlib.Path, default=ROOT.parent / "shared")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = args.shared / "data" / "wikitext-2-raw" / "wikitext_document_level_test.jsonl"
    docs = [json.loads(line) for line in data.read_text(encoding="utf-8").split("\n") if line]
    golden = {"about": "lm-eval loglikelihood_rolling per page, HFLM float32; "
                       "tools/make_wikitext_goldens.py",
              **{p: importlib.metadata.version(p).split("+")[0]
                 for p in ("lm_eval", "transformers", "torch")},
              "models": []}
    for name, max_length, count in MODELS:
        result = evaluate(args.shared / "models" / name, max_length, docs[:count])
        golden["models"].append(result)
        print(name, {s: result[s] for s in SETTINGS}, flush=True)
    text = json.dumps(golden, indent=1)
    (ROOT / "tests" / "golden" / "wikitext_lm_eval.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
