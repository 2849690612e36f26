"""What a newcomer meets first: citation, forms, workflows, and links that lead to a project and not to a registry."""

import ast
import json
import re
import runpy
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import lrlib

ROOT = Path(__file__).resolve().parent.parent
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("book/*.md"), *ROOT.glob("book/*.ipynb"), *ROOT.glob("lrlib/*.py")]
REGISTRIES = re.compile(r"//(?:[\w-]+\.)*(pypi|pythonhosted|anaconda|npmjs|unpkg|jsdelivr)\.")
SUFFIXES = "py|sh|js|json|ipynb|md|lock|yml|toml|bib|css|png|cff|npz"
AUTHORS = "The Learning Rate authors"


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def citation_problems(citation):
    """What the format 1.2.0 asks of a file that this one lacks."""
    problems = [
        f"{key} is missing"
        for key in ("cff-version", "message", "title", "authors", "version")
        if not citation.get(key)
    ]
    names = {"name", "family-names", "given-names", "alias"}
    problems += [f"{author} has no name" for author in citation.get("authors") or () if not names & set(author)]
    if citation.get("type") not in (None, "software", "dataset"):
        problems.append(f"type is {citation['type']}, not software or dataset")
    if str(citation.get("cff-version")) != "1.2.0":
        problems.append(f"cff-version is {citation.get('cff-version')}, not 1.2.0")
    return problems


def test_the_citation_is_whole_and_agrees_with_the_package(project):
    citation = load(ROOT / "CITATION.cff")
    assert citation_problems(citation) == []
    assert citation["version"] == project["version"]
    assert [author["name"] for author in citation["authors"]] == [AUTHORS]


@pytest.mark.parametrize(
    ("key", "value"),
    [("authors", []), ("authors", [{"email": "a@b"}]), ("message", ""), ("type", "book"), ("cff-version", "1.1.0")],
)
def test_a_citation_that_lacks_something_is_found(key, value):
    assert len(citation_problems(load(ROOT / "CITATION.cff") | {key: value})) == 1


def test_the_authors_are_named_everywhere(project):
    assert load(ROOT / "_config.yml")["author"] == AUTHORS
    assert project["authors"] == [{"name": AUTHORS}]


@pytest.mark.parametrize("path", [form for form in FORMS if form.stem != "config"], ids=lambda path: path.stem)
def test_a_form_has_what_github_asks_for(path):
    form = load(path)
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    assert all(field["type"] in ("input", "textarea") and field["attributes"]["label"] for field in form["body"])
    assert any(field.get("validations", {}).get("required") for field in form["body"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_says_what_runs_where_and_for_how_long(path):
    for job in load(path)["jobs"].values():
        assert {"runs-on", "timeout-minutes", "steps"} <= set(job)
        assert all(set(step) & {"uses", "run"} for step in job["steps"])


def test_ci_runs_every_python_from_the_lowest_allowed_on(project):
    matrix = load(ROOT / ".github" / "workflows" / "test.yml")["jobs"]["package"]["strategy"]["matrix"]
    assert project["requires-python"] == f">={matrix['python'][0]}"
    assert {"ubuntu-latest", "macos-latest", "windows-latest"} == set(matrix["os"])


def test_the_tests_of_the_book_are_those_that_package_leaves_out():
    names = {path.stem for path in (ROOT / "tests").glob("test_*.py")}
    of_the_book = set(runpy.run_path(str(ROOT / "conftest.py"))["OF_THE_BOOK"])
    assert of_the_book <= names
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")} - {"draw_pictures"}
    for name in names - of_the_book:
        text = (ROOT / "tests" / f"{name}.py").read_text(encoding="utf-8")
        assert not set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)) & tools, name


