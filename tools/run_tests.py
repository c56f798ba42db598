#!/usr/bin/env python3
"""Runs ctest in a build folder and counts single test cases.

A GoogleTest program counts by its cases, a program that left no report (it crashed or is no
GoogleTest) as one. The last line is `N passed, N failed[, N skipped]`; exit 1 on any failure.

Run: tools/run_tests.py BUILD_DIR [ctest options]
"""
import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET


def case_outcome(case):
    if case.get("failures"):
        return "failed"
    if case.get("result") == "SKIPPED":
        return "skipped"
    return "passed" if case.get("status") == "RUN" else None


def report_of(reports, name):
    path = reports / f"test_{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def count(reports, junit):
    """Counter of outcomes, and the names of failed and skipped cases."""
    total, names = collections.Counter(), {"failed": [], "skipped": []}

    def add(outcome, name):
        total[outcome] += 1
        if outcome in names:
            names[outcome].append(name)

    for program in ET.parse(junit).getroot().iter("testcase"):
        name, status = program.get("name"), program.get("status")
        report, failures = report_of(reports, name), 0
        for suite in (report or {}).get("testsuites", []):
            for case in suite["testsuite"]:
                outcome = case_outcome(case)
                failures += outcome == "failed"
                if outcome:
                    add(outcome, f"{name}: {suite['name']}.{case['name']}")
        if status == "fail" and failures == 0:  # crashed, timed out or no GoogleTest
            add("failed", name)
        elif report is None:
            add("passed" if status == "run" else "skipped", name)
    return total, names


def main():
    build, options = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]
    reports = build / "test-reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    junit = reports / "ctest.xml"
    done = subprocess.run(
        ["ctest", "--test-dir", str(build), "--output-on-failure", "--no-tests=error",
         "--output-junit", str(junit), *options],
        env={**os.environ, "GTEST_OUTPUT": f"json:{reports}/"}, check=False)
    if not junit.exists():
        print(f"run_tests: ctest wrote no report (exit {done.returncode})\n0 passed, 1 failed")
        return 1
    total, names = count(reports, junit)
    if done.returncode != 0 and total["failed"] == 0:
        total["failed"] = 1
        names["failed"].append(f"ctest itself (exit {done.returncode})")
    for outcome, which in names.items():
        for name in which:
            print(f"{outcome}: {name}")
    line = f"{total['passed']} passed, {total['failed']} failed"
    print(line + (f", {total['skipped']} skipped" if total["skipped"] else ""))
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
