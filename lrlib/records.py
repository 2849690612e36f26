"""Results of full-scale runs, kept with their provenance under data/records/.

The cells of a chapter tagged `full` form a program that measures on the real data sets. At full scale
:func:`measure` writes each result to ``data/records/<name>.json`` as soon as it is there, so that an interrupted run
resumes. A record holds a hash of the tagged cells; when they change it is stale.

``python -m lrlib.records book/annealing.ipynb ...`` runs the tagged cells at full scale in this process, without
Jupyter.
"""

import argparse
import ast
import datetime
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from lrlib import runtime

__all__ = ["Record", "measure", "load_record"]

ROOT = Path(__file__).resolve().parents[1]
TAG = "full"


@dataclass(frozen=True)
class Record:
    """A full-scale result.

    Attributes:
        name: of the record, ``<chapter>`` or ``<chapter>-<part>``.
        rows: one dict per run, its settings and its results; what was not finite is None.
        provenance: device, torch, date, commit, seeds, seconds, data, cells (the hash of the code that made it).
        complete: whether every run of the grid is there.
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
            f"{self.name}: {len(self.rows)} {runs} on {p['device']}, torch {p['torch']}, {p['date']}, "
            f"commit {p['commit']}, {p['seconds']:.0f} s"
        )
        if not self.complete:
            text += "; incomplete"
        if self.stale:
            text += "; stale: the code that made it has changed since"
        return text


def _chapter_path(name: str) -> Path:
    return ROOT / "book" / f"{name.partition('-')[0]}.ipynb"


def _record_path(name: str) -> Path:
    return ROOT / "data" / "records" / f"{name}.json"


def full_cells(notebook: Path) -> list[str]:
    """Sources of the code cells of a notebook that are tagged `full`, in order."""
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    return [
        "".join(cell["source"])
        for cell in cells
        if cell["cell_type"] == "code" and TAG in cell["metadata"].get("tags", ())
    ]


def cells_hash(sources: Sequence[str]) -> str:
    """sha256 over cell sources, blind to trailing white space."""
    lines = [line.rstrip() for source in sources for line in source.rstrip().splitlines()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _current_hash(name: str) -> str | None:
    path = _chapter_path(name)
    return cells_hash(full_cells(path)) if path.is_file() else None


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
    if not path.is_file():
        return Record(name, [])
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        provenance = stored["provenance"]
        return Record(
            name, stored["rows"], provenance, stored["complete"], stale=provenance["cells"] != _current_hash(name)
        )
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is not a record ({error!r}); delete it or restore it") from error


def measure(name: str, grid: Sequence[Mapping], run: Callable[..., Mapping], data: Sequence = ()) -> list[dict]:
    """One row per point of a grid: the point and what `run` measured there.

    At tour scale the runs are made and returned. At full scale the record `name` is written after every run, and
    runs that are already there, made by the same code, are not made again.

    Args:
        name: of the record, ``<chapter>`` or ``<chapter>-<part>``.
        grid: the settings of each run, of JSON types, for example ``{"schedule": "cosine", "seed": 3}``.
        run: called as ``run(**point)``, returns numbers, strings, arrays or lists of them by name.
        data: the data sets used; their names and checksums go into the provenance.

    Raises:
        ValueError: the grid is empty or holds a point twice.

    Example:
        >>> measure("demo", [{"seed": 0}, {"seed": 1}], lambda seed: {"double": 2 * seed})
        [{'seed': 0, 'double': 0}, {'seed': 1, 'double': 2}]
    """
    points = [_plain(dict(point)) for point in grid]
    keys = [json.dumps(point, sort_keys=True) for point in points]
    if not points or len(set(keys)) < len(keys):
        raise ValueError(f"grid: has {len(keys)} points, {len(set(keys))} of them different; must be >= 1, no twice")
    if runtime.scale_name() == "tour":
        return [point | _plain(dict(run(**point))) for point in points]

    old = load_record(name)
    fresh = bool(old) and not old.stale and "LRLIB_FORCE" not in os.environ
    done = {json.dumps({k: row[k] for k in points[0]}, sort_keys=True): row for row in old.rows} if fresh else {}
    seconds = old.provenance["seconds"] if fresh else 0.0
    provenance = {
        "device": runtime.device_label(runtime.device()),
        "torch": torch.__version__.partition("+")[0],
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "seeds": sorted({seed for point in points for seed in (*point.get("seeds", ()), point.get("seed"))} - {None}),
        "data": {dataset.name: dataset.sha256 for dataset in data},
        "cells": _current_hash(name),
    }
    for count, (key, point) in enumerate(zip(keys, points, strict=True), 1):
        if key in done:
            continue
        started = time.perf_counter()
        done[key] = point | _plain(dict(run(**point)))
        seconds += time.perf_counter() - started
        rows = [done[k] for k in keys if k in done]
        _write(name, rows, provenance | {"seconds": round(seconds, 1)}, complete=len(rows) == len(keys))
        print(f"{name}: {count}/{len(keys)} {key} ({seconds:.0f} s)", file=sys.stderr, flush=True)
    return [done[key] for key in keys]


def _plain(value):
    """JSON types for numbers, arrays and containers of them; what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{value!r}: must be a number, a string, an array or a container of them to go into a record")


def _write(name: str, rows: list[dict], provenance: dict, complete: bool) -> None:
    path = _record_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"complete": complete, "provenance": provenance, "rows": rows}, indent=1, allow_nan=False)
    partial = path.with_suffix(".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def _commit() -> str:
    """Short hash of the commit that is checked out, with a "+" when files differ from it; "unknown" without git."""

    def git(*arguments):
        answer = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True)
        return answer.stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "lrlib", "book") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("LRLIB_COMMIT", "unknown")


def record_names(sources: Sequence[str]) -> list[str]:
    """The names of the records that cells make: the first arguments of their calls of `measure`."""
    names = []
    for node in ast.walk(ast.parse("\n".join(sources))):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", None)) == "measure":
            names.append(ast.literal_eval(node.args[0]))
    return names


def run_notebook(notebook: Path, force: bool = False) -> str:
    """Run a notebook's `full` cells in this process and say, in a line, what became of its records."""
    sources = full_cells(notebook)
    names = record_names(sources)
    if not names:
        return f"{notebook.name}: makes no record"
    records = [load_record(name) for name in names]
    if not force and all(record.complete and not record.stale for record in records):
        return f"{notebook.name}: up to date"
    for record in records:
        print(record.label, file=sys.stderr)
    namespace = {"__name__": f"full scale of {notebook.name}"}
    for number, source in enumerate(sources):
        exec(compile(source, f"{notebook.name}, full cell {number}", "exec"), namespace)
    return "\n".join(load_record(name).label for name in names)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m lrlib.records", description="Run notebooks at full scale.")
    parser.add_argument("notebooks", nargs="+", type=Path, help="book/CHAPTER.ipynb ...")
    parser.add_argument("--force", action="store_true", help="make finished records again")
    options = parser.parse_args(arguments)
    for notebook in options.notebooks:
        if not notebook.is_file():
            parser.error(f"{notebook}: no such file")
    os.environ["LRLIB_SCALE"] = "full"
    os.environ.setdefault("MPLBACKEND", "agg")
    if options.force:
        os.environ["LRLIB_FORCE"] = "1"
    for notebook in options.notebooks:
        print(run_notebook(notebook, options.force), flush=True)


if __name__ == "__main__":
    main()