@pytest.mark.parametrize("host", ["pypi.", "files.pythonhosted.", "conda.anaconda.", "www.npmjs."])
def test_a_link_to_a_registry_is_found(host):
    assert REGISTRIES.search(f"see [x](https://{host}example/project/x)")
    assert not REGISTRIES.search(f"see https://x.readthedocs.io, on {host}example")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_a_project_and_not_to_a_registry(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    assert REGISTRIES.findall(text) == []


TOOL = """#!/bin/sh
echo "$(basename "$0") $* ${UV_EXTRA_INDEX_URL:-}" >>calls
case "$*" in *" .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python ;; esac
"""


CODE = sorted(path for folder in ("lrlib", "tools") for path in ROOT.glob(f"{folder}/*.py"))


@pytest.mark.parametrize("path", CODE, ids=[f"{path.parent.name}/{path.name}" for path in CODE])
def test_texts_are_read_and_written_in_an_encoding_that_is_named(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    texts = [call for call in calls if getattr(call.func, "attr", None) in ("read_text", "write_text")]
    assert all("encoding" in {word.arg for word in call.keywords} for call in texts)


@pytest.mark.parametrize(("tool", "install"), [("uv", "uv pip install"), ("somepython", "python -m pip")])
def test_uv_makes_the_environment_where_it_is_and_pip_where_it_is_not(tmp_path, tool, install):
    for name in ("tools/environment.sh", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for name in ("sh", "basename", "cat", "cksum", "cp", "dirname", "grep", "mkdir", "rm", "tr"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    (tmp_path / "bin" / tool).write_text(TOOL, encoding="utf-8")
    (tmp_path / "bin" / tool).chmod(0o755)
    settings = {
        "PATH": f"{tmp_path}/bin",
        "PYTHON": "somepython",
        "PIP_EXTRA_INDEX_URL": "https://i.example",
    }
    for _ in range(2):  # the second call has nothing to do
        subprocess.run(["tools/environment.sh"], cwd=tmp_path, env=settings, check=True, capture_output=True)
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    installs = [call for call in calls if call.startswith(install) and " install " in call]
    assert len(installs) == 2 and "-r requirements.lock" in installs[0] and "-e ." in installs[1]
    assert tool == "somepython" or all(call.endswith("https://i.example") for call in installs)
    assert (tmp_path / ".venv" / ".installed").exists() and not (tmp_path / ".venv" / ".installing").exists()


def told_but_missing(text):
    """Files, names of lrlib and targets of make that a text gives as code, and that are not there.

    >>> told_but_missing("`lrlib/run.py`, `run.py`, `lrlib.train(...)`, `book/NAME.ipynb`, `make fix`, `_build/x.pdf`")
    []
    >>> told_but_missing("`tools/no.py`, `no.py`, `lrlib.trian`, `make fx`")
    ['fx', 'lrlib.trian', 'no.py', 'tools/no.py']
    """
    shell = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    quoted = "\n".join(re.findall(r"`([^`\n]+)`", text) + shell)
    files = set(re.findall(rf"[\w./~-]+(?:/|\.(?:{SUFFIXES}))(?![\w./])", quoted))
    missing = {path for path in files if not re.search("_build/|NAME|~|npz$", path) and not exists(path)}
    names = re.findall(r"lrlib\.(\w+)", re.sub(r"-m lrlib\S+", "", quoted))
    missing |= {f"lrlib.{name}" for name in names if not hasattr(lrlib, name)}
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return sorted(missing | set(re.findall(r"\bmake ([a-z]\w*)", quoted)) - set(targets))


def exists(path):
    """Whether a path leads somewhere, from the root or, of a bare file name, from a folder that is spoken of."""
    return any((ROOT / folder / path).exists() for folder in ("", "lrlib", "tools", "book", "book/_static/explorers"))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_what_a_newcomer_is_told_of_is_there(name):
    assert told_but_missing((ROOT / name).read_text(encoding="utf-8")) == []


def private_names(source):
    """What a test takes from lrlib that begins with an underscore; _torchvision is a helper with a test of its own.

    >>> private_names("from lrlib import stats, _check\\nstats._mean(1); stats.__name__; other._x")
    ['_check', 'stats._mean']
    """
    tree = ast.parse(source)
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and str(n.module).startswith("lrlib")]
    taken = [alias.asname or alias.name for node in imports for alias in node.names]
    private = [name for name in taken if name.startswith("_") and name != "_torchvision"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match("_(?!_|repr_)", node.attr):
            first = ast.unparse(node.value).partition(".")[0]
            if first in taken or first == "lrlib":
                private.append(ast.unparse(node))
    return private


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*.py")), ids=lambda path: path.stem)
def test_tests_use_the_public_names_of_lrlib(path):
    assert private_names(path.read_text(encoding="utf-8")) == []
