"""Results of full-scale runs, kept with their provenance under data/records/.

The cells of a chapter tagged `full` form a program that measures on the real data sets. At full scale
:func:`measure` writes each result to ``data/records/<name>.json`` as soon as it is there, so that an interrupted run
resumes. A record holds a hash of what its runs use of the tagged cells up to the one that measures it, and one of
what that uses of lrlib; when either changes it is stale. Which runs there are is not part of it: of a grid that
grows only the new runs are made, and those that leave it are dropped.

``python -m lrlib.records`` runs the tagged cells of all chapters, or of those named, at full scale in this process,
without Jupyter: ``--plan`` says beforehand what that takes, ``--budget`` ends it in time, ``--jobs`` runs chapters side
by side, ``--scale small`` tries all of it in minutes on a CPU, and ``--merge`` takes over what another machine has
measured.
"""

import argparse
import ast
import functools
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lrlib import runtime
from lrlib.provenance import device_name, library_hash, peak_memory, source_hash, used_by, versions
from lrlib.rehearsal import rehearsing
from lrlib.spread import spread
from lrlib.tables import table

__all__ = ["Record", "measure", "load_record", "whole_record", "values_by"]

ROOT = Path(__file__).resolve().parents[1]
FORCE = "LRLIB_FORCE"  # environment variable: make finished records again

_plan: list[dict] | None = None  # of a rehearsal: what each record would take
_deadline = float("inf")  # on the clock of time.monotonic
_took = 0.0  # seconds of the run made last


class _OutOfTimeError(Exception):
    """The budget does not reach for another run."""


@dataclass(frozen=True)
class Record:
    """A full-scale result.

    Attributes:
        name: of the record, ``<chapter>`` or ``<chapter>-<part>``.
        rows: one dict per run, its settings and its results; what was not finite is None.
        provenance: device, torch, date, commit, seeds, seconds, memory (the peak, in MB), data, cells and library
            (hashes of the code that made it), grid (one of the code that says which runs there are), settings (their
            names), carried (the commits by whose code the record was current before tools/carry.py found that a change
            of code leaves it as it is).
        complete: whether every run of the grid as it is now is there.
        stale: whether the code that made it has changed since.
    """

    name: str
    rows: list[dict]
    provenance: dict = field(default_factory=dict)
    complete: bool = False
    stale: bool = False

    def __bool__(self) -> bool:
        """False for a missing record."""
        return bool(self.rows)

    @property
    def label(self) -> str:
        """The provenance in a line, for a reader."""
        if not self:
            return f"{self.name}: no full-scale record yet; `make full` makes it"
        p, runs = self.provenance, "run" if len(self.rows) == 1 else "runs"
        text = (
            f"{self.name}: {len(self.rows)} {runs}{_seeds_in_words(p['seeds'])} on {p['device']}, torch {p['torch']}, "
            f"{p['date']}, commit {p['commit']}, {p['seconds']:.0f} s"
        )
        text += "" if self.complete else "; incomplete"
        return text + ("; stale: the code that made it has changed since" if self.stale else "")


def _seeds_in_words(seeds: list[int]) -> str:
    in_a_row = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    words = f"{seeds[0]} to {seeds[-1]}" if in_a_row else ", ".join(map(str, seeds))
    return f" of seed{'s' if len(seeds) > 1 else ''} {words}" if seeds else ""


def _record_path(name: str) -> Path:
    return ROOT / "data" / "records" / f"{name}.json"


def full_cells(notebook: Path) -> list[str]:
    return _tagged(notebook, "full")


def _tagged(notebook: Path, tag: str) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if tag in cell["metadata"].get("tags", ())]


def _code(name: str) -> dict[str, str]:
    """Hashes of what a record's runs use of the cells and of lrlib, and of its grid; none without the chapter."""
    chapter = ROOT / "book" / f"{name.partition('-')[0]}.ipynb"
    cells = full_cells(chapter) if chapter.is_file() else []
    for last, cell in enumerate(cells, start=1):
        if arguments := records_of([cell]).get(name):
            source = "\n".join(cells[:last])  # what runs later cannot change it
            grid, run = (used_by(source, argument) for argument in arguments)
            return {"cells": source_hash(run), "library": library_hash(run, ROOT), "grid": source_hash(grid)}
    return {}


