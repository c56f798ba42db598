#!/usr/bin/env python3
"""Writes docs/text_results.json: what tokenizers and chat templates have passed.

Runs the built text tests (with ../shared, or what they compare is missing) and adds the last run of
tools/compare_tokenizers.py.

Usage: text_results.py TEST_TEXT COMPARE.json OUT.json
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path


def main():
    test, compare, out = map(Path, sys.argv[1:4])
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run([test.resolve(), f"--gtest_output=json:{report}"], check=False,
                       stdout=subprocess.DEVNULL)
        suites = json.loads(report.read_text())["testsuites"]
    tests = {f"{suite['name']}.{case['name']}": case
             for suite in suites for case in suite["testsuite"]}

    def passed(case):
        return case["result"] == "COMPLETED" and "failures" not in case

    def named(prefix):
        return {name.removeprefix(prefix): case for name, case in tests.items()
                if name.startswith(prefix)}

    templates = tests["Templates.SharedTemplatesAsJinja2"]
    result = {
        "made_by": "tools/text_results.py",
        "templates": {
            "passed": passed(templates),
            **{key: int(templates.get(key, 0)) for key in ("templates", "texts", "refusals")}},
        "constructs_passed": passed(tests["Templates.EveryConstructAsJinja2"]),
        "ggml_vectors": {name: {"strings": int(case.get("strings", 0)), "passed": passed(case)}
                         for name, case in named("Files/GgmlVectors.SameIds/").items()},
        "wikitext": {name: passed(case) for prefix in (
            "Tokenizers/Reference.WholeWikiText/", "Models/WikiText.Whole/")
            for name, case in named(prefix).items()},
        "one_megabyte_of_one_character": {
            name: passed(case)
            for name, case in named("Tokenizers/Speed.AMegabyteOfOneCharacter/").items()},
        "random_strings": json.loads(compare.read_text()),
    }
    out.write_text(json.dumps(result, indent=1) + "\n")
    failed = [name for name, case in tests.items() if "failures" in case]
    print(f"{len(tests)} tests, failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
