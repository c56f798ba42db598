#!/usr/bin/env python3
"""Runs clang-tidy on the C++ sources changed since a commit, newest change first, within a budget.

Files that the budget does not reach are named and counted, never passed over in silence.
Exit 1 if clang-tidy complains, 0 otherwise; the last line is `clang-tidy: N files clean, N with
findings, N not reached`.

Run: tools/run_clang_tidy.py BUILD_DIR [--base COMMIT | --all] [--seconds S] [--jobs N]
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
GRACE = 60  # seconds beyond the budget for a file that was begun within it


def git(*args):
    return subprocess.run(["git", *args], cwd=ROOT, check=True, capture_output=True,
                          text=True).stdout.split()


def changed_files(base):
    """Changed since base, or not committed; the newest commit's files first."""
    names = git("diff", "--name-only", "HEAD") + git("ls-files", "-o", "--exclude-standard")
    names += git("log", "--name-only", "--format=", f"{base}..HEAD")
    return list(dict.fromkeys(names))


def sources_to_check(build, base):
    """Every translation unit that was changed, or whose own header was."""
    built = {pathlib.Path(c["file"]).resolve() for c in
             json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))}
    if base is None:
        return sorted(built)
    out = []
    for name in changed_files(base):
        path = (ROOT / name).resolve()
        if path in built:
            out.append(path)
        elif path.suffix == ".h" and path.with_suffix(".cc") in built:
            out.append(path.with_suffix(".cc"))
    return list(dict.fromkeys(out))


def tidy(path, build, deadline):
    """Findings of a file; None where the budget ended before, or while it was read."""
    left = deadline - time.monotonic()
    if left < 0:
        return path, None
    try:
        done = subprocess.run(["clang-tidy", "--quiet", "--extra-arg=-Wno-unknown-warning-option",
                               "-p", str(build), str(path)], cwd=ROOT, timeout=left + GRACE,
                              check=False, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return path, None
    findings = done.stdout.strip() if done.returncode else ""
    return path, findings or (done.stderr.strip() if done.returncode else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--base", help="commit to compare with")
    parser.add_argument("--all", action="store_true", help="every source of the build")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    files = sources_to_check(args.build, None if args.all or not args.base else args.base)
    deadline = time.monotonic() + args.seconds
    clean, bad, missed = 0, 0, []
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for path, findings in pool.map(lambda p: tidy(p, args.build, deadline), files):
            if findings is None:
                missed.append(str(path.relative_to(ROOT)))
            elif findings:
                bad += 1
                print(findings, flush=True)
            else:
                clean += 1
    if missed:
        print(f"not reached in {args.seconds:.0f} s: {' '.join(missed)}")
    print(f"clang-tidy: {clean} files clean, {bad} with findings, {len(missed)} not reached")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