def load_record(name: str) -> Record:
    """The record of this name; a false, empty one where there is none.

    Args:
        name: ``<chapter>`` or ``<chapter>-<part>``.

    Raises:
        ValueError: the file is there and is not a record.

    Example:
        >>> bool(load_record("no_such_chapter"))
        False
    """
    path = _record_path(name)
    return _read(path) if path.is_file() else Record(name, [])


def whole_record(name: str) -> Record:
    """The record of this name where every run of its grid is there, made by the present code; else an empty one.

    Args:
        name: ``<chapter>`` or ``<chapter>-<part>``.

    Raises:
        ValueError: the file is there and is not a record.

    Example:
        >>> bool(whole_record("no_such_chapter"))
        False
    """
    record = load_record(name)
    return record if record.complete and not record.stale else Record(name, [])


def values_by(rows: Sequence[Mapping], key: str, value: str) -> dict[Any, np.ndarray]:
    """What the rows hold of `value`, one array for each different `key`, in the order of the rows.

    Args:
        rows: of a record, or of :func:`measure`.
        key: the name of a setting, such as "schedule".
        value: the name of a result that is a number.

    Raises:
        KeyError: a row lacks one of them.

    Example:
        >>> values_by([{"lr": 0.1, "loss": 2.0}, {"lr": 0.3, "loss": 1.0}, {"lr": 0.1, "loss": 4.0}], "lr", "loss")
        {0.1: array([2., 4.]), 0.3: array([1.])}
    """
    found = dict.fromkeys(row[key] for row in rows)
    return {name: np.array([row[value] for row in rows if row[key] == name], dtype=float) for name in found}


def _read(path: Path) -> Record:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        rows, provenance, complete = stored["rows"], stored["provenance"], stored["complete"]
        if not (isinstance(rows, list) and isinstance(provenance, dict)):
            raise TypeError("rows must be a list, provenance a table")
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is not a record ({error!r}); delete it or restore it") from error
    code = _code(path.stem)
    stale = any(provenance.get(part) != value for part, value in code.items() if part != "grid")
    return Record(path.stem, rows, provenance, complete and provenance.get("grid") == code.get("grid"), stale)


def measure(
    name: str, grid: Sequence[Mapping], run: Callable[..., Mapping], data: Sequence = (), seeds: Sequence[int] = ()
) -> list[dict]:
    """One row per point of a grid: the point and what `run` measured there.

    At tour and small scale the runs are made and returned. At full scale the record `name` is written after every run,
    and runs that are already there, made by the same code, are not made again. Inside ``joblib.parallel_config(...)``
    the runs go to its workers, processes (``n_jobs=4``) or a cluster (``backend="dask"``); what a killed one was doing
    is done again.

    Args:
        name: of the record, ``<chapter>`` or ``<chapter>-<part>``.
        grid: the settings of each run, of JSON types, for example ``{"schedule": "cosine", "seed": 3}``.
        run: called as ``run(**point)``, returns numbers, strings, arrays or lists of them by name; a `seed` or a list
            of `seeds` among them is noted in the provenance, as one of the point is.
        data: the data sets used; their names and checksums go into the provenance.
        seeds: those that every run uses and neither its point nor its result names, for the provenance.

    Raises:
        ValueError: the grid is empty, holds a point twice, points of different settings or a number that is not finite,
            a result has the name of a setting, a `seed` is no integer or `seeds` no list of them; at full scale, the
            name is not that of the chapter that calls it, or the runs that are there were made of other data.

    Example:
        >>> measure("demo", [{"seed": 0}, {"seed": 1}], lambda seed: {"double": 2 * seed})
        [{'seed': 0, 'double': 0}, {'seed': 1, 'double': 2}]
    """
    plain = [_plain(point, _refused) for point in grid]
    points = {_key(point): point for point in plain}
    if not points or len(points) < len(plain):
        raise ValueError(f"grid: has {len(plain)} points, {len(points)} of them different; must be >= 1, no twice")
    if odd := [point for point in plain if point.keys() != plain[0].keys()]:
        raise ValueError(f"grid: has settings {list(odd[0])} in a point, must be {list(plain[0])}, those of the first")
    for point in plain:
        _seeds_of(point)
    settings = set(plain[0])
    scale = runtime.scale_name()
    if scale != "full":
        return [row for row, *_ in spread(functools.partial(_one_run, run, scale), plain)]

    if not _code(name):
        raise ValueError(
            f"name={name!r}: must be CHAPTER or CHAPTER-PART of the notebook book/CHAPTER.ipynb that measures it"
        )
    old = load_record(name)
    if old.stale or FORCE in os.environ or set(old.provenance.get("settings", settings)) != settings:
        old = Record(name, [])
    rows = {_key({k: row[k] for k in plain[0]}): row for row in old.rows if settings <= row.keys()}
    missing = [point for key, point in points.items() if key not in rows]
    if _plan is None:
        _make(old, points, missing, rows, run, data, seeds)
    else:
        _plan.append({"record": name, "rows": len(missing), "seconds": _rehearse(missing, rows, run)})
    return [rows[key] for key in points]


