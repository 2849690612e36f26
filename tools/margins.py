"""How much room the assertions of chapters have. Training is chaotic: another CPU draws its numbers anew.

    tools/margins.py [--draws 4] book/annealing.ipynb ...

Each notebook runs once a draw, at tour scale, and nothing is stored. Every run of lrlib begins with its float32 weights
times 1 + 1e-6 ε, ε normal; equal weights get equal noise, so that equal runs stay equal. Of every ordered comparison in
an `assert` the margin is kept: by how much the side that has to be larger is. Printed is what was false in some draw,
and comparisons whose mean margin is less than five standard deviations: loosen the bound and what the text says, or
measure more firmly. False alarms are identities that the noise itself breaks, and comparisons in `any`.
"""

import argparse
import ast
import json
import operator
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import torch
from notebooks import ChapterError, end_with_parent, run, set_environment

from lrlib.run import Run

FIRM = 5.0  # standard deviations
NOISE = 1e-6
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "Lt": operator.lt, "LtE": operator.le, "Gt": operator.gt, "GtE": operator.ge, "Eq": operator.eq,
    "NotEq": operator.ne, "Is": operator.is_, "IsNot": operator.is_not,
    "In": lambda one, many: one in many, "NotIn": lambda one, many: one not in many,
}  # fmt: skip


class Watch(ast.NodeTransformer):
    """Turns each `assert` of a cell into a note of its comparisons' margins and of whether it is true.

    What it makes calls `_watch`, which must be this object. The notes are under "cell, text of the expression".

    Attributes:
        false: the assertions that were false.
        margins: the smallest margin of each ordered comparison.

    >>> _watch, x = Watch(), 3
    >>> exec(compile(_watch.visit(ast.parse("assert all(1 < k <= x for k in (2, 3)) and x > 4")), "", "exec"))
    >>> _watch.margins
    {'1, 1 < k': 1.0, '1, k <= x': 0.0, '1, x > 4': -1.0}
    >>> _watch.false
    ['1, all((1 < k <= x for k in (2, 3))) and x > 4']
    """

    def __init__(self) -> None:
        self.cell = 0
        self.false: list[str] = []
        self.margins: dict[str, float] = {}

    def visit_Module(self, node: ast.Module) -> ast.AST:
        self.cell += 1
        return ast.fix_missing_locations(self.generic_visit(node))

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        key = ast.Constant(f"{self.cell}, {ast.unparse(node.test)}")
        test = _Comparisons(self.cell).visit(node.test)
        return ast.copy_location(ast.Expr(_call("asserted", key, test)), node)

    def asserted(self, key: str, value: object) -> None:
        if not value:
            self.false.append(key)

    def compared(self, keys: Sequence[str], names: Sequence[str], values: Sequence[Any]) -> Any:
        """What the chain of comparisons gives."""
        result: Any = True
        for key, name, left, right in zip(keys, names, values[:-1], values[1:], strict=True):
            sides = {"L": (left, right), "G": (right, left)}.get(name[0])
            if sides and (margin := _margin(*sides)) is not None:
                self.margins[key] = min(margin, self.margins.get(key, margin))
            result = result and COMPARISONS[name](left, right)
        return result


class _Comparisons(ast.NodeTransformer):
    def __init__(self, cell: int):
        self.cell = cell

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        values: list[ast.expr] = [node.left, *node.comparators]
        pairs = zip(values[:-1], node.ops, values[1:], strict=True)
        keys = [f"{self.cell}, {ast.unparse(ast.Compare(left, [op], [right]))}" for left, op, right in pairs]
        self.generic_visit(node)
        names = [type(op).__name__ for op in node.ops]
        given = [ast.Constant(key) for key in keys], [ast.Constant(name) for name in names], values
        return ast.copy_location(_call("compared", *(ast.Tuple([*some], ast.Load()) for some in given)), node)


def _call(method: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Attribute(ast.Name("_watch", ast.Load()), method, ast.Load()), list(arguments), [])


