"""Keep the records of full-scale runs through a change of code that leaves their results as they are.

    python tools/carry.py COMMIT

A record is stale as soon as the code that made it has changed, were it only to refuse more. Of each one that was
current at the commit, the programme of its chapter is run at small scale, the first fifty updates of each run, by the
code of the commit and by that of now. Where both measure the same, bit by bit, and all losses and the last weights of
all runs that were trained for it are the same, the record gets the hashes of the code as it is now and notes, as
"carried" in its provenance, the commit by which it was current before. Any other stays stale, to be made again. Times
are left out. A record whose own cells have changed stays stale, too, as small runs do not see what full ones take:
`--cells` carries it all the same, for a change of names, say.

What such runs on a CPU cannot tell is whether the change matters at other sizes, late in a run or on a GPU: read the
change with that in mind, and make a record again where it may.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from lrlib import records

ROOT = Path(__file__).resolve().parents[1]
TIMES = {"seconds"}
PROGRAMME = """
import hashlib, json, sys
from pathlib import Path
import lrlib, torch
from lrlib import grid, records, rehearsal, run

rows, trained, measure, go = {}, [], records.measure, run.Run.go

def watched(self):
    go(self)
    parts = [part.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for part in (self.loss, *self.weights)]
    trained.append(hashlib.sha256(torch.cat(parts).numpy().tobytes()).hexdigest())

def kept(name, *arguments, **options):
    found = measure(name, *arguments, **options)
    rows[name] = [found, *trained]
    trained.clear()
    return found

lrlib.measure, run.Run.go, rehearsal.TIMED = kept, watched, 50 - rehearsal.FIRST
grid.WORTH_MEASURING = float("inf")  # or the clock would choose between a stack and single runs
with rehearsal.rehearsing():
    records.run_notebook(Path(sys.argv[1]))
print(json.dumps({name: [found, records._code(name)] for name, found in rows.items()}))
"""


def measured(root: Path, chapter: str) -> dict[str, tuple[list, dict[str, str]]]:
    """What the code in a folder measures for each record of a chapter at small scale, and the hashes of that code.

    The rows are followed by a digest of the losses and weights of each run that was trained since the record before.
    """
    environment = os.environ | {"LRLIB_SCALE": "small", "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAMME, f"book/{chapter}.ipynb"]
    told = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(told.splitlines()[-1])


def timeless(value: object) -> object:
    if isinstance(value, dict):
        return {name: timeless(item) for name, item in value.items() if name not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def carried(provenance: dict, before: dict[str, str], now: dict[str, str], commit: str) -> dict | None:
    """The provenance with the hashes of the code as it is now; None for a record that the code before did not make."""
    if any(provenance.get(part) != before[part] for part in ("cells", "library")):
        return None
    grid = now["grid"] if provenance.get("grid") == before["grid"] else provenance.get("grid")
    return provenance | now | {"grid": grid, "carried": [*provenance.get("carried", ()), commit]}


def carry(chapter: str, base: Path, commit: str, cells: bool = False) -> list[str]:
    """Carry the records of a chapter; what became of each, in a line."""
    try:
        before, now, lines = measured(base, chapter), measured(ROOT, chapter), list[str]()
    except subprocess.CalledProcessError:
        return [f"{chapter}: left, as its programme does not run at small scale by the code of {commit} or of now"]
    for name in before.keys() & now.keys():
        record, (old_rows, old_code), (new_rows, new_code) = records.load_record(name), before[name], now[name]
        provenance = carried(record.provenance, old_code, new_code, commit)
        if not record:
            lines.append(f"{name}: not there yet")
        elif provenance is None:
            lines.append(f"{name}: left, as the code of {commit} has not made it")
        elif old_code["cells"] != new_code["cells"] and not cells:
            lines.append(f"{name}: left, as its own cells have changed; make it again, or see --cells")
        elif timeless(old_rows) != timeless(new_rows):
            lines.append(f"{name}: left, as it would come out otherwise now; make it again")
        else:
            records._write(replace(record, provenance=provenance))
            lines.append(f"{name}: carried")
    return lines


def main(commit: str, chapters: list[str], cells: bool) -> None:
    git = ["git", "-C", str(ROOT)]
    short = subprocess.run([*git, "rev-parse", "--short=10", f"{commit}^{{commit}}"], capture_output=True, text=True)
    if short.returncode:
        sys.exit(f"{commit}: no such commit")
    for chapter in chapters:
        if not (ROOT / "book" / f"{chapter}.ipynb").is_file():
            sys.exit(f"{chapter}: no such chapter in book/")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        subprocess.run([*git, "worktree", "add", "-q", "--detach", str(base), commit], check=True)
        try:
            stale = {path.stem.partition("-")[0] for path in (ROOT / "data" / "records").glob("*.json")
                     if records.load_record(path.stem).stale}  # fmt: skip
            for chapter in sorted(stale & set(chapters) if chapters else stale):
                print(*carry(chapter, base, short.stdout.strip(), cells), sep="\n", flush=True)
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(base)], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="by whose code the records are current")
    parser.add_argument("chapters", nargs="*", help="default: all with a stale record")
    parser.add_argument("--cells", action="store_true", help="also records whose own cells have changed")
    options = parser.parse_args()
    main(options.commit, [Path(chapter).stem for chapter in options.chapters], options.cells)
