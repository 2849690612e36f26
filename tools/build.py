"""Build the book strictly from the stored outputs, and print the path of the page to open.

Sphinx rebuilds the pages that changed. What concerns all pages (settings, table of contents, bibliography, styles,
versions) is fingerprinted: when it changes, or when the last build failed and so did not report on every page, the
build starts from nothing.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import previews
from chapter_line import repository

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
FINGERPRINT = BUILD / ".fingerprint"
PAGE = BUILD / "html" / "index.html"

# A page may link to other hosts, but load nothing from them: it has to work offline.
LOADS = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\bsrc\s*=\s*["'](?:https?:)?//[^"']*["']"""
    r"""|<link\b[^>]*?\bhref\s*=\s*["'](?:https?:)?//[^"']*["'][^>]*>""",
    re.IGNORECASE,
)
CANONICAL = re.compile(r"""rel\s*=\s*["'](?:canonical|license)["']""")


def fingerprint() -> str:
    """A hash of everything that concerns all pages."""
    names = ["_config.yml", "_toc.yml", "requirements.lock", "book/references.bib"]
    names += [
        "tools/build.py",
        "tools/book_html.py",
        "tools/cells.py",
        "tools/chapter_line.py",
        "tools/colab.py",
        "tools/opening.py",
        "tools/page_form.py",
        "tools/choose.py",
        "tools/found.py",
        "data/choose.json",
        "tools/previews.py",
        "tools/maths.py",
        "tools/page_weight.py",
        "tools/search_index.py",
        "tools/styles.py",
        "tools/mathjax/typeset.js",
        "data/run_seconds.json",
    ]
    files = [ROOT / name for name in names] + sorted((ROOT / "book" / "_static").rglob("*"))
    digest = hashlib.sha256(f"{ROOT} {repository()}".encode())
    for file in files:
        if file.is_file():
            digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def foreign_loads(html: str) -> list[str]:
    """The tags of a page that load something from another host.

    >>> foreign_loads('<a href="https://example.org">a link</a> <script src="local.js"></script>')
    []
    >>> foreign_loads('<script async src="https://example.org/x.js"></script>')
    ['<script async src="https://example.org/x.js"']
    """
    return [tag for tag in LOADS.findall(html) if not CANONICAL.search(tag)]


def main() -> int:
    start = time.perf_counter()
    now = fingerprint()
    if BUILD.exists() and (not FINGERPRINT.exists() or FINGERPRINT.read_text(encoding="utf-8") != now):
        shutil.rmtree(BUILD)
    FINGERPRINT.unlink(missing_ok=True)

    print("Building the book ...", flush=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", ".", "-n", "-W", "--keep-going", "-q"]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        print("The book was not built: the warnings above count as errors.", file=sys.stderr)
        return 1

    problems = [
        f"{page.relative_to(ROOT)} loads from another host: {tag}"
        for page in sorted((BUILD / "html").rglob("*.html"))
        for tag in foreign_loads(page.read_text(encoding="utf-8"))
    ]
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
        return 1

    previews.write(BUILD / "html")
    FINGERPRINT.write_text(now, encoding="utf-8")
    print(f"Built in {time.perf_counter() - start:.0f} s. Open {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
