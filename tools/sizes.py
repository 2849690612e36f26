"""How long the modules of lrlib and the chapters are, which of them grew, and which records are stale.

    python tools/sizes.py            report; a line that begins with "!" names what wants a look
    python tools/sizes.py --store    also keep the sizes in data/sizes.json, to compare with from now on

Nothing here fails a build: a longer page can be a better one.
"""

import ast
import io
import json
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from cells import shown
from chapter_line import ROOT

from lrlib import load_record

STORED = ROOT / "data" / "sizes.json"
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(source: str) -> int:
    """Lines of code without docstrings, comments and blank lines.

    >>> code_lines('def f(x):\\n    "Doc."\\n\\n    # why\\n    return x\\n')
    2
    """
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and first.end_lineno:
                lines -= set(range(first.lineno, first.end_lineno + 1))
    return len(lines)


@dataclass(frozen=True)
class Chapter:
    """Sizes of a notebook: words of prose, code lines that the reader sees at first, code lines in all, and which
    share of all words, code and printed output included, is not prose."""

    words: int
    visible: int
    code: int
    not_prose: float


def chapter(notebook: dict) -> Chapter:
    """The sizes of a notebook.

    >>> prose = {"cell_type": "markdown", "source": "six words of prose are here"}
    >>> shown = {"cell_type": "code", "source": "x = 1\\n\\ny = 2", "metadata": {}, "outputs": []}
    >>> folded = shown | {"metadata": {"tags": ["hide-input"]}}
    >>> chapter({"cells": [prose, shown, folded]})
    Chapter(words=6, visible=2, code=4, not_prose=0.5)
    """
    words = visible = code = others = 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            words += len(source.split())
            continue
        lines = sum(bool(line.strip()) for line in source.splitlines())
        code += lines
        if shown(cell) == "whole":
            visible += lines
            others += len(source.split())
        others += sum(len(text.split()) for text in printed(cell))
    return Chapter(words, visible, code, round(others / max(words + others, 1), 2))


def printed(cell: dict) -> Iterator[str]:
    """The texts that a code cell put out."""
    for output in cell["outputs"]:
        yield "".join(output.get("text", output.get("data", {}).get("text/plain", "")))


def grown(sizes: dict[str, int], stored: dict[str, int]) -> list[str]:
    """What is longer than it was when the sizes were stored, or was not there.

    >>> grown({"a, words": 110, "b, words": 5}, {"a, words": 100, "b, words": 7})
    ['a, words: 110, was 100']
    """
    return [f"{name}: {n:,}, was {stored.get(name, 0):,}" for name, n in sizes.items() if n > stored.get(name, 0)]


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--store"]):
        print(__doc__, file=sys.stderr)
        return 2
    modules = {path.stem: code_lines(path.read_text(encoding="utf-8")) for path in sorted(ROOT.glob("lrlib/*.py"))}
    chapters = {
        path.stem: chapter(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(ROOT.glob("book/*.ipynb"))
    }
    print(f"{'lrlib':20} {sum(modules.values()):5} code lines")
    for name, lines in sorted(modules.items(), key=lambda item: -item[1]):
        print(f"  {name:18} {lines:5}")
    print(f"\n{'chapter':20} {'words':>6} {'visible lines':>14} {'all lines':>10} {'not prose':>10}")
    for name, size in chapters.items():
        print(f"{name:20} {size.words:6} {size.visible:14} {size.code:10} {size.not_prose:10.0%}")

    sizes = {"lrlib, code lines": sum(modules.values())}
    for name, size in chapters.items():
        sizes |= {f"{name}, words": size.words, f"{name}, visible lines": size.visible}
    stored = json.loads(STORED.read_text(encoding="utf-8")) if STORED.is_file() else {}
    print("\nLonger than when sizes were stored, and records that are stale:")
    for line in grown(sizes, stored):
        print(f"! {line}")
    for record in (load_record(path.stem) for path in sorted(ROOT.glob("data/records/*.json"))):
        if record.stale:
            print(f"! {record.label}")
    if arguments:
        STORED.write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
