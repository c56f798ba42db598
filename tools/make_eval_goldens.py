#!/usr/bin/env python3
"""Writes tests/golden/eval.json: what numpy and lm-eval say of small inputs of src/eval.

  rows    logits of a model and of a base model with targets; per row, in float64: log-sum-exp, nll,
          Kullback-Leibler divergence, delta p; over all rows: perplexity and its error, mean,
          median and 99.9 % percentile of the divergence, top-1 agreement, RMS delta p
  texts   strings with lm-eval's wikitext_detokenizer and its word and byte counts
  pages   FNV-1a hashes of the detokenized pages of WikiText-2's test set

Run: python3 tools/make_eval_goldens.py   (numpy, lm_eval; reads data/wikitext-2-raw)
"""
import json
import math
import pathlib

import numpy as np
from lm_eval.tasks.wikitext.preprocess_wikitext import process_results, wikitext_detokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = ROOT / "data" / "wikitext-2-raw" / "wikitext_document_level_test.jsonl"
TEXTS = [
    "", " ", "word", " = Title = \n \n A @-@ b 1 @,@ 000 @.@ 5 c . d , e ; f : g ! h ? i \n",
    "( a ) (b ) ( c( d ) ) ( open", "[ x ] { y } ) ( \n ) ( ( z ) ]",
    "\" quoted \" and \"half", "' single ' don 't it 's James ' s ' and the dogs ' bowl",
    "= = = = Four = = = = = = = Three = = = = = Two = = =", "5 \u00b0 C , 7 \u00b0 F \u00b0 ",
    " \n line \n\n other \n end", "1 N 2 N N 3", "/' 5/ and /' x/ /' 7/' 8/",
    "(\u00a0\u2003wide\u3000) [\u200bnot a space\u200b] {\u0085next\u2028}", "\u00e9t\u00e9 \u4e2d\u6587 \U0001f600",
    "a\u00a0b\u2003c\u3000d\x1ce\x85f\u180eg\ufeffh", "tab\tnew\nfeed\x0cvt\x0bcr\r end ",
    "nested ' one \" two ' three \" four '", "s 's ' s '' s", "() [] {} \"\" ''", "(\n\n) ( ) [ ]",
]


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def log_softmax(x):
    x = x.astype(np.float64)
    lse = x.max() + np.log(np.exp(x - x.max()).sum())
    return x - lse, lse


def rows():
    rng = np.random.default_rng(1)
    out, klds, deltas, nlls, same = [], [], [], [], []
    for i in range(12):
        vocab = 53  # no multiple of a vector
        base = (rng.standard_normal(vocab) * (0.1, 3, 12)[i % 3] + (0, 50, -200)[i // 4])
        base = base.astype(np.float32)
        noise = rng.standard_normal(vocab) * (0, 0.01, 0.5, 3)[i % 4] + (0, 0, 2.5)[i % 3]
        logits = (base.astype(np.float64) + noise).astype(np.float32)
        target = int(rng.integers(vocab))
        (lb, lse_b), (lx, lse_x) = log_softmax(base), log_softmax(logits)
        klds.append(float((np.exp(lb) * (lb - lx)).sum()))
        deltas.append(float(math.exp(lx[target]) - math.exp(lb[target])))
        nlls.append(float(-lx[target]))
        same.append(bool(base.argmax() == logits.argmax()))
        out.append({"base": base.tolist(), "logits": logits.tolist(), "target": target,
                    "base_lse": lse_b, "lse": lse_x, "nll": nlls[-1], "kld": klds[-1],
                    "delta_p": deltas[-1], "same_top": same[-1]})
    nll = float(np.mean(nlls))
    summary = {"nll": nll, "perplexity": math.exp(nll),
               "stderr": math.exp(nll) * float(np.std(nlls)) / math.sqrt(len(nlls) - 1),
               "kld_mean": float(np.mean(klds)), "kld_median": float(np.median(klds)),
               "kld_p999": float(np.percentile(klds, 99.9)), "top1_agreement": float(np.mean(same)),
               "rms_delta_p": float(np.sqrt(np.mean(np.square(deltas))))}
    return out, summary


def texts():
    out = []
    for page in TEXTS:
        counts = process_results({"page": page}, (0.0,))
        out.append({"page": page, "detokenized": wikitext_detokenizer({"page": page}),
                    "words": counts["word_perplexity"][1], "bytes": counts["byte_perplexity"][1]})
    return out


def main():
    docs = [json.loads(line) for line in PAGES.read_text(encoding="utf-8").splitlines()]
    row_list, summary = rows()
    golden = {"about": "numpy float64 and lm-eval; tools/make_eval_goldens.py",
              "rows": row_list, "summary": summary, "texts": texts(),
              "pages": [f"{fnv1a(wikitext_detokenizer(doc).encode()):016x}" for doc in docs]}
    path = ROOT / "tests" / "golden" / "eval.json"
    path.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    print(path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
