#!/usr/bin/env python3
"""Speed of this engine beside peers on one machine, ratios side by side.

For each row and peer: ours, peer, ours again; the ratio is ours (mean of both) over the peer's, so
that a machine that changes meanwhile shows as a spread. Peers are folders with their own
llama-bench and llama-batched-bench; models are given by path. Nothing is built or downloaded.

  compare_engines.py --ours build/release/src/app/mantissa --model models/shapes/Llama-3.2-1B \\
      --peer llama.cpp=DIR [--peer ik=DIR] --pair int8=Q8_0.gguf --pair bf16=BF16.gguf \\
      [--measure prefill,decode,batch16,batch32] [--neighbour 0] [--launcher "CMD"] [--json FILE]

A pair is SCHEME=GGUF: what of ours stands beside which of theirs. --neighbour C keeps core C busy
with another process all the time; without it, a run during which other processes took more than a
quarter of a core is repeated. --launcher is put before every command that is timed.
"""

import argparse
import json
import os
import pathlib
import re
import resource
import shlex
import subprocess
import sys
import time

OTHERS_MOST = 0.25  # cores
PROMPT, ANSWER, BATCH_PROMPT, BATCH_ANSWER = 512, 48, 16, 17


def busy_seconds():
    """Processor time of everything that ran on this machine, in seconds."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def watch(command):
    """Runs the command and says on the last line of standard error what others took, in cores."""
    busy, own, start = busy_seconds(), own_seconds(), time.monotonic()
    code = subprocess.run(command, check=False).returncode
    seconds = time.monotonic() - start
    others = (busy_seconds() - busy - (own_seconds() - own)) / seconds
    print(f"\n{others:.3f}", file=sys.stderr)
    return code


def run(command, args):
    """Standard output and standard error; again where others took part of the machine meanwhile."""
    name = pathlib.Path(str(command[0])).name
    # Watched from inside the launcher, which may wait.
    whole = shlex.split(args.launcher) + [sys.executable, __file__, "--watch"]
    for attempt in range(args.attempts):
        done = subprocess.run(whole + [str(c) for c in command], capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            tail = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise RuntimeError(f"{name} failed: {' / '.join(tail)}")
        others = float(done.stderr.strip().splitlines()[-1])
        if args.neighbour is not None or others < OTHERS_MOST:
            return done.stdout, done.stderr
        print(f"{name}, attempt {attempt + 1}: other processes took {others:.2f} cores",
              file=sys.stderr)
    raise RuntimeError(f"{name}: the machine was never free")


class Ours:
    def __init__(self, args):
        self.args = args

    def speed(self, scheme, measure):
        """Tokens a second and the machine's state, as `bench latency` gives them."""
        a = self.args
        lengths = {"prefill": (1, PROMPT, 2), "decode": (1, 16, ANSWER)}
        batch, prompt, answer = lengths.get(measure) or (batch_of(measure), BATCH_PROMPT,
                                                         BATCH_ANSWER)
        command = [a.ours, "bench", "latency", a.model, "--json", "-q", scheme, "--batch-size",
                   batch, "--input-len", prompt, "--output-len", answer, "--iterations",
                   a.iterations, "--warmup", 1, "--threads", a.threads, "--lm-head-scheme",
                   a.lm_head_scheme]
        if not (pathlib.Path(a.model) / "tokenizer.json").exists():
            command += ["--load-format", "dummy"]
        result = json.loads(run(command, a)[0])
        key = "prefill_tok_s" if measure == "prefill" else "decode_tok_s"
        state = {k: result.get(k) for k in ("read_gb_s_before", "read_gb_s_after",
                                            "core_round_trip_ns_before",
                                            "core_round_trip_ns_after")}
        return result[key], state


