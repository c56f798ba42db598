#!/usr/bin/env python3
"""Speed of every scheme of the scheme table on this CPU: prefill and decode of one sequence.

One run of `mantissa bench latency` with random weights for each row of `mantissa schemes` that runs
here, and for the variants below; one JSON line each. Rows that the file already holds for this
commit, model and head are not measured again, unless the run failed or other processes took much of
a core meanwhile; a build of uncommitted changes needs a file without lines of its own. `mantissa
devices` is run again every PEAK_SECONDS; a percentage is of the highest peak that any line holds.
About half a minute a row. --print runs nothing: the table of the commit of the file's last line.

  measure_schemes.py BINARY --json FILE [--model models/shapes/Llama-3.2-1B] [--only a,b,c]
      [--lm-head-scheme SCHEME]
  measure_schemes.py --print --json FILE [--model ...] [--only ...] [--lm-head-scheme ...]
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
# First prefix that fits: which peak a linear kernel (src/kernels/cpu/plan.cc) is held against.
INT8, BF16, FP32 = ("int8_gops", "INT8"), ("bf16_gflops", "BF16"), ("f32_gflops", "FP32")
ARITHMETIC = [("linear_int8_code_any__", INT8),
              ("linear_bf16_bf16__avx512", BF16), ("linear_bf16_bf16__", FP32),
              ("linear_bf16_code_any__avx512", BF16),
              ("linear_float_code_any__avx512", BF16), ("linear_float_code_any__", FP32),
              ("linear_run_code_any__", FP32), ("linear_f32_f32__", FP32),
              ("linear_f16_f16__", FP32)]
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


def ask_list(binary, *command):
    """The JSON rows of a command that must work."""
    found = ask(binary, *command)
    if "error" in found:
        sys.exit(f"{binary} {command[0]}: {found['error']}")
    return found


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
    """Key and name of the peak that a linear kernel of `mantissa schemes` is held against."""
    for prefix, peak in ARITHMETIC:
        if kernel.startswith(prefix):
            return peak
    raise ValueError(f"{kernel}: in which arithmetic? Add its prefix to ARITHMETIC")


class Device:
    """`mantissa devices` of the CPU, measured not long ago."""

    def __init__(self, binary):
        self.binary = binary
        self.measure()

    def measure(self):
        self.row = ask_list(self.binary, "devices", "--device", "cpu")[0]
        self.at = time.monotonic()

    def peaks(self):
        if time.monotonic() - self.at > PEAK_SECONDS:
            self.measure()
        return {key: self.row[key] for key in PEAKS}


def measure(args, scheme, row, device):
    """The line of one scheme."""
    line = {"scheme": scheme, "lm_head_scheme": args.lm_head_scheme, "model": args.model.name,
            "kernel": row["on_cpu"]}
    if not row["on_cpu"]:
        return line | {"not_run": row["why_not"]}
    line |= {"peaks": device.peaks()}
    busy, own, start = busy_seconds(), own_seconds(), time.monotonic()
    result = ask(args.binary, "bench", "latency", args.model, "-q", scheme, "--device", "cpu",
                 "--lm-head-scheme", args.lm_head_scheme, *RUN)
    seconds = time.monotonic() - start
    if "error" in result:
        return line | {"error": result["error"]}
    others = (busy_seconds() - busy - (own_seconds() - own)) / seconds
    layers, head = linear_macs(json.loads((args.model / "config.json").read_text()))
    rate = 2e-9 * (layers * TOKENS + head) / TOKENS * result["prefill_tok_s"]
    return result | line | {"prefill_gops": rate, "others_cores": others, "seconds": seconds}


def cells(line, peaks):
    if "prefill_gops" not in line:
        why = f"not run: {line['not_run']}" if "not_run" in line else f"failed: {line['error']}"
        return [f"`{line['scheme']}`", "", why] + [""] * (len(COLUMNS) - 3)
    peak, name = arithmetic(line["kernel"])
    return [f"`{line['scheme']}`", f"{line['bits_per_weight']:.2f}",
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


def lines_of(args):
    """All lines of the file about this model and head, oldest first."""
    if not args.json.exists():
        return []
    lines = [json.loads(text) for text in args.json.read_text().splitlines()]
    return [line for line in lines if line["model"] == args.model.name
            and line["lm_head_scheme"] == args.lm_head_scheme]


def of_commit(lines, commit):
    """The last line of each scheme."""
    return {line["scheme"]: line for line in lines if line["commit"] == commit}


def done(line):
    return "error" not in line and line.get("others_cores", 0) <= OTHERS_MOST


def print_file(args, only):
    """The table of the file's last commit."""
    lines = lines_of(args)
    if not lines:
        sys.exit(f"{args.json}: no line for {args.model.name} with head {args.lm_head_scheme}")
    commit = lines[-1]["commit"]
    found = of_commit(lines, commit)
    missing = [name for name in only or [] if name not in found]
    if missing:
        sys.exit(f"{args.json}: no line of commit {commit} for {', '.join(missing)}")
    print(f"commit {commit}", file=sys.stderr)
    print_table([found[name] for name in only or found])


def measure_all(args, only):
    schemes = {row["name"]: row for row in ask_list(args.binary, "schemes")}
    names = wanted(schemes, only)
    device = Device(args.binary)
    commit = device.row["commit"]
    lines = of_commit(lines_of(args), commit)
    if lines and commit.endswith("+"):
        sys.exit(f"{args.json} holds lines of {commit}, perhaps of other uncommitted changes: "
                 "commit them, or give another file")
    for name in names:
        if name in lines and done(lines[name]):
            continue
        line = measure(args, name, schemes[base_of(name)], device) | {"commit": commit}
        lines[name] = line
        with args.json.open("a") as out:
            out.write(json.dumps(line) + "\n")
        print("| " + " | ".join(cells(line, highest_peaks([line]))) + " |", file=sys.stderr,
              flush=True)
    print_table([lines[name] for name in names])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=pathlib.Path, nargs="?")
    parser.add_argument("--json", type=pathlib.Path, required=True, help="JSON lines, appended")
    parser.add_argument("--model", type=pathlib.Path,
                        default=pathlib.Path("models/shapes/Llama-3.2-1B"))
    parser.add_argument("--only", help="comma-separated schemes; options such as :g64 allowed")
    parser.add_argument("--lm-head-scheme", default="auto")
    parser.add_argument("--print", action="store_true", help="the table of the file alone")
    args = parser.parse_args()
    if (args.binary is None) != args.print:
        parser.error("give either BINARY, to measure, or --print")
    only = args.only.split(",") if args.only else None
    if args.print:
        print_file(args, only)
    else:
        measure_all(args, only)


if __name__ == "__main__":
    main()
