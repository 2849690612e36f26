"""What the tests in a browser share: where Chromium is, and the built book."""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
BUILT = ROOT / "_build" / ".fingerprint"  # written last by tools/build.py
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLACES = [f"/Applications/{name}.app/Contents/MacOS/{name}" for name in ("Google Chrome", "Chromium")]
CHROMIUM = next(filter(None, [*map(shutil.which, NAMES), *(place for place in PLACES if Path(place).exists())]), None)
LAUNCH = {"executable_path": CHROMIUM, "args": ["--no-sandbox", "--disable-gpu"]}

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium: `apt-get install chromium` (Debian, Ubuntu) or install Google Chrome to run them",
)


def built_book() -> Path:
    """The folder of the pages, built if it is not there or older than a source; workers wait for each other."""
    sources = [ROOT / "_config.yml", ROOT / "_toc.yml", *(ROOT / "tools").glob("b*.py"), *(ROOT / "book").rglob("*")]
    newest = max(path.stat().st_mtime for path in sources if path.is_file())
    with open(ROOT / "tests" / "browser.py") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not BUILT.exists() or BUILT.stat().st_mtime < newest:
            done = subprocess.run([sys.executable, "tools/build.py"], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    return HTML
