"""Under a chapter's title: minutes to read and to run, the notebook to download, where to open it; what it found.

Under the book's title it is the sum of all chapters.

The reading time is worked out from the notebook, the running time was measured by `make notebooks`. The repository's
address is known in GitHub Actions and in a clone from GitHub; elsewhere the links that need it are left out.
"""

import json
import math
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import cells
import opening

from lrlib.claims import Ledger

ROOT = Path(__file__).resolve().parent.parent
RUN_SECONDS = ROOT / "data" / "run_seconds.json"
COLAB_BRANCH = "colab"

# What a careful reader takes.
WORDS_A_MINUTE = 200
SECONDS_A_FORMULA = 20
SECONDS_A_FIGURE = 20
SECONDS_A_LINE_OF_CODE = 2

FORMULA = re.compile(r"\$\$.*?\$\$", re.DOTALL)
MARKUP = re.compile(r"\{[\w:]+\}`|[`$#*_:{}()\[\]|\\-]+")


def reading_minutes(notebook: dict) -> int:
    """Minutes to read a notebook: its words, displayed formulas, figures and unfolded lines of code, rounded to fives.

    >>> prose = {"cell_type": "markdown", "source": "word " * 2000 + "$$ x $$"}
    >>> code = {"cell_type": "code", "source": "x = 1\\n" * 30, "outputs": []}
    >>> reading_minutes({"cells": [prose, code]})
    10
    """
    seconds = 0.0
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            words = MARKUP.sub(" ", FORMULA.sub(" ", text)).split()
            seconds += 60 * len(words) / WORDS_A_MINUTE + SECONDS_A_FORMULA * len(FORMULA.findall(text))
        elif cell["cell_type"] == "code":
            figures = sum("image/png" in output.get("data", {}) for output in cell["outputs"])
            lines = cells.lines(cell) if cells.shown(cell) == "whole" else 0
            seconds += SECONDS_A_FIGURE * figures + SECONDS_A_LINE_OF_CODE * lines
    return max(5, 5 * round(seconds / 300))


def repository(environment: Mapping[str, str] = os.environ) -> str | None:
    """ "owner/name" on GitHub, of the running workflow or of the clone's origin; None where there is neither.

    >>> repository({"GITHUB_REPOSITORY": "someone/the-book"})
    'someone/the-book'
    """
    if environment.get("GITHUB_REPOSITORY"):
        return environment["GITHUB_REPOSITORY"]
    asked = subprocess.run(["git", "-C", ROOT, "remote", "get-url", "origin"], capture_output=True, text=True)
    return github_name(asked.stdout.strip())


def github_name(url: str) -> str | None:
    """ "owner/name" of a remote's address on GitHub.

    >>> github_name("git@github.com:someone/the-book.git"), github_name("https://github.com/someone/the-book")
    ('someone/the-book', 'someone/the-book')
    >>> github_name("/home/someone/the-book") is None
    True
    """
    found = re.fullmatch(r"(?:https://|ssh://git@|git@)github\.com[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?", url)
    return found[1] if found else None


def pages_address(name: str) -> str:
    """Where GitHub Pages publishes the book of a repository.

    >>> pages_address("someone/the-book"), pages_address("someone/someone.github.io")
    ('https://someone.github.io/the-book/', 'https://someone.github.io/')
    """
    owner, project = name.split("/")
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if project.lower() == host else f"https://{host}/{project}/"


def launch_links(name: str, chapter: str) -> dict[str, str]:
    """Addresses that open a chapter of a repository in a hosted notebook, by label.

    >>> for label, address in launch_links("someone/the-book", "annealing").items():
    ...     print(label, address)
    Open in Colab https://colab.research.google.com/github/someone/the-book/blob/colab/book/annealing.ipynb
    Open in Binder https://mybinder.org/v2/gh/someone/the-book/HEAD?labpath=book%2Fannealing.ipynb
    """
    path = f"book/{chapter}.ipynb"
    return {
        "Open in Colab": f"https://colab.research.google.com/github/{name}/blob/{COLAB_BRANCH}/{path}",
        "Open in Binder": f"https://mybinder.org/v2/gh/{name}/HEAD?labpath={quote(path, safe='')}",
    }


def minutes(count: int) -> str:
    """
    >>> minutes(1), minutes(5)
    ('1 minute', '5 minutes')
    """
    return f"{count} minute{'' if count == 1 else 's'}"


def line(notebook: dict, chapter: str, download: str, run_seconds: Mapping[str, int], name: str | None) -> str:
    """The paragraph, as HTML.

    >>> line({"cells": []}, "x", "x.ipynb", {"x": 70}, None)
    '<p class="lr-chapter-line">5 minutes to read · 2 minutes to run · <a href="x.ipynb" download>notebook</a></p>'
    """
    parts = [f"{minutes(reading_minutes(notebook))} to read"]
    if chapter in run_seconds:
        parts.append(f"{minutes(math.ceil(run_seconds[chapter] / 60))} to run")
    parts.append(f'<a href="{download}" download>notebook</a>')
    if name:
        parts += [f'<a href="{address}">{label}</a>' for label, address in launch_links(name, chapter).items()]
    return f'<p class="lr-chapter-line">{" · ".join(parts)}</p>'


def total(notebooks: Mapping[str, dict], run_seconds: Mapping[str, int]) -> str:
    """The paragraph of the front page, as HTML: all chapters together.

    >>> total({"x": {"cells": []}, "y": {"cells": []}}, {"x": 70, "y": 100})
    '<p class="lr-chapter-line">2 chapters · 10 minutes to read · 3 minutes to run</p>'
    """
    reading = sum(map(reading_minutes, notebooks.values()))
    running = math.ceil(sum(run_seconds.get(name, 0) for name in notebooks) / 60)
    to_read = minutes(reading) if reading < 120 else f"{round(reading / 60)} hours"
    parts = [f"{len(notebooks)} chapters", f"{to_read} to read", f"{minutes(running)} to run"]
    return f'<p class="lr-chapter-line">{" · ".join(parts)}</p>'


def add_line(app, pagename, templatename, context, doctree) -> None:
    if doctree is None:
        return
    sources = {name: Path(app.env.doc2path(name)) for name in app.env.found_docs}
    chapters = {path.stem: path for path in sources.values() if path.suffix == ".ipynb"}
    run_seconds = json.loads(RUN_SECONDS.read_text(encoding="utf-8"))
    if pagename == app.config.root_doc:
        notebooks = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in chapters.items()}
        new = total(notebooks, run_seconds)
    elif sources[pagename].suffix == ".ipynb":
        notebook = json.loads(sources[pagename].read_text(encoding="utf-8"))
        download = context["pathto"](f"_sources/{context['sourcename']}", 1)
        new = line(notebook, sources[pagename].stem, download, run_seconds, app.config.lr_repository)
        new += opening.found(Ledger([sources[pagename]]))
    else:
        return
    context["body"] = context["body"].replace("</h1>", "</h1>\n" + new, 1)


def set_address(app, config) -> None:
    if config.lr_repository and not config.html_baseurl:
        config.html_baseurl = pages_address(config.lr_repository)


def setup(app) -> dict:
    app.add_config_value("lr_repository", repository(), "html")
    app.connect("config-inited", set_address)
    app.connect("html-page-context", add_line, priority=600)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