def _margin(smaller: Any, larger: Any) -> float | None:
    """The least of larger - smaller; None where they are no numbers."""
    sides = (side.detach().cpu() if isinstance(side, torch.Tensor) else side for side in (larger, smaller))
    try:
        return float(np.subtract(*(np.asarray(side, float) for side in sides)).min())
    except (TypeError, ValueError):
        return None


def firmness(margins: Sequence[float]) -> float:
    """Mean over standard deviation, infinite where nothing varies.

    >>> firmness([1.0, 1.0]), round(firmness([1.0, 2.0, 3.0]), 2)
    (inf, 2.0)
    """
    deviation = np.std(margins, ddof=1)
    return float(abs(np.mean(margins)) / deviation) if deviation else np.inf


def shake(draw: int) -> None:
    """Begin every run of lrlib from now on with noise on its weights, another in each draw."""
    start = Run.__init__

    def with_noise(self: Run, *arguments: Any, **options: Any) -> None:
        start(self, *arguments, **options)
        for weights in (some for some in self.weights if some.dtype == torch.float32):
            for own in weights:
                total = hash(own.sum(dtype=torch.float64).item()) % 2**32
                noise = np.random.default_rng([draw, total]).standard_normal(own.shape)
                own.mul_(torch.as_tensor(1 + NOISE * noise, dtype=own.dtype))

    Run.__init__ = with_noise  # type: ignore[assignment]


def measure(path: Path, draw: int) -> dict[str, Any]:
    """Run a notebook once: its false assertions, and the margins of its comparisons.

    Raises:
        ChapterError: a cell raised an error or ran too long, or the kernel died.
    """
    notebook = nbformat.read(path, as_version=4)
    ids = [cell.id for cell in notebook.cells if cell.cell_type == "code"]
    first = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import margins as _margins; "
        f"_margins.shake({draw}); _watch = _margins.Watch(); get_ipython().ast_transformers.append(_watch)"
    )
    last = "import json as _json; print(_json.dumps({'false': _watch.false, 'margins': _watch.margins}))"
    cells = [nbformat.v4.new_code_cell(source) for source in (first, last)]
    notebook.cells = [cells[0], *notebook.cells, cells[1]]
    run(notebook, path)
    found = json.loads("".join(output["text"] for output in cells[1].outputs))

    def named(key: str) -> str:
        number, _, text = key.partition(", ")
        return f"{ids[int(number) - 1]}: {text}"

    margins = {named(key): value for key, value in found["margins"].items()}
    return {"false": {named(key) for key in found["false"]}, "margins": margins}


def report(draws: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each assertion that was false, and for each comparison that is not firm."""
    lines = []
    for text in sorted(set().union(*(one["false"] for one in draws))):
        lines.append(f"false in {sum(text in one['false'] for one in draws)} of {len(draws)} draws: {text}")
    margins = defaultdict(list)
    for one in draws:
        for text, margin in one["margins"].items():
            margins[text].append(margin)
    for text, values in margins.items():
        if len(values) > 1 and firmness(values) < FIRM:
            lines.append(f"margins {' '.join(f'{value:.3g}' for value in values)}: {text}")
    return lines


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="List assertions of notebooks that another CPU may break.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--draws", type=int, default=4, help="runs of each notebook (default: 4)")
    options = parser.parse_args(arguments)
    if options.draws < 2:
        parser.error(f"--draws: {options.draws}, must be at least 2")
    if missing := [str(path) for path in options.notebooks if not path.is_file()]:
        parser.error(f"no such notebook: {' '.join(missing)}")
    set_environment()
    failed, draws = 0, range(1, options.draws + 1)
    workers = min(len(options.notebooks) * len(draws), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, initializer=end_with_parent) as pool:
        waiting = {path: [pool.submit(measure, path.resolve(), draw) for draw in draws] for path in options.notebooks}
        for path, futures in waiting.items():
            try:
                lines = report([future.result() for future in futures])
            except ChapterError as error:
                failed += 1
                print(f"{path.stem}: FAILED\n{error}", file=sys.stderr, flush=True)
            else:
                print(f"{path.stem}: {len(lines)} to look at", *(f"  {line}" for line in lines), sep="\n", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