def _make(old: Record, points: dict, missing: list[dict], rows: dict[str, dict], run: Callable, data, seeds) -> None:
    """Add to `rows` what is missing, run by run, and write the record each time."""
    global _took
    provenance = old.provenance | _code(old.name) | {"settings": [*next(iter(points.values()))]}
    seconds, memory = provenance.get("seconds", 0.0), provenance.get("memory")
    devices = set(provenance["device"].split(", ")) if old else set()
    if missing:
        source = {dataset.name: dataset.sha256 for dataset in data}
        if (made_of := provenance.get("data", source)) != source:
            raise ValueError(f"data: {old.name} has runs on {made_of}, must not go on with {source}")
        provenance |= versions(ROOT) | {"data": source}
        _took = seconds / len(old.rows) if old else _took

    def write() -> None:
        found = [rows[key] for key in points if key in rows]
        provenance["seeds"] = sorted({*seeds, *(seed for row in found for seed in _seeds_of(row))})
        made = Record(old.name, found, provenance, complete=len(found) == len(points))
        if (made.rows, made.provenance, made.complete) != (old.rows, old.provenance, old.complete):
            _write(made)

    finished = spread(functools.partial(_one_run, run, "full"), missing)
    for made, point in enumerate(missing, start=1 + len(points) - len(missing)):
        if time.monotonic() + _took > _deadline:
            raise _OutOfTimeError
        rows[_key(point)], _took, device, peak = next(finished)
        seconds, memory = seconds + _took, max(filter(None, (memory, peak)), default=None)
        devices.add(device)
        provenance |= {"device": ", ".join(sorted(devices)), "seconds": round(seconds, 1), "memory": memory}
        write()
        print(f"{old.name}: {made}/{len(points)} {_key(point)} ({seconds:.0f} s)", file=sys.stderr, flush=True)
    if not missing:  # but the grid may have shrunk
        write()


def _one_run(run: Callable[..., Mapping], scale: str, point: dict) -> tuple[dict, float, str, int | None]:
    """In whatever process: the point with what `run` measured there, the seconds it took, the device and its memory."""
    os.environ["LRLIB_SCALE"] = scale
    started = time.perf_counter()
    results = _plain(run(**point))
    if both := sorted(point.keys() & results.keys()):
        raise ValueError(f"run: returned {both[0]!r}, which is a setting of the grid, must be a name of its own")
    _seeds_of(results)
    where = runtime.device()
    return point | results, time.perf_counter() - started, device_name(where), peak_memory(where)


def _seeds_of(row: Mapping) -> list[int]:
    """The seeds that a point, a result or a whole row names."""
    seeds = row.get("seeds", [])
    found = [*(seeds if isinstance(seeds, list) else [seeds]), *([row["seed"]] if row.get("seed") is not None else [])]
    if not isinstance(seeds, list) or not all(isinstance(seed, int) for seed in found):
        told = {name: row[name] for name in ("seed", "seeds") if name in row}
        raise ValueError(f"{told}: seed must be an integer, seeds a list of integers")
    return found


def _rehearse(missing: list[dict], rows: dict[str, dict], run: Callable[..., Mapping]) -> float:
    """Add rows of runs cut short; the seconds that whole ones take. Of runs that differ by `seed` alone one is made."""
    kinds: dict[str, list[dict]] = defaultdict(list)
    for point in missing:
        kinds[_key({k: value for k, value in point.items() if k != "seed"})].append(point)
    seconds = 0.0
    for alike in kinds.values():
        with rehearsing() as left_out:
            row, took, *_ = _one_run(run, "full", alike[0])
        rows |= {_key(point): row | point for point in alike}
        seconds += len(alike) * (took + left_out.seconds)
    return seconds


