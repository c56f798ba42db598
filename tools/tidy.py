#!/usr/bin/env python3
"""Checks the rules of CONTRIBUTING.md that need no compiler, on every file git knows or would add.

Prints `path:line: rule` for each violation; exit 1 if there is one.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CODE = {".h", ".cc", ".inc", ".cu", ".cuh"}
TEXT = CODE | {".py", ".sh", ".md", ".txt", ".cmake", ".json", ".run"}
NOT_OURS = ("models/", "data/", "tests/golden/", "fuzz/corpus/")  # data, checked for size and paths
CASES = ("tests/", "tools/make_")  # rows of cases with literals that clang-format cannot break
CASE_MAX = 170
LINE_MAX, FILE_MAX, BYTES_MAX = 100, 800, 15_000_000
FUNCTION_MAX, KERNEL_MAX = 80, 150

# pattern, where it is banned, where it is allowed, what to do instead. The words are split so that
# this file passes its own check.
BANNED = [
    (r"\b(FIX" r"ME|TO" r"DO|XX" r"X|HA" r"CK)\b", "", (), "finish it, or say it in an issue"),
    (r"\bget" r"env\s*\(", "src/", ("src/base/env.cc",), "read the environment through base/env.h"),
    (r"(?<![\w:])(std::)?(f?printf|f?puts|putchar)\s*\(|std::(cout|cerr|clog)|\bfmt::print\b",
     "src/", ("src/app/", "src/base/error.cc"), "printing belongs to src/app"),
    (r"#\s*include\s*<\w*intrin\.h>|\b_mm\d*_\w+\(|\b__m(128|256|512)", "src/",
     ("src/kernels/cpu/",), "intrinsics belong to src/kernels/cpu"),
    (r"<<" r"<", "src/", ("src/kernels/cuda/",), "kernels are launched in src/kernels/cuda"),
    (r"\busing namespace std;", "", (), "name what is used"),
    (r"\bstd::(rand|srand)\b|(?<!\w)s?rand\(", "src/", (), "use the counter-based generator"),
    (r"\bstd::(format|expected)\b|#\s*include\s*<(format|expected|omp\.h)>", "", (),
     "not in this compiler, or not in this project"),
    (r"\bdynamic_cast\b|\bvirtual\b", "src/", (), "tables of functions instead of inheritance"),
    (r"(?<!\w)(std::)?(atoi|atof|strcpy|strcat|sprintf|gets)\s*\(", "src/", (), "no bounds"),
    (r"(^|[\s\"'=(:])/(work|root|home|tmp/bash_jobs)/", "", ("tools/tidy.py",), "no machine paths"),
]
BANNED = [(re.compile(p), area, allowed, why) for p, area, allowed, why in BANNED]

NO_FUNCTION = re.compile(
    r"(inline |static |constexpr |template.* |typedef )*"
    r"(namespace|struct|class|enum|union|extern \"C\")\b|.*=\s*\{$|using ")


def files():
    out = subprocess.run(["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"], cwd=ROOT,
                         check=True, capture_output=True, text=True).stdout
    return sorted(f for f in set(out.split("\0")) if f and (ROOT / f).is_file())


def is_text(name):
    return pathlib.Path(name).suffix in TEXT or name in (".ci/run", "CMakeLists.txt")


def check_banned(name, lines):
    for pattern, area, allowed, why in BANNED:
        if not name.startswith(area) or name.startswith(allowed or ("\0",)):
            continue
        for number, line in lines:
            if pattern.search(line):
                yield number, f"{pattern.search(line)[0].strip()!r}: {why}"


def check_layout(name, lines):
    limit = CASE_MAX if name.startswith(CASES) else LINE_MAX
    table = False  # between clang-format off and on, alignment is the content
    for number, line in lines:
        table = (table or "clang-format off" in line) and "clang-format on" not in line
        if line != line.rstrip():
            yield number, "space at the end of the line"
        if "\t" in line:
            yield number, "a tab"
        if len(line) > limit and not table and not name.endswith((".md", ".json")):
            yield number, f"{len(line)} characters, at most {limit}"
    if len(lines) > FILE_MAX and not name.endswith((".md", ".json")):
        yield len(lines), f"{len(lines)} lines, at most {FILE_MAX}"


def check_functions(name, lines):
    """clang-format puts a function's last brace into column 0; so no parser is needed."""
    limit = KERNEL_MAX if name.startswith("src/kernels/") else FUNCTION_MAX
    start = None
    for number, line in lines:
        if re.match(r"[A-Za-z_~].*[{(,]$", line) and not NO_FUNCTION.match(line):
            start = start or number
        elif line.startswith("}"):
            if start and number - start + 1 > limit:
                yield start, f"a function of {number - start + 1} lines, at most {limit}"
            start = None


def check_head(name, lines):
    """A source file beside its header is described there."""
    first = lines[0][1] if lines else ""
    public = ROOT / "include" / "mantissa" / f"{pathlib.Path(name).stem}.h"
    headers = (ROOT / name).with_suffix(".h"), public
    if not first.startswith("//") and not any(h.is_file() for h in headers):
        yield 1, "the first line must say what the file is for"
    if name.endswith(".h") and not any(line == "#pragma once" for _, line in lines):
        yield 1, "#pragma once is missing"


def check_used(names, texts):
    """Every source is built, every header included."""
    cmake = "\n".join(texts[n] for n in names if n.endswith(("CMakeLists.txt", ".cmake")))
    code = "\n".join(texts[n] for n in names if pathlib.Path(n).suffix in CODE)
    for name in names:
        header = name.startswith("src/") and name.endswith((".h", ".inc"))
        if header and f'"{name[4:]}"' not in code:
            yield name, 1, "nobody includes it"
        if name.startswith(("src/", "tests/")) and name.endswith(".cc"):
            base = pathlib.Path(name).name
            if not re.search(rf"(^|[\s/\"(]){re.escape(base)}\b", cmake):
                yield name, 1, "no CMakeLists.txt builds it"


def main():
    bad, texts = [], {}
    for name in files():
        path = ROOT / name
        if path.stat().st_size > BYTES_MAX:
            bad.append(f"{name}:1: {path.stat().st_size} bytes, at most {BYTES_MAX}")
        if not is_text(name) or name.startswith(NOT_OURS):
            continue
        texts[name] = path.read_text(encoding="utf-8")
        lines = list(enumerate(texts[name].split("\n"), 1))
        if lines[-1][1]:
            bad.append(f"{name}:{lines[-1][0]}: no newline at the end")
        lines.pop()
        checks = [check_banned, check_layout]
        if pathlib.Path(name).suffix in CODE:
            checks += [check_head, check_functions]
        bad += [f"{name}:{number}: {what}"
                for check in checks for number, what in check(name, lines)]
    bad += [f"{name}:{number}: {what}" for name, number, what in check_used(list(texts), texts)]
    print("\n".join(bad) if bad else f"tidy: {len(texts)} files, nothing to complain about")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
