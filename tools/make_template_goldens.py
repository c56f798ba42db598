#!/usr/bin/env python3
"""Writes goldens of chat templates: what jinja2 says under transformers' settings.

Reads, of FOLDER (tests/golden/templates):
  constructs.txt   small templates of ours, one or more per construct, between lines of =====
  cases.json       the conversations for the shared templates, and the variables for ours
Writes there:
  constructs.json  our templates with their output in full
  shared.json      {template: {conversation: result}}; a result is the start of the SHA-256 of the
                   output (the templates are not ours to copy), what raise_exception said, or the
                   class of another exception
  python.json      CRC-32 of str's predicates over every code point, and of its case mappings

Usage: make_template_goldens.py SHARED_DIR FOLDER     (needs: pip install transformers jinja2)
"""
import datetime
import hashlib
import json
import sys
import zlib
from pathlib import Path

import jinja2
import transformers
from transformers.utils import chat_template_utils as utils

CASES = {}  # of cases.json


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromisoformat(CASES["now"])


def render(source, conversation):
    """("text", output), ("raised", message) or ("error", class of the exception and its text)."""
    try:
        out, _ = utils.render_jinja_template(
            [conversation["messages"]], tools=conversation.get("tools"),
            documents=conversation.get("documents"), chat_template=source,
            add_generation_prompt=conversation.get("add_generation_prompt", False),
            **CASES["tokens"], **conversation.get("variables", {}))
        return "text", out[0]
    except jinja2.exceptions.TemplateError as error:
        if type(error) is jinja2.exceptions.TemplateError:
            return "raised", str(error)
        return "error", f"{type(error).__name__}: {error}"
    except Exception as error:  # Python's own: TypeError and so on
        return "error", f"{type(error).__name__}: {error}"


def shared(folder):
    out = {}
    for path in sorted((folder / "chat_templates").glob("*.jinja")):
        source = path.read_text()
        row = {}
        for name, conversation in CASES["conversations"].items():
            for prompt in (False, True):
                kind, text = render(source, conversation | {"add_generation_prompt": prompt})
                if kind == "text":
                    text = hashlib.sha256(text.encode()).hexdigest()[:16]
                row[name + ("+prompt" if prompt else "")] = \
                    text if kind == "text" else f"{kind}: {text}" if kind == "raised" \
                    else f"{kind}: {text.split(':')[0]}"
        out[path.name] = row
        failed = sum(":" in value for value in row.values())
        print(path.name, len(row), "failed", failed, file=sys.stderr)
    return out


def constructs(templates):
    rows = []
    for source in templates:
        kind, text = render(source, {"messages": [],
                                     "variables": CASES["construct_variables"]})
        rows.append({"template": source, kind: text})
        if kind != "text":
            print(kind, repr(source), text, file=sys.stderr)
    return {"rows": rows}


def python():
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    cased = every[:0x20000 - 0x800] + [chr(c) for c in range(0xE0000, 0xE0200)]
    out = {}
    for name in ("isspace isalpha isdecimal isdigit isnumeric isalnum islower isupper isprintable "
                 "istitle").split():
        out[name] = f"{zlib.crc32(bytes(getattr(c, name)() for c in every)):08x}"
    for name in ("upper", "lower", "casefold", "capitalize", "title", "swapcase"):
        text = "\n".join(getattr(c, name)() for c in cased)
        out[name] = f"{zlib.crc32(text.encode()):08x}"
    # Sigmas between letters and marks, which str.lower looks at.
    mixed = "\n".join(f"a{c}Σ Σ{c}b aΣ{c}b Σ{c}" for c in cased)
    out["sigma"] = f"{zlib.crc32(mixed.lower().encode()):08x}"
    out["repr"] = f"{zlib.crc32(chr(10).join(repr(c) for c in cased).encode()):08x}"
    return out


def main():
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    CASES.update(json.loads((out / "cases.json").read_text()))
    with open(out / "constructs.txt", newline="") as file:
        templates = file.read().split("\n=====\n")[:-1]
    utils.datetime = FixedTime
    head = {"made_by": f"tools/make_template_goldens.py, jinja2 {jinja2.__version__}, "
                       f"transformers {transformers.__version__}, "
                       f"Python {sys.version.split()[0]}"}

    def write(name, data):
        (out / name).write_text(json.dumps(head | data, ensure_ascii=True, indent=0,
                                           separators=(",", ":")) + "\n")

    write("constructs.json", constructs(templates))
    write("shared.json", {"templates": shared(folder)})
    write("python.json", {"crc": python()})


if __name__ == "__main__":
    main()