_key = functools.partial(json.dumps, sort_keys=True)


def _plain(values: Mapping, unlike_json: Callable[[str], None] = lambda constant: None) -> dict:
    """With JSON types for numbers, arrays and containers of them; what is not finite becomes None."""
    return json.loads(json.dumps(values, default=_as_list), parse_constant=unlike_json)


def _refused(constant: str) -> None:
    raise ValueError(f"grid: has a setting {constant}, must be of JSON's types, in which numbers are finite")


def _as_list(value: object) -> object:
    if hasattr(value, "tolist"):
        return value.tolist()  # an array or a tensor
    raise TypeError(f"{value!r}: must be a number, a string, an array or a container of them to go into a record")


def _write(record: Record) -> None:
    path = _record_path(record.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {"complete": record.complete, "provenance": record.provenance, "rows": record.rows}
    with runtime.put_in_place(path) as partial:
        partial.write_text(json.dumps(stored, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def records_of(cells: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Of each record that cells make, by their calls of `measure`, the expressions of its grid and of its run."""
    found = {}
    for call in (node for node in ast.walk(ast.parse("\n".join(cells))) if isinstance(node, ast.Call)):
        if ast.unparse(call.func).rpartition(".")[2] == "measure":
            given = dict(zip(("name", "grid", "run"), call.args, strict=False))
            given |= {argument.arg: argument.value for argument in call.keywords if argument.arg}
            try:
                name, grid, run = ast.literal_eval(given["name"]), given["grid"], given["run"]
            except (KeyError, ValueError):
                raise ValueError(f"{ast.unparse(call)[:100]}: must have a name in quotes, a grid and a run") from None
            found[name] = ast.unparse(grid), ast.unparse(run)
    return found


def run_notebook(notebook: Path) -> str:
    """Run a notebook's `full` cells in this process and say, in a line, what became of its records."""
    sources = full_cells(notebook)
    names = list(records_of(sources))
    if not names:
        return f"{notebook.name}: makes no record"
    full = runtime.scale_name() == "full"
    if full and FORCE not in os.environ and all(map(whole_record, names)):
        return f"{notebook.name}: up to date"
    namespace: dict[str, object] = {"__name__": f"full scale of {notebook.name}"}
    for number, source in enumerate(sources):
        exec(compile(source, f"{notebook.name}, full cell {number}", "exec"), namespace)
    return "\n".join(load_record(name).label for name in names) if full else f"{notebook.name}: ran at small scale"


def run_side_by_side(notebooks: Sequence[Path], jobs: int) -> list[Path]:
    """Run each notebook in a process of its own, `jobs` at a time; those that failed.

    One with a cell tagged `alone`, as it reports seconds, runs by itself, before the others. All share the budget.
    """

    def fails(notebook: Path, beside: int = jobs) -> bool:
        left = _deadline - time.monotonic()
        if left <= 0:
            print(f"{notebook.name}: not begun, as the time is over\n", end="", flush=True)
            return False
        command = [sys.executable, "-m", "lrlib.records", "--scale", runtime.scale_name(), "--budget", str(left)]
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // beside))}
        return subprocess.run([*command, str(notebook)], env=threads | os.environ).returncode != 0

    alone = {notebook: bool(_tagged(notebook, "alone")) for notebook in notebooks}
    failed = [notebook for notebook in notebooks if alone[notebook] and fails(notebook, beside=1)]
    others = [notebook for notebook in notebooks if not alone[notebook]]
    with ThreadPoolExecutor(jobs) as pool:
        return failed + [notebook for notebook, bad in zip(others, pool.map(fails, others), strict=True) if bad]


def _points(record: Record, other: Record) -> set[str]:
    """The settings of a record's runs, by the names of them that another has noted; none where it has not."""
    names = other.provenance.get("settings", ())
    return {_key({name: row.get(name) for name in names}) for row in record.rows}


def merge(folder: Path) -> str:
    """Take over the records of a folder that the code as it is here has made; what became of each, in a line.

    A record that other code has made is left, and so is one that has no more rows than the one that is here, or lacks
    some of its runs.
    """
    lines = []
    for path in sorted(folder.glob("*.json")):
        found, mine = _read(path), load_record(path.stem)
        if found.stale or not _code(path.stem):
            lines.append(f"{path.stem}: left, as other code made it")
        elif mine.complete and not mine.stale and not found.complete:
            lines.append(f"{path.stem}: left, as it is incomplete and the one here is whole")
        elif not mine.stale and len(found.rows) <= len(mine.rows):
            lines.append(f"{path.stem}: left, as it has no more rows than the one here")
        elif not mine.stale and not _points(mine, found) <= _points(found, found):
            lines.append(f"{path.stem}: left, as it lacks runs of the one here")
        else:
            _write(found)
            lines.append(f"{path.stem}: taken over; {found.label}")
    return "\n".join(lines) or f"{folder}: holds no record"


def plan(notebooks: Sequence[Path]) -> str:
    """What the runs that are missing would take on this machine, by record, from the first updates of each."""
    global _plan
    _plan, broken = [], []
    for notebook in notebooks:
        try:
            run_notebook(notebook)
        except Exception as error:
            broken.append(f"{notebook.name}: could not be planned to its end: {type(error).__name__}: {error}")
    total = {what: sum(row[what] for row in _plan) for what in ("rows", "seconds")}
    rows, _plan = [*_plan, {"record": "total"} | total], None
    for row in rows:
        each = row["seconds"] / max(1, row["rows"])
        row.update({"seconds": f"{row['seconds']:.1f}", "a row": f"{each:.2f}"})
    return "\n".join([repr(table(rows, f"seconds on {device_name(runtime.device())}")), *broken])


def main(arguments: Sequence[str] | None = None) -> None:
    global _deadline
    parser = argparse.ArgumentParser(prog="python -m lrlib.records", description="Run notebooks at full scale.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="book/CHAPTER.ipynb ...; all if none is named")
    parser.add_argument("--plan", action="store_true", help="only say how long the runs that are missing would take")
    parser.add_argument("--budget", type=float, metavar="S", default=float("inf"), help="end before S seconds are over")
    parser.add_argument("--jobs", type=int, metavar="N", default=1, help="run N notebooks side by side")
    parser.add_argument("--scale", choices=("small", "full"), default="full", help="small: try it, record nothing")
    parser.add_argument("--force", action="store_true", help="make finished records again")
    parser.add_argument("--merge", type=Path, metavar="FOLDER", help="only take over the records that lie there")
    options = parser.parse_args(arguments)
    if options.force and options.budget < float("inf"):
        parser.error("--force with --budget: would begin anew each time, must be one of them")
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: must be >= 1")
    if options.jobs > 1 and (options.plan or options.merge is not None):
        parser.error(f"--jobs {options.jobs}: goes neither with --plan nor with --merge, which make no runs")
    if gone := [notebook for notebook in options.notebooks if not notebook.is_file()]:
        parser.error(f"{gone[0]}: no such notebook")
    notebooks = options.notebooks or sorted((ROOT / "book").glob("*.ipynb"))
    os.environ["LRLIB_SCALE"] = options.scale
    os.environ.setdefault("MPLBACKEND", "agg")
    if options.force:
        os.environ[FORCE] = "1"
    if options.merge is not None:
        if not options.merge.is_dir():
            parser.error(f"--merge {options.merge}: must be a folder of records")
        print(merge(options.merge))
    elif options.plan:
        print(plan(notebooks))
    else:
        started = time.monotonic()
        _deadline = started + options.budget
        try:
            if options.jobs == 1:
                for notebook in notebooks:
                    print(run_notebook(notebook), flush=True)
            elif failed := run_side_by_side(notebooks, options.jobs):
                sys.exit(f"failed: {', '.join(notebook.name for notebook in failed)}")
        except _OutOfTimeError:
            print(
                f"{notebook.name}: the {options.budget:g} s do not reach for another run, of some {_took:.0f} s; "
                "begin again to go on"
            )
        finally:
            _deadline = float("inf")
            if len(notebooks) > 1:
                print(f"{len(notebooks)} notebooks in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    from lrlib import records  # the module that cells import, not this copy of it

    records.main()
