"""Where a result comes from: the device, the versions, and hashes of the code that made it and of what that used."""

import ast
import datetime
import functools
import hashlib
import os
import platform
import re
import subprocess
import symtable
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

__all__ = ["device_name", "peak_memory", "versions", "used_by", "source_hash", "library_hash"]


@functools.cache
def device_name(where: torch.device) -> str:
    """The name of a device, such as "NVIDIA H200" or "Intel(R) Xeon(R) CPU @ 2.60GHz"."""
    if where.type != "cpu":
        return torch.cuda.get_device_name(where) if where.type == "cuda" else where.type.upper()
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", info.read_text(encoding="utf-8") if info.is_file() else "")
    return model[1] if model else platform.processor() or "CPU"


def peak_memory(where: torch.device) -> int | None:
    """The most memory in MB that this process has had, on a GPU of tensors; None where it cannot be told."""
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where) // 2**20
    if where.type != "cpu" or resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)


def versions(root: Path) -> dict[str, str]:
    """The version of torch, the date, and the commit checked out in `root`.

    The commit has a "+" where lrlib or the book differ from it; without git it is the variable `LRLIB_COMMIT`, or
    "unknown".
    """
    git = functools.partial(subprocess.run, cwd=root, capture_output=True, text=True, check=True)
    try:
        commit = git(["git", "rev-parse", "--short=10", "HEAD"]).stdout.strip()
        commit += "+" if git(["git", "status", "--porcelain", "lrlib", "book"]).stdout else ""
    except (OSError, subprocess.CalledProcessError):
        commit = os.environ.get("LRLIB_COMMIT", "unknown")
    return {"torch": torch.__version__.partition("+")[0], "date": datetime.date.today().isoformat(), "commit": commit}


def used_by(source: str, expression: str) -> str:
    """The statements of `source` that an expression depends on by name, directly or not, in their order, and itself.

    A statement that gives no name a value, such as ``table["a"] = 1`` or a call, always counts; text does not.

    Example:
        >>> print(used_by("a = 1\\nb = 2\\ndef f(x): return a + x\\nrows = [f(b) for b in (3, 4)]", "f"))
        a = 1
        def f(x):
            return a + x
        f
    """
    statements = [*(ast.unparse(node) for node in ast.parse(source).body if not _is_text(node)), expression]
    gives, uses = zip(*map(_globals, statements), strict=True)
    used = {k for k, names in enumerate(gives) if not names}
    known: set[str] = set()
    while fresh := set().union(*(uses[k] for k in used)) - known:
        known |= fresh
        used |= {k for k, names in enumerate(gives) if names & fresh}
    return "\n".join(text for k, text in enumerate(statements) if k in used)


def _globals(statement: str) -> tuple[set[str], set[str]]:
    """The names of a module that a statement gives a value, and those that it uses."""
    table = symtable.symtable(statement, "a cell", "exec")
    gives = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    uses = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    inner = [*table.get_children()]
    while inner:
        table = inner.pop()
        in_class = table.get_type() == "class"  # where a name that is read may be an outer one even if it is assigned
        named = (s for s in table.get_symbols() if s.is_global() or in_class and s.is_referenced())
        uses |= {symbol.get_name() for symbol in named}
        inner += table.get_children()
    return gives, uses


def _is_text(statement: object) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def source_hash(source: str) -> str:
    """sha256 over what code says, blind to its layout, comments, docstrings and the texts of errors."""
    return hashlib.sha256(repr(_essence(ast.parse(source).body)).encode()).hexdigest()


def library_hash(source: str, root: Path) -> str:
    """sha256 over all functions, classes and constants of lrlib that `source` reaches by name, directly or not.

    Docstrings, comments, layout and the texts of errors do not count, nor does what is defined beside them and not
    used, nor a module whose name begins with an underscore (it checks arguments, or helps another package to load),
    nor a call of `_check` whose value is not used: what only refuses cannot change a result that is there.

    Args:
        source: code that imports lrlib.
        root: the folder that holds `lrlib/`.
    """
    used: dict[str, object] = {}
    tree, imports = ast.parse(source), _parse(source)[1]
    waiting = set(_names([tree], imports))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    waiting |= {full.replace("*", name) for full in imports.values() if full.endswith(".*") for name in names}
    asked: set[str] = set()
    while fresh := waiting - asked:
        asked |= fresh
        for module, name, text in filter(None, (_split(root, full) for full in fresh)):
            definitions, imports = _parse(text)
            if name in definitions:
                used[f"{module}.{name}"], more = _definition(module, name, text)
                waiting |= more
            elif name in imports:
                waiting.add(imports[name])
            else:  # from a module of which everything is imported
                waiting |= {full.replace("*", name) for full in imports.values() if full.endswith(".*")}
    return hashlib.sha256(repr(sorted(used.items())).encode()).hexdigest()


@functools.cache
def _parse(source: str) -> tuple[dict[str, list[ast.stmt]], dict[str, str]]:
    """The statements that define each name of a module, and the full names of what it imports."""
    tree = _Unchecked().visit(ast.parse(source))
    definitions: dict[str, list[ast.stmt]] = defaultdict(list)
    imports: dict[str, str] = {}
    for statement in tree.body:
        own = getattr(statement, "name", None)
        stored = (n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        for name in [own] if own else set(stored):
            definitions[name].append(statement)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                imports[full if alias.name == "*" else alias.asname or alias.name] = full
        elif isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                imports |= {alias.asname: alias.name} if alias.asname else {first: first}
    return dict(definitions), imports


@functools.cache
def _definition(module: str, name: str, text: str) -> tuple[object, set[str]]:
    """What a module says of a name, and the full names that this uses."""
    definitions, imports = _parse(text)
    known = {own: f"{module}.{own}" for own in definitions} | imports
    return _essence(definitions[name]), set(_names(definitions[name], known))


class _Unchecked(ast.NodeTransformer):
    """Drops the calls of `_check` whose value is not used."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if ast.unparse(node).startswith("_check.") else node


def _names(nodes: Iterable[ast.AST], known: Mapping[str, str]) -> Iterator[str]:
    """Names and attributes of names in code, in full where their first part is known, such as lrlib._check.integer."""
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        base = node
        while isinstance(base, ast.Attribute):
            base = base.value
        if isinstance(base, ast.Name) and base.id in known:
            _, dot, rest = ast.unparse(node).partition(".")
            yield known[base.id] + dot + rest


def _split(root: Path, name: str) -> tuple[str, str, str] | None:
    """The module that a full name begins with, the name in it, and the module's text; None outside of lrlib."""
    parts = name.split(".")
    if parts[0] != "lrlib":
        return None
    for end in range(len(parts) - 1, 0, -1):
        path = root.joinpath(*parts[:end])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if not path.name.startswith("_") and file.is_file():
                return ".".join(parts[:end]), parts[end], file.read_text(encoding="utf-8")
    return None


def _essence(node: object) -> object:
    """Syntax without docstrings, positions, errors and empty fields, so that all versions of Python give the same."""
    if isinstance(node, list):
        return [_essence(n) for n in node if not _is_text(n)]
    if isinstance(node, ast.Raise):
        return "raise"
    if isinstance(node, ast.AST):
        return type(node).__name__, [(key, _essence(v)) for key, v in ast.iter_fields(node) if v not in (None, [])]
    return node
