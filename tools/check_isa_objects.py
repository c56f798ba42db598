#!/usr/bin/env python3
"""Checks that objects compiled for an instruction set hold no weak symbol (docs/adr/0004).

Reads compile_commands.json of a build folder: an object counts when it was compiled with -m flags
of an instruction set. Exit 1 on a weak symbol, and when there is no such object to look at.

Run: tools/check_isa_objects.py BUILD_DIR
"""
import json
import pathlib
import re
import subprocess
import sys

ISA_FLAG = re.compile(r"\s-m(arch=|avx|fma|f16c|bmi|sse4)")
WEAK = set("vVwWu")


def main():
    build = pathlib.Path(sys.argv[1])
    commands = json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))
    objects = [c for c in commands
               if "/src/kernels/" in c["file"] and ISA_FLAG.search(c["command"])]
    bad = []
    for entry in objects:
        output = re.search(r"\s-o (\S+)", entry["command"])[1]
        symbols = subprocess.run(["nm", "--demangle", build / output], check=True,
                                 capture_output=True, text=True).stdout.splitlines()
        for line in symbols:
            kind = re.match(r"[0-9a-f ]{16} (\w) (.*)", line)
            # An undefined weak symbol (w, v without an address) brings no code along.
            if kind and kind[1] in WEAK and not line.startswith(" "):
                bad.append(f"{pathlib.Path(entry['file']).name}: weak symbol {kind[2]}")
    if not objects:
        bad.append(f"no object under {build} was compiled for an instruction set")
    print("\n".join(bad) if bad else f"isa objects: {len(objects)} files, no weak symbol")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
