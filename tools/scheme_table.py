#!/usr/bin/env python3
"""Prints a markdown table of schemes, measured: weight, activation, bits, perplexity, divergence.

Rows are those of `mantissa schemes` that run here, or the ones named. README.md and
docs/benchmarks.md hold its output.

Run: tools/scheme_table.py BINARY MODEL TEXT --ctx N [--schemes a,b,c]
"""
import argparse
import json
import re
import subprocess


def run(*command):
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--ctx", default="512")
    parser.add_argument("--schemes", help="comma-separated; options such as :g64 allowed")
    args = parser.parse_args()
    rows = {row["name"]: row for row in run(args.binary, "schemes", "--json")}
    names = args.schemes.split(",") if args.schemes else [
        name for name, row in rows.items() if row["on_cpu"] and not row["why_not"]]
    print("| scheme | weight | activation | size | perplexity | KLD mean | KLD 99.9 % | same top |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name in names:
        row = dict(rows[name.split(":")[0]])
        if group := re.search(r":g(\d+)", name):
            row["weight"] = re.sub(r"per-group \d+", f"per-group {group[1]}", row["weight"])
        result = run(args.binary, "perplexity", args.model, "--file", args.text, "--ctx", args.ctx,
                     "-q", name, "--kld-against", "bf16", "--json")
        print(f"| `{name}` | {row['weight']} | {row['activation']} | "
              f"{result['weights_bytes'] / 1e6:.2f} MB | {result['perplexity']:.3f} | "
              f"{result['kld_mean']:.5f} | {result['kld_p999']:.4f} | "
              f"{100 * result['top1_agreement']:.2f} % |", flush=True)


if __name__ == "__main__":
    main()
