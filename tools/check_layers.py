#!/usr/bin/env python3
"""Checks that a layer of src/ includes only itself and the layers below it (docs/architecture.md).

Prints each violation; exit 1 if there is one.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What a layer may include beside itself.
MAY_INCLUDE = {
    "base": "",
    "quant": "base",
    "io": "base quant",
    "text": "base",
    "device": "base",
    "kernels": "base quant device",
    "model": "base quant io device kernels",
    "engine": "base quant io text device kernels model",
    "eval": "base quant io text device kernels model engine",
    "bench": "base quant io text device kernels model engine",
    "report": "base text",
    "serve": "base quant io text device kernels model engine",
    "app": "base quant io text device kernels model engine eval bench report serve",
}
PUBLIC = "mantissa"  # include/mantissa: standard headers and each other only
INCLUDE = re.compile(r'\s*#\s*include\s+"(\w+)/[^"]*"')


def violations(path, layer, allowed):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        hit = INCLUDE.match(line)
        if hit and hit[1] != layer and hit[1] not in allowed:
            yield f"{path.relative_to(ROOT)}:{number}: {layer} may not include {hit[1]}"


def main():
    bad, seen = [], 0
    files = [p for folder in ("src", "include") for p in sorted((ROOT / folder).rglob("*"))
             if p.suffix in (".h", ".cc", ".inc", ".cu", ".cuh")]
    for path in files:
        layer = path.relative_to(ROOT).parts[1]
        seen += 1
        if layer == PUBLIC:
            bad += violations(path, layer, set())
        elif layer not in MAY_INCLUDE:
            bad.append(f"{path.relative_to(ROOT)}: {layer} is no layer of tools/check_layers.py")
        else:
            # The layers that implement the public API include its headers.
            bad += violations(path, layer, set(MAY_INCLUDE[layer].split()) | {PUBLIC})
    print("\n".join(bad) if bad else f"layers: {seen} files, no violation")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
