#!/usr/bin/env python3
"""Speed of every scheme of the scheme table on this CPU: prefill and decode of one sequence.

One run of `mantissa bench latency` with random weights for each row of `mantissa schemes` that runs
here, and for the variants below; one JSON line each. Rows that the file already holds for this
commit are not measured again, unless other processes took much of a core meanwhile. `mantissa
devices` is run again every PEAK_SECONDS; a percentage is of the highest peak that any line holds.
About half a minute a row.

  measure_schemes.py BINARY --json FILE [--model models/shapes/Llama-3.2-1B] [--only a,b,c]
      [--lm-head-scheme SCHEME] [--print]
"""
import argparse
import json
import pathlib
import subprocess
import sys
import time

from compare_engines import OTHERS_MOST, busy_seconds, own_seconds

VARIANTS = ["fp8:act=token", "int8:asym", "int8_weight_only:g128", "int4_weight_only:g32",
            "int4_weight_only:asym", "int4_int8:g32", "int4_int8:g32:asym", "mxfp6:e2m3",
            "codebook4:g32"]
PEAK_SECONDS = 180
TOKENS, ANSWER = 512, 33
RUN = ["--load-format", "dummy", "--input-len", TOKENS, "--output-len", ANSWER,
       "--iterations", 2, "--warmup", 1]
PEAKS = ("f32_gflops", "bf16_gflops", "int8_gops")
COLUMNS = ["scheme", "bits/weight", "GB", "prefill 512 tok/s", "of peak", "decode tok/s",
           "weights GB/s", "read GB/s", "cores"]


def ask(binary, *command):
    """The JSON of a command, or its error."""
    done = subprocess.run([str(c) for c in (binary, *command, "--json")], check=False,
                          capture_output=True, text=True)
    if done.returncode != 0:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else
                f"exit status {done.returncode}"}
    return json.loads(done.stdout)


def base_of(scheme):
    return scheme.split(":")[0]


def wanted(schemes, only):
    """Names of the runs: the table's rows, each followed by its variants."""
    names = []
    for name in schemes:
        names += [name] + [v for v in VARIANTS if base_of(v) == name]
    if not only:
        return names
    unknown = [name for name in only if base_of(name) not in schemes]
    if unknown:
        sys.exit(f"no such scheme: {', '.join(unknown)}; the rows are {', '.join(schemes)}")
    return only


def linear_macs(config):
    """Multiplications of one token in all layers' linears, and in the head."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config.get("head_dim") or hidden // heads
    layer = hidden * dim * (heads + 2 * kv_heads) + heads * dim * hidden + 3 * hidden * inner
    return config["num_hidden_layers"] * layer, config["vocab_size"] * hidden


def arithmetic(kernel):
    """Which peak a linear kernel of `mantissa schemes` is held against."""
    if "int8_code" in kernel:
        return "int8_gops", "INT8"
    return ("bf16_gflops", "BF16") if kernel.endswith("avx512") else ("f32_gflops", "FP32")


class Device:
    """`mantissa devices` of the CPU, measured not long ago."""

    def __init__(self, binary):
        self.binary = binary
        self.measure()

    def measure(self):
        found = ask(self.binary, "devices", "--device", "cpu")
        if "error" in found:
            sys.exit(f"mantissa devices: {found['error']}")
        self.row, self.at = found[0], time.monotonic()

    def peaks(self):
        if time.monotonic() - self.at > PEAK_SECONDS:
            self.measure()
        return {key: self.row[key] for key in PEAKS}


def measure(args, scheme, row, device):
    """The line of one scheme."""
    line = {"scheme": scheme, "lm_head_scheme": args.lm_head_scheme, "model": args.model.name,
            "bits_per_linear_weight": row["bits_per_weight"], "kernel": row["on_cpu"]}
    if row["why_not"]:
        return line | {"not_run": row["why_not"]}
    line |= {"peaks": device.peaks()}
    busy, own, start = busy_seconds(), own_seconds(), time.monotonic()
    result = ask(args.binary, "bench", "latency", args.model, "-q", scheme, "--device", "cpu",
                 "--lm-head-scheme", args.lm_head_scheme, *RUN)
    seconds = time.monotonic() - start
    if "error" in result:
        return line | {"not_run": result["error"]}
    others = (busy_seconds() - busy - (own_seconds() - own)) / seconds
    layers, head = linear_macs(json.loads((args.model / "config.json").read_text()))
    rate = 2e-9 * (layers * TOKENS + head) / TOKENS * result["prefill_tok_s"]
    return line | result | {"scheme": scheme, "prefill_gops": rate, "others_cores": others,
                            "seconds": seconds}


def cells(line, peaks):
    if "not_run" in line:
        return [f"`{line['scheme']}`", f"{line['bits_per_linear_weight']:.2f}",
                f"not run: {line['not_run']}"] + [""] * (len(COLUMNS) - 3)
    peak, name = arithmetic(line["kernel"])
    return [f"`{line['scheme']}`", f"{line['bits_per_linear_weight']:.2f}",
            f"{line['weights_bytes'] / 1e9:.2f}", f"{line['prefill_tok_s']:.0f}",
            f"{100 * line['prefill_gops'] / peaks[peak]:.0f} % {name}",
            f"{line['decode_tok_s']:.1f} +- {line['decode_tok_s_std']:.1f}",
            f"{line['weights_gb_s']:.1f}",
            f"{line['read_gb_s_before']:.0f}, {line['read_gb_s_after']:.0f}",
            f"{line['core_round_trip_ns_before']:.0f}, {line['core_round_trip_ns_after']:.0f} ns"]


def highest_peaks(lines):
    measured = [line["peaks"] for line in lines if "peaks" in line]
    return {key: max((peaks[key] for peaks in measured), default=0) for key in PEAKS}


def print_table(lines):
    peaks = highest_peaks(lines)
    print("| " + " | ".join(COLUMNS) + " |")
    print("| --- |" + " ---: |" * (len(COLUMNS) - 1))
    for line in lines:
        print("| " + " | ".join(cells(line, peaks)) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path, required=True, help="JSON lines, appended")
    parser.add_argument("--model", type=pathlib.Path,
                        default=pathlib.Path("models/shapes/Llama-3.2-1B"))
    parser.add_argument("--only", help="comma-separated schemes; options such as :g64 allowed")
    parser.add_argument("--lm-head-scheme", default="auto")
    parser.add_argument("--print", action="store_true", help="the table of the file alone")
    args = parser.parse_args()
    schemes = {row["name"]: row for row in ask(args.binary, "schemes")}
    names = wanted(schemes, args.only.split(",") if args.only else None)
    device, lines = Device(args.binary), {}
    commit = device.row["commit"]
    if args.json.exists():
        for text in args.json.read_text().splitlines():
            line = json.loads(text)
            if line["commit"] == commit and line["lm_head_scheme"] == args.lm_head_scheme:
                lines[line["scheme"]] = line
    for name in names if not args.print else []:
        if name in lines and lines[name].get("others_cores", 0) <= OTHERS_MOST:
            continue
        line = measure(args, name, schemes[base_of(name)], device) | {"commit": commit}
        lines[name] = line
        with args.json.open("a") as out:
            out.write(json.dumps(line) + "\n")
        print("| " + " | ".join(cells(line, highest_peaks([line]))) + " |", file=sys.stderr,
              flush=True)
    print_table([lines[name] for name in names if name in lines])


if __name__ == "__main__":
    main()
