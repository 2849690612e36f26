"""Execute chapters at tour scale and store their outputs.

    tools/notebooks.py book/annealing.ipynb ...

Chapters run in parallel over the cores, with one thread each. A chapter is written back only when every cell ran and
nothing went to stderr, and only in a normal form: an unchanged chapter gives an unchanged file. The seconds it took
are kept in data/run_seconds.json, for the line under its title. Where outputs have changed the ledger,
which reads them, runs too.
"""

import json
import multiprocessing
import os
import re
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import nbformat
from chapter_line import ROOT, RUN_SECONDS
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from traitlets.config import Config

BOOK = ROOT / "book"
CELL_TIMEOUT = 600  # seconds
READS_OTHERS = {  # chapters that read outputs of others, so they run after them and where these have changed
    "schedule_theory": {"shootout", "language_model"},
    "ledger": {path.stem for path in BOOK.glob("*.ipynb")},
}
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
TRANSIENT = ("execution", "ExecuteTime", "collapsed", "scrolled", "trusted", "vscode", "pycharm")


class ChapterError(Exception):
    """A chapter that cannot be stored; the message says why."""


def set_environment() -> None:
    """What every kernel inherits: tour scale, one thread, inline figures."""
    os.environ.update(
        dict.fromkeys(THREADS, "1"), LRLIB_SCALE="tour", PYTHONHASHSEED="0", PYDEVD_DISABLE_FILE_VALIDATION="1"
    )
    os.environ.pop("MPLBACKEND", None)


def merge_streams(outputs: list) -> list:
    """The outputs with consecutive ones of the same stream made one."""
    merged: list = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output["output_type"] == last["output_type"] == "stream" and output["name"] == last["name"]:
            last["text"] += output["text"]
        else:
            merged.append(output)
    return merged


def normalise(notebook) -> None:
    """Take out of the notebook what differs from run to run or from machine to machine."""
    kept = {name: value for name, value in notebook.metadata.items() if name == "mystnb"}
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {
                "file_extension": ".py",
                "mimetype": "text/x-python",
                "name": "python",
                "pygments_lexer": "ipython3",
            },
            "lrlib": {"scale": "tour"},
            **kept,
        }
    )
    for cell in notebook.cells:
        for name in TRANSIENT:
            cell.metadata.pop(name, None)
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)


def first_lines(cell) -> str:
    return "\n".join("    " + line for line in cell.source.strip().splitlines()[:3])


def run(notebook, path: Path) -> None:
    """Execute a notebook in the folder of `path`, up to the first error.

    Raises:
        ChapterError: a cell raised an error or ran too long, or the kernel died.
    """
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        config=Config(KernelManager={"transport_encryption": "auto"}),  # else every kernel warns
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise ChapterError(COLOURS.sub("", str(error)).strip()) from None


def execute(path: Path) -> tuple[bool, float]:
    """Run one chapter and store it: whether the file changed, and the seconds it took."""
    start = time.perf_counter()
    before = path.read_bytes()
    notebook = nbformat.reads(before.decode("utf-8"), as_version=4)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    run(notebook, path)
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            if output["output_type"] == "error":
                raise ChapterError(f"cell {number} raised {output['ename']}: {output['evalue']}\n{first_lines(cell)}")
            if output["output_type"] == "stream" and output["name"] == "stderr":
                raise ChapterError(f"cell {number} wrote to stderr:\n{output['text'].strip()}\n{first_lines(cell)}")
    normalise(notebook)
    nbformat.validate(notebook)
    after = (nbformat.writes(notebook, indent=1).rstrip("\n") + "\n").encode("utf-8")
    if path.read_bytes() != before:
        raise ChapterError("the file was edited while it ran: nothing stored")
    if after != before:
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(after)
        os.replace(temporary, path)
    return after != before, time.perf_counter() - start


def remembered(known: dict[str, int], measured: dict[str, float]) -> dict[str, int]:
    """Whole seconds by chapter. A time within a factor of two of the known one is noise, and is not taken over.

    >>> remembered({"annealing": 60}, {"annealing": 80.3, "cyclical": 45.2})
    {'annealing': 60, 'cyclical': 45}
    """
    new = {name: max(1, round(seconds)) for name, seconds in measured.items()}
    changed = {name for name, seconds in new.items() if not known.get(name, 0) / 2 <= seconds <= 2 * known.get(name, 0)}
    return dict(sorted((known | {name: new[name] for name in changed}).items()))


def remember(measured: dict[str, float]) -> None:
    """Update the file of the chapters' running times, where a time has really changed."""
    known = json.loads(RUN_SECONDS.read_text(encoding="utf-8"))
    chapters = {path.stem for path in BOOK.glob("*.ipynb")}
    new = {name: seconds for name, seconds in remembered(known, measured).items() if name in chapters}
    if new != known:
        RUN_SECONDS.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")


def end_with_parent() -> None:
    """Have this worker end as soon as the process that started it has, and its kernel with it, even in mid-chapter."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "not a worker"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_all(paths: list[Path]) -> tuple[int, dict[str, float], list[Path]]:
    """Run chapters in parallel; the number that failed, the seconds of the others, and those stored anew."""
    failed, times, stored = 0, {}, []
    with ProcessPoolExecutor(min(len(paths), os.cpu_count() or 1), initializer=end_with_parent) as pool:
        futures = {pool.submit(execute, path): path for path in paths}
        for future in as_completed(futures):
            name = futures[future].stem
            try:
                changed, seconds = future.result()
            except ChapterError as error:
                failed += 1
                print(f"{name:20} FAILED, not stored\n{error}", file=sys.stderr, flush=True)
            else:
                times[name] = seconds
                stored += [futures[future]] if changed else []
                print(f"{name:20} {seconds:6.1f} s  {'stored' if changed else 'unchanged'}", flush=True)
    return failed, times, stored


def main(arguments: list[str]) -> int:
    paths = [Path(argument).resolve() for argument in arguments]
    missing = [argument for argument, path in zip(arguments, paths, strict=True) if not path.is_file()]
    if missing:
        print("No such notebook:", *missing, file=sys.stderr)
        return 2
    set_environment()
    start = time.perf_counter()
    readers = [BOOK / f"{name}.ipynb" for name in READS_OTHERS]
    failed, ran = 0, 0
    changed: set[str] = set()
    for wave in ([path for path in paths if path not in readers], *([reader] for reader in readers)):
        wave = [path for path in wave if path in paths or changed & READS_OTHERS[path.stem]]
        if wave:
            missed, times, stored = run_all(wave)
            failed, ran = failed + missed, ran + len(wave)
            changed |= {path.stem for path in stored if path.parent == BOOK}
            remember({path.stem: times[path.stem] for path in wave if path.stem in times and path.parent == BOOK})
    print(f"{ran - failed} of {ran} chapters in {time.perf_counter() - start:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
