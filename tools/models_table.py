#!/usr/bin/env python3
"""Writes the table of docs/models.md: what each row of the table of architectures reads and how
near its logits are to those of transformers, as the tests measure it.

The test of the models records the rows and the largest gaps; docs/text_results.json (written by
tools/text_results.py) says what tokenizers and chat templates have passed, and the newest
docs/benchmarks/h200-models-*.json what the same test recorded on a GPU (its --gtest_output=json).

Run: tools/models_table.py build/release/tests/model/test_model
"""
import argparse
import json
import pathlib
import re
import subprocess
import tempfile

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"
PAGE, TEXT = DOCS / "models.md", DOCS / "text_results.json"
# Which of the compared tokenizers and templates are a family's own.
VECTORS = {"llama": ("llama-bpe", "llama-spm"), "qwen2": ("qwen2", "deepseek-r1-qwen"),
           "qwen3": ("qwen2",)}
RANDOM = {"llama": ("llama-3", "llama-2"), "qwen2": ("qwen2.5",), "qwen3": ("qwen2.5",),
          "phi3": ("phi-3-mini",), "mistral": ("mistral v1", "mistral v3")}
TEMPLATES = {
    "llama": ("Llama-3.2-3B", "Llama-3.3-70B", "Hermes-3", "functionary"),
    "mistral": ("Mistral-Nemo", "Devstral"), "qwen2": ("QwQ-32B", "R1-Distill-Qwen"),
    "qwen3": ("Qwen3-0.6B",), "smollm3": ("SmolLM3-3B",)}
BEGIN, END = "<!-- table: tools/models_table.py -->\n", "<!-- end of table -->\n"


def recorded(report):
    """All that the goldens' tests recorded, from gtest's JSON."""
    known = {"name", "file", "line", "status", "result", "timestamp", "time", "classname"}
    return {key: value for suite in json.loads(report.read_text())["testsuites"]
            for test in suite["testsuite"] for key, value in test.items() if key not in known}


def properties(binary):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out.json"
        subprocess.run([binary, "--gtest_filter=Golden.*", f"--gtest_output=json:{out}"],
                       check=True, capture_output=True)
        found = recorded(out)
    for report in sorted(DOCS.glob("benchmarks/h200-models-*.json"))[-1:]:
        found |= {key: value for key, value in recorded(report).items() if key.endswith("_cuda")}
    return found


def gap(found, kind, family, device):
    value = found.get(f"{kind}_{family}_{device}")
    return f"{float(value):.1e}" if value is not None else "-"


def plain(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


def vectors_of(family, text):
    """The family's vector files and tokenizers that passed, with the number of strings."""
    results = {plain(name): row for name, row in text.get("ggml_vectors", {}).items()}
    rows = [(name, results.get(plain(name))) for name in VECTORS.get(family, ())]
    passed = [f"{name} {row['strings']}" for name, row in rows if row and row["passed"]]
    for row in text.get("random_strings", {}).get("rows", ()):
        name = row["tokenizer"].removesuffix(" (tokenizer.model)")
        if name in RANDOM.get(family, ()) and row["different"] == 0:
            passed.append(f"{row['tokenizer']} {row['strings']} random")
    return ", ".join(passed) or "-"


def templates_of(family, text):
    """The test of the templates covers all of them: it passed, or none counts."""
    if not text.get("templates", {}).get("passed"):
        return "-"
    return ", ".join(TEMPLATES.get(family, ())) or "-"


def table(found, text):
    families = [key.removeprefix("class_") for key in found if key.startswith("class_")]
    yield ("| family | class | block | RoPE | keys of its own | ref, float32 | cpu, float32 | "
           "cuda, float32 | ref, quantized | cuda, quantized | cpu, bfloat16 (RMS) | "
           "cuda, bfloat16 (RMS) | tokenizer vectors | chat templates |")
    yield "| --- | --- | --- | --- | --- |" + " ---: |" * 7 + " --- | --- |"
    for family in families:
        keys = ", ".join(f"`{key}`" for key in found[f"keys_{family}"].split(",") if key)
        yield "| " + " | ".join([
            f"`{family}`", found[f"class_{family}"], found[f"block_{family}"],
            found[f"rope_{family}"].replace(",", ", "), keys or "-",
            *(gap(found, "f32", family, device) for device in ("ref", "cpu", "cuda")),
            *(gap(found, "quantized", family, device) for device in ("ref", "cuda")),
            *(gap(found, "bf16", family, device) for device in ("cpu", "cuda")),
            vectors_of(family, text), templates_of(family, text)]) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", help="the built test_model")
    args = parser.parse_args()
    text = json.loads(TEXT.read_text()) if TEXT.exists() else {}
    rows = "\n".join(table(properties(args.binary), text)) + "\n"
    page = PAGE.read_text()
    head, rest = page.split(BEGIN)
    PAGE.write_text(head + BEGIN + "\n" + rows + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
