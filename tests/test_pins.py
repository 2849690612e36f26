"""The three lists of packages agree: exact pins, ranges, and the conda environment."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
CONDA_NAMES = {"pytorch": "torch"}  # where conda-forge's name is another
NOT_PACKAGES = {"python", "pip"}
OPTIONAL = ("rosetta", "bench")  # extras with a lock of their own
CUDA = re.compile(r"^(nvidia|cuda|cupy|triton|pytorch-triton)\b")


def read_lock(text: str) -> dict[str, str]:
    """Name to version. Anything but exact pins is an error."""
    pins = {}
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if not line:
            continue
        requirement = Requirement(line)
        (specifier,) = requirement.specifier or [None]
        if specifier is None or specifier.operator != "==" or "*" in specifier.version:
            raise ValueError(f"not an exact pin: {line}")
        pins[canonicalize_name(requirement.name)] = specifier.version
    return pins


def read_ranges(project: dict) -> dict[str, SpecifierSet]:
    """Name to range, of all direct dependencies and extras but the optional ones."""
    extras = project["optional-dependencies"].items()
    lists = [project["dependencies"], *(lines for extra, lines in extras if extra not in OPTIONAL)]
    requirements = [Requirement(line) for lines in lists for line in lines]
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in requirements}


def read_conda(environment: dict) -> dict[str, str]:
    """Name (pip's) to version, of the conda part and the pip part."""
    lines = []
    for entry in environment["dependencies"]:
        lines += entry["pip"] if isinstance(entry, dict) else [entry]
    pins = {}
    for line in lines:
        name, _, version = re.sub("=+", "=", line).partition("=")
        if name not in NOT_PACKAGES and not line.startswith("-e"):
            pins[canonicalize_name(CONDA_NAMES.get(name, name))] = version
    return pins


def lock_problems(pins: dict[str, str]) -> list[str]:
    problems = [f"{name} is a CUDA package" for name in pins if CUDA.match(name)]
    return problems + [f"{name} has a local version: {version}" for name, version in pins.items() if "+" in version]


def range_problems(pins: dict[str, str], ranges: dict[str, SpecifierSet]) -> list[str]:
    problems = []
    for name, allowed in ranges.items():
        if name not in pins:
            problems.append(f"{name} is not in requirements.lock")
        elif not allowed.contains(pins[name], prereleases=True):
            problems.append(f"{name}: {pins[name]} in requirements.lock is outside {allowed} in pyproject.toml")
        elif not allowed:
            problems.append(f"{name} has no range in pyproject.toml")
    return problems


def conda_problems(pins: dict[str, str], conda: dict[str, str], direct: set[str]) -> list[str]:
    problems = [f"{name} is not in environment.yml" for name in sorted(direct - set(conda))]
    for name, version in conda.items():
        if pins.get(name) != version:
            problems.append(f"{name}: {version} in environment.yml, {pins.get(name)} in requirements.lock")
    return problems


@pytest.fixture(scope="module")
def pins():
    return read_lock((ROOT / "requirements.lock").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rosetta():
    return read_lock((ROOT / "requirements-rosetta.lock").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def ranges(project):
    return read_ranges(project)


@pytest.fixture(scope="module")
def conda():
    return read_conda(yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8")))


def test_lock_has_no_cuda_and_no_local_versions(pins):
    assert lock_problems(pins) == []


def test_lock_satisfies_the_ranges(pins, ranges):
    assert "torch" in ranges
    assert range_problems(pins, ranges) == []


def test_conda_has_the_versions_of_the_lock(pins, ranges, conda):
    assert conda_problems(pins, conda, set(ranges)) == []


@pytest.mark.parametrize("extra", OPTIONAL)
def test_an_optional_extra_has_pins_that_satisfy_its_ranges_and_add_to_the_lock(extra, pins, project):
    own = read_lock((ROOT / f"requirements-{extra}.lock").read_text(encoding="utf-8"))
    ranges = read_ranges({"dependencies": project["optional-dependencies"][extra], "optional-dependencies": {}})
    assert range_problems(own, ranges) == lock_problems(own) == []
    assert not set(pins) & set(own)


def test_the_page_rosetta_was_made_with_its_pins(pins, rosetta):
    page = (ROOT / "book" / "rosetta.md").read_text(encoding="utf-8")
    versions = re.search(r"^Versions: (.*)\.$", page, flags=re.MULTILINE)[1]
    shown = dict(entry.split(" ") for entry in versions.lower().replace("pytorch", "torch").split(", "))
    assert len(shown) == 5
    assert shown == {name: (pins | rosetta)[name] for name in shown}


def test_build_backend_is_pinned(pins):
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    assert range_problems(pins, {r.name: r.specifier for r in map(Requirement, build["requires"])}) == []


@pytest.mark.parametrize("line", ["torch>=2.6", "torch", "torch==2.*", "torch>=2,<3"])
def test_a_lock_line_that_is_not_exact_is_refused(line):
    with pytest.raises(ValueError):
        read_lock(line)


@pytest.mark.parametrize(
    "lock",
    ["torch==2.13.0+cpu", "nvidia-cublas-cu12==12.1", "cuda-bindings==13.0", "triton==3.0"],
)
def test_cuda_and_local_versions_are_found(lock):
    assert len(lock_problems(read_lock(lock))) == 1


def test_a_version_outside_its_range_is_found():
    ranges = {"torch": SpecifierSet(">=2.6")}
    assert range_problems({"torch": "2.13.0"}, ranges) == []
    assert len(range_problems({"torch": "2.5.1"}, ranges)) == 1
    assert len(range_problems({}, ranges)) == 1


def test_a_conda_version_that_differs_is_found():
    conda = read_conda({"dependencies": ["python=3.12", "pytorch==2.13.0", {"pip": ["nbval==0.11.0", "-e ."]}]})
    assert conda == {"torch": "2.13.0", "nbval": "0.11.0"}
    assert conda_problems(conda, conda, {"torch", "nbval"}) == []
    assert len(conda_problems({"torch": "2.12.0", "nbval": "0.11.0"}, conda, {"torch"})) == 1
    assert len(conda_problems(conda, conda, {"torch", "numpy"})) == 1
