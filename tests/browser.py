"""What the tests in a browser share: whether there is one, and the built book."""

import fcntl
import subprocess
import sys
from pathlib import Path

import build
import pytest
from chromium import CHROMIUM, MISSING

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
# Sections out of sight are not laid out (page.css); tests look at all of them.
ALL_LAID_OUT = ".bd-article > section > section { content-visibility: visible !important; }"
BUILT = build.FINGERPRINT  # written last
# For `page.evaluate`: two frames later, or after a second on a page that gets no frames.
DRAWN = """() => Promise.race([
  new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))),
  new Promise((done) => setTimeout(done, 1000)),
])"""

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)


def built_book() -> Path:
    """The folder of the pages, built if it is not there or older than a source; workers wait for each other."""
    sources = [*(ROOT / "book").rglob("*"), *(ROOT / "lrlib").glob("*.py")]
    newest = max(path.stat().st_mtime for path in sources if path.is_file())
    with open(ROOT / "tests" / "browser.py") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not BUILT.exists() or BUILT.read_text() != build.fingerprint() or BUILT.stat().st_mtime < newest:
            done = subprocess.run([sys.executable, "tools/build.py"], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    return HTML