class Peer:
    def __init__(self, name, folder, args):
        self.name, self.folder, self.args = name, pathlib.Path(folder), args

    def speed(self, gguf, measure):
        a = self.args
        if measure in ("prefill", "decode"):
            prompt, answer = (PROMPT, 0) if measure == "prefill" else (0, ANSWER)
            out, _ = run([self.folder / "llama-bench", "-m", gguf, "-p", prompt, "-n", answer,
                          "-r", a.iterations, "-t", a.threads, "-o", "json"], a)
            return json.loads(out[out.index("["):])[0]["avg_ts"]
        batch = batch_of(measure)
        # llama.cpp has the table on standard output, ik_llama.cpp on standard error.
        written = run([self.folder / "llama-batched-bench", "-m", gguf, "-npp", BATCH_PROMPT,
                       "-ntg", BATCH_ANSWER - 1, "-npl", batch, "-t", a.threads, "-c",
                       batch * (BATCH_PROMPT + BATCH_ANSWER + 32)], a)
        rows = re.findall(r"^\|" + r"\s*([\d.]+)\s*\|" * 10 + r"\s*$", "\n".join(written), re.M)
        if not rows:
            raise RuntimeError(f"{self.name}: no row in the output of llama-batched-bench")
        return float(rows[-1][7])  # PP TG B N_KV T_PP S_PP T_TG S_TG T S


def batch_of(measure):
    if not re.fullmatch(r"batch[1-9]\d*", measure):
        sys.exit(f"--measure: '{measure}' is none of prefill, decode, batchN")
    return int(measure[5:])


def compare(args):
    ours = Ours(args)
    peers = [Peer(*p.split("=", 1), args) for p in args.peer]
    rows = []
    for pair in args.pair:
        scheme, gguf = pair.rsplit("=", 1)
        for measure in args.measure.split(","):
            for peer in peers:
                row = {"measure": measure, "scheme": scheme, "gguf": pathlib.Path(gguf).name,
                       "peer": peer.name}
                try:
                    first, state = ours.speed(scheme, measure)
                    theirs = peer.speed(gguf, measure)
                    second, after = ours.speed(scheme, measure)
                except RuntimeError as error:
                    row["error"] = str(error)
                    print(f"{scheme} {measure} {peer.name}: {error}", file=sys.stderr)
                else:
                    row |= {"ours_before": first, "peer_tok_s": theirs, "ours_after": second,
                            "ratio": (first + second) / 2 / theirs, "machine": [state, after]}
                rows.append(row)
                if "ratio" in row:
                    print(f"{scheme} {measure} {peer.name}: {first:.1f} {theirs:.1f} "
                          f"{second:.1f}, ratio {row['ratio']:.2f}", file=sys.stderr)
    return rows


def table(rows):
    lines = ["| measure | ours | tok/s, before and after | peer | tok/s | ours / peer |",
             "| --- | --- | ---: | --- | ---: | ---: |"]
    for r in rows:
        if "error" in r:
            continue
        lines.append(f"| {r['measure']} | `{r['scheme']}` | {r['ours_before']:.1f}, "
                     f"{r['ours_after']:.1f} | {r['peer']} {r['gguf']} | {r['peer_tok_s']:.1f} | "
                     f"{r['ratio']:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--peer", action="append", default=[], required=True, metavar="NAME=DIR")
    parser.add_argument("--pair", action="append", default=[], required=True,
                        metavar="SCHEME=GGUF")
    parser.add_argument("--measure", default="prefill,decode")
    parser.add_argument("--lm-head-scheme", default="int8_weight_only",
                        help="of ours; the peers quantize theirs (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--neighbour", type=int, metavar="CORE")
    parser.add_argument("--launcher", default="")
    parser.add_argument("--attempts", type=int, default=4,
                        help="of a run while others use the machine (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    neighbour = None
    if args.neighbour is not None:
        neighbour = subprocess.Popen(["taskset", "-c", str(args.neighbour), sys.executable, "-c",
                                      "while True: pass"])
    try:
        rows = compare(args)
    finally:
        if neighbour is not None:
            neighbour.kill()
            neighbour.wait()
    print(table(rows))
    if args.json:
        for row in rows:
            row["neighbour"] = args.neighbour
        pathlib.Path(args.json).write_text("".join(json.dumps(r) + "\n" for r in rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--watch"]:
        sys.exit(watch(sys.argv[2:]))
    main()
