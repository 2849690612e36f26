"""Settings for every test: tour scale, one thread a worker, no windows, long files first.

`pytest --package` runs what needs neither the book nor its tools: the tests and doctests of lrlib.
"""

import json
import os
from collections import defaultdict
from pathlib import Path

# Kernels and worker processes inherit these; libraries read the thread counts when they are first imported.
for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"):
    os.environ[f"{name}_NUM_THREADS"] = "1"
os.environ["VECLIB_MAXIMUM_THREADS"] = "1"
os.environ["LRLIB_SCALE"] = "tour"
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
# Not through MPLBACKEND, which the kernels would inherit: they need the inline backend.
os.environ.pop("MPLBACKEND", None)

import matplotlib  # noqa: E402
import pytest  # noqa: E402

matplotlib.use("Agg")

OF_THE_BOOK = (
    "test_book",
    "test_book_html",
    "test_browser",
    "test_carry",
    "test_cells",
    "test_chapter_line",
    "test_choose",
    "test_execute",
    "test_explorers",
    "test_found",
    "test_full_scale",
    "test_margins",
    "test_notebooks",
    "test_opening",
    "test_page",
    "test_pdf",
    "test_pins",
    "test_previews",
    "test_project",
    "test_rosetta",
    "test_search",
    "test_sizes",
    "test_style",
    "test_styles",
    "test_types",
    "test_weight",
)
SECONDS = "lrlib/seconds"
LONG = {  # seconds, about, where no run has told yet; of a notebook those that its page names
    "tests/test_browser.py": 270.0,
    "tests/test_full_scale.py": 130.0,
    "tests/test_weight.py": 110.0,
    "tests/test_explorers.py": 100.0,
    "tests/test_pdf.py": 60.0,
}
_seconds: dict[str, float] = defaultdict(float)


def _file(nodeid: str) -> str:
    """The file of a test; nbval writes that of a cell as book/annealing::ipynb::Cell 0."""
    name, *rest = nodeid.split("::")
    return f"{name}.ipynb" if rest[:1] == ["ipynb"] else name


def pytest_addoption(parser):
    parser.addoption("--package", action="store_true", help="only the tests and doctests of lrlib")


def pytest_ignore_collect(collection_path, config):
    """With --package, what needs the book or its tools is not even imported."""
    top = collection_path.relative_to(config.rootpath).parts[:1]
    outside = top and top[0] not in ("lrlib", "tests", "conftest.py")
    of_the_book = collection_path.stem in (*OF_THE_BOOK, "browser", "elsewhere", "notebook_checks")
    return True if config.getoption("package") and (outside or of_the_book) else None


def pytest_collection_modifyitems(config, items):
    """Longest file first, by the last run's times, so that no long one is left alone at the end."""
    shown = json.loads((Path(__file__).parent / "data" / "run_seconds.json").read_text(encoding="utf-8"))
    known = LONG | {f"book/{name}.ipynb": seconds for name, seconds in shown.items()}
    known |= config.cache.get(SECONDS, {}) if hasattr(config, "cache") else {}

    def key(item):
        file = _file(item.nodeid)
        return -known.get(file, 0.0), file

    items.sort(key=key)  # stable: the order inside a file stays


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A cell of a notebook reaches the verdicts that are stored with it, also where nbval ignores its output."""
    result = yield
    if hasattr(item, "test_outputs"):
        made, stored = _verdicts(item.test_outputs), _verdicts(item.cell.outputs)
        assert made == stored, f"the cell reaches the verdicts {made}, with it are stored {stored}"
    return result


def _verdicts(outputs):
    from lrlib.claims import MIME

    found = [output["data"][MIME] for output in outputs if MIME in output.get("data", {})]
    return {settled["claim"]: settled["verdict"] for settled in found}


def pytest_runtest_logreport(report):
    _seconds[_file(report.nodeid)] += report.duration


def pytest_sessionfinish(session):
    cache = getattr(session.config, "cache", None)  # none in a worker's, nor with -p no:cacheprovider
    if cache and _seconds and not hasattr(session.config, "workerinput"):
        cache.set(SECONDS, cache.get(SECONDS, {}) | dict(_seconds))
