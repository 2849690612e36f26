"""Where Chromium or Google Chrome is on this machine, and how to start it without a window."""

import shutil
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLACES = [f"/Applications/{name}.app/Contents/MacOS/{name}" for name in ("Google Chrome", "Chromium")]
CHROMIUM = next(filter(None, [*map(shutil.which, NAMES), *(place for place in PLACES if Path(place).exists())]), None)
LAUNCH: dict[str, Any] = {"executable_path": CHROMIUM, "args": ["--no-sandbox", "--disable-gpu"]}
MISSING = "no Chromium: `apt-get install chromium` (Debian, Ubuntu) or install Google Chrome"
