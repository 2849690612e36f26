"""Where results come from: hashes that see what matters of the code and nothing else, and names of devices."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from lrlib import provenance

CODE = """
import lrlib
from lrlib import tools
from lrlib.shapes import Shape as S

def run(x):
    return lrlib.train(x) + tools.helper(S)
"""
PACKAGE = {
    "__init__": "from lrlib.shapes import *\nfrom lrlib.training import *",
    "training": """
import math

def train(x):
    'What it does.'
    from lrlib import late
    if x < 0:
        raise ValueError(f"x={x!r}: must be >= 0")
    return _inner(late.value(), x)

def _inner(a, b):
    return a * b  # a comment

def unused():
    return 0
""",
    "late": "RATES = [1, 2]\nOTHER = 3\ndef value(): return RATES[0]",
    "tools": "from lrlib import _check\ndef helper(s): return _check.fine(s)",
    "_check": "def fine(s): return s",
    "shapes": "class Shape:\n    def area(self):\n        return 1",
}


def digest(root, module="__init__", old="", new="", code=CODE):
    (root / "lrlib").mkdir(exist_ok=True)
    for name, text in PACKAGE.items():
        assert name != module or old in text
        (root / "lrlib" / f"{name}.py").write_text(text.replace(old, new) if name == module else text)
    return provenance.library_hash(code, root)


@pytest.mark.parametrize(
    "module, old, new",
    [
        ("training", "a * b", "a + b"),
        ("training", "x < 0", "x <= 0"),
        ("late", "[1, 2]", "[1, 3]"),
        ("late", "RATES[0]", "RATES[1]"),
        ("tools", "_check.fine(s)", "s"),
        ("tools", "def helper(s): return", "def helper(s):\n    s.append(_check.fine(s))\n    return"),
        ("shapes", "return 1", "return 2"),
        ("__init__", "training import *", "training import unused as train"),
    ],
)
def test_what_is_used_directly_or_through_others_counts(tmp_path, module, old, new):
    assert digest(tmp_path) != digest(tmp_path, module, old, new)


@pytest.mark.parametrize(
    "module, old, new",
    [
        ("training", "return 0", "return 1"),
        ("training", "'What it does.'", "'What it does, in other words.'"),
        ("training", "a * b  # a comment", "(a\n        * b)"),
        ("training", "must be >= 0", "must be at least 0"),
        ("late", "OTHER = 3", "OTHER = 4"),
        ("_check", "return s", "return s + 0"),
        ("tools", "def helper(s): return", "def helper(s):\n    _check.fine(s)\n    return"),
        ("__init__", "training import *", "training import train, unused"),
        ("__init__", "from lrlib.shapes", "from lrlib.late"),
    ],
)
def test_what_is_not_used_or_has_no_effect_does_not(tmp_path, module, old, new):
    assert digest(tmp_path) == digest(tmp_path, module, old, new)


def test_of_the_code_what_it_reaches_counts_and_not_how_it_is_written(tmp_path):
    same = CODE.replace("from lrlib.shapes import Shape as S", "import lrlib.shapes").replace(
        "S)", "lrlib.shapes.Shape)"
    )
    assert digest(tmp_path) == digest(tmp_path, code=same)
    assert digest(tmp_path) != digest(tmp_path, code=CODE.replace("tools.helper(S)", "1"))


@pytest.mark.parametrize(
    "code",
    [
        "import lrlib.shapes\nlrlib.shapes.Shape",
        "import lrlib.shapes as s\ns.Shape",
        "from lrlib.shapes import *\nShape",
        "from lrlib import *\nShape",
    ],
)
def test_however_it_is_imported_what_is_used_counts(tmp_path, code):
    assert digest(tmp_path, code=code) != digest(tmp_path, code="1")
    assert digest(tmp_path, code=code) == digest(tmp_path, code="from lrlib.shapes import Shape as S\nS")


def test_an_attribute_of_a_long_call_is_none_of_the_library(tmp_path):
    call = f"lrlib.shapes.Shape({{{', '.join(f'key{k}: {k}' for k in range(99))}}})"
    code = "import lrlib.shapes\n"
    assert digest(tmp_path, code=f"{code}{call}.rows") == digest(tmp_path, code=code + call)


def test_a_name_that_a_class_reads_and_gives_counts():
    assert provenance.used_by("z = 3\nclass B:\n    z = z", "B").startswith("z = 3")


def test_a_name_that_a_class_only_gives_is_its_own():
    assert provenance.used_by("z = 3\nclass B:\n    z = 4", "B") == "class B:\n    z = 4\nB"


PROGRAMME = """'About.'
import math as m, os.path
from lrlib import net

SIZES = {"a": 1}
SIZES["b"] = 2
for width in SIZES:
    LAST = width
factor = [k * m.pi for k in range(3)]


def make(k):
    return net(LAST, k)


class Own(net):
    size = factor


rows = [make(k) for k in range(4)]
"""


@pytest.mark.parametrize(
    "expression, there, not_there",
    [
        ("make", ["net", "LAST = width", "SIZES['b'] = 2", "def make"], ["import math", "factor", "rows", "class"]),
        ("lambda: Own().size", ["m.pi", "import math as m", "class Own", "lambda: Own"], ["def make", "LAST", "rows"]),
        ("1 + 1", ["SIZES = {'a': 1}", "SIZES['b'] = 2"], ["About", "import", "LAST", "factor", "rows"]),
        ("k", ["SIZES", "k"], ["factor", "rows", "make"]),
        ("os.path.sep", ["import math as m, os.path"], ["net"]),
    ],
)
def test_a_programme_is_cut_to_what_an_expression_uses(expression, there, not_there):
    cut = provenance.used_by(PROGRAMME, expression)
    assert all(part in cut for part in there) and not any(part in cut for part in not_there), cut
    assert cut.endswith(expression)


@pytest.mark.parametrize(
    "same", ["a =  1\nb = f(a, 2)", "a = 1  # one\n\nb = f(\n    a,\n    2,\n)\n", "'About.'\na = 1\nb = (f(a, 2))"]
)
def test_a_source_hash_is_blind_to_layout(same):
    assert provenance.source_hash("a = 1\nb = f(a, 2)") == provenance.source_hash(same)


def test_a_source_hash_sees_a_change():
    assert len({provenance.source_hash(code) for code in ("a = 1", "a = 2", "b = 1", "a = '1'")}) == 4


def test_the_commit_is_that_of_the_folder_or_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("LRLIB_COMMIT", raising=False)
    assert provenance.versions(tmp_path)["commit"] == "unknown"
    monkeypatch.setenv("LRLIB_COMMIT", "abc")
    assert provenance.versions(tmp_path)["commit"] == "abc"


def test_a_cpu_is_called_by_its_name():
    info = Path("/proc/cpuinfo")
    known = info.read_text() if info.is_file() else ""
    name = provenance.device_name(torch.device("cpu"))
    assert name in known if "model name" in known else name


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
@pytest.mark.parametrize("folder, marked", [("lrlib", True), ("book", True), ("tools", False)])
def test_a_commit_is_marked_where_the_library_or_the_book_differ_from_it(tmp_path, monkeypatch, folder, marked):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    commit = provenance.versions(tmp_path)["commit"]
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "new.py").touch()
    assert len(commit) == 10 and provenance.versions(tmp_path)["commit"] == commit + "+" * marked
