"""What must be true of every chapter: functions from a notebook (a dict) to a list of problems."""

import ast
import builtins
import io
import math
import re
import tokenize
from collections.abc import Callable, Iterator

SHORTEST_ALT = 40  # characters

Notebook = dict


def text(value: str | list[str]) -> str:
    """A notebook stores a text as one string or as a list of lines.

    >>> text(["a\\n", "b"])
    'a\\nb'
    """
    return value if isinstance(value, str) else "".join(value)


def code_cells(notebook: Notebook) -> Iterator[tuple[int, dict]]:
    """The code cells with their place among all cells."""
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            yield number, cell


def images(cell: dict) -> int:
    """How many pictures a code cell put out."""
    return sum(any(kind.startswith("image/") for kind in output.get("data", ())) for output in cell["outputs"])


def executed(notebook: Notebook) -> list[str]:
    return [f"cell {n} was not executed" for n, cell in code_cells(notebook) if cell.get("execution_count") is None]


def in_order(notebook: Notebook) -> list[str]:
    counts = [cell.get("execution_count") for _, cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        return [f"execution counts are {counts}, not 1 to {len(counts)}"]
    return []


def outputs_counted(notebook: Notebook) -> list[str]:
    return [
        f"cell {n} has execution count {cell.get('execution_count')}, its output {output['execution_count']}"
        for n, cell in code_cells(notebook)
        for output in cell["outputs"]
        if output["output_type"] == "execute_result" and output["execution_count"] != cell.get("execution_count")
    ]


def no_errors(notebook: Notebook) -> list[str]:
    return [
        f"cell {n} put out an error: {output['ename']}: {output['evalue']}"
        for n, cell in code_cells(notebook)
        for output in cell["outputs"]
        if output["output_type"] == "error"
    ]


def no_stderr(notebook: Notebook) -> list[str]:
    return [
        f"cell {n} wrote to stderr: {text(output['text']).strip()[:80]}"
        for n, cell in code_cells(notebook)
        for output in cell["outputs"]
        if output["output_type"] == "stream" and output["name"] == "stderr"
    ]


def streams_merged(notebook: Notebook) -> list[str]:
    problems = []
    for n, cell in code_cells(notebook):
        names = [output.get("name") for output in cell["outputs"]]
        if any(first and first == second for first, second in zip(names, names[1:], strict=False)):
            problems.append(f"cell {n} has split stream outputs; store it with `make notebooks`")
    return problems


def described(notebook: Notebook) -> list[str]:
    """One picture a cell, each with an alt text of its own."""
    problems = []
    seen: dict[str, int] = {}
    for n, cell in code_cells(notebook):
        count = images(cell)
        if not count:
            continue
        if count > 1:
            problems.append(f"cell {n} shows {count} figures, but one alt text cannot describe them: one figure a cell")
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        if not alt.strip():
            problems.append(
                f'cell {n} shows a figure without alt text (metadata "mystnb": {{"image": {{"alt": ...}}}})'
            )
        elif len(alt.strip()) < SHORTEST_ALT:
            problems.append(f"cell {n} has an alt text of {len(alt.strip())} characters; say what the figure shows")
        elif alt in seen:
            problems.append(f"cell {n} has the alt text of cell {seen[alt]}")
        seen.setdefault(alt, n)
    return problems


def captioned(notebook: Notebook) -> list[str]:
    """Each picture has a caption, which is what numbers it, and a name of its own to link to."""
    problems, names = [], set()
    for n, cell in code_cells(notebook):
        if images(cell):
            figure = cell["metadata"].get("mystnb", {}).get("figure", {})
            if not figure.get("caption", "").strip():
                problems.append(
                    f'cell {n} shows a figure without caption (metadata "mystnb": {{"figure": {{"caption": ...}}}})'
                )
            elif not figure.get("name") or figure["name"] in names:
                problems.append(f"cell {n} has a figure whose name {figure.get('name')!r} is missing or taken")
            names.add(figure.get("name"))
    return problems


def pictures_described(notebook: Notebook) -> list[str]:
    return [
        f"cell {n} has a Markdown picture without alt text"
        for n, cell in enumerate(notebook["cells"])
        if cell["cell_type"] == "markdown" and re.search(r"!\[\s*\]\(", text(cell["source"]))
    ]


def tour_scale(notebook: Notebook) -> list[str]:
    scale = notebook["metadata"].get("lrlib", {}).get("scale")
    if scale != "tour":
        return [f"the stored outputs are of scale {scale!r}, not 'tour'; store them with `make notebooks`"]
    return []


def kernel_named(notebook: Notebook) -> list[str]:
    name = notebook["metadata"].get("kernelspec", {}).get("name")
    return [] if name == "python3" else [f"the kernel is {name!r}, not 'python3'; store it with `make notebooks`"]


def no_patch_versions(notebook: Notebook) -> list[str]:
    if "version" in notebook["metadata"].get("language_info", {}):
        return ["the metadata names a Python version; store it with `make notebooks`"]
    return []


def no_timing(notebook: Notebook) -> list[str]:
    return [f"cell {n} stores its timing" for n, cell in code_cells(notebook) if "execution" in cell["metadata"]]


def plain_python(notebook: Notebook) -> list[str]:
    """No magics, no shell escapes: the chapters also run without Jupyter."""
    problems = []
    for n, cell in code_cells(notebook):
        source = text(cell["source"])
        try:
            tree = ast.parse(source)
        except SyntaxError as error:
            line = (source.splitlines() or [""])[(error.lineno or 1) - 1].strip()
            problems.append(f"cell {n} is not plain Python (a magic or a shell escape?): {line}")
            continue
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if "get_ipython" in names:
            problems.append(f"cell {n} calls get_ipython, which only Jupyter has")
    return problems


def no_semicolons(notebook: Notebook) -> list[str]:
    """A semicolon at the end of a line hides an output in Jupyter, but not from nbval."""
    problems = []
    for n, cell in code_cells(notebook):
        try:
            tokens = list(tokenize.generate_tokens(io.StringIO(text(cell["source"])).readline))
        except (tokenize.TokenError, SyntaxError):
            continue  # plain_python reports it
        tokens = [token for token in tokens if token.type != tokenize.COMMENT]
        for token, following in zip(tokens, tokens[1:], strict=False):
            if token.string == ";" and following.type in (tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER):
                problems.append(f"cell {n} ends a line with a semicolon: {token.line.strip()}")
    return problems


def no_clear_output(notebook: Notebook) -> list[str]:
    return [f"cell {n} uses clear_output" for n, cell in code_cells(notebook) if "clear_output" in text(cell["source"])]


# What is no prose: formulas, code, links, markup, exercises (their numbers are settings), and what a source says.
FORMULA = re.compile(r"\$\$.*?\$\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}|\$[^$]+\$", re.DOTALL)
EXERCISE = re.compile(r"^(`{3,}|:{3,})\{exercise\}.*?^\1", re.DOTALL | re.MULTILINE)
FENCE = re.compile(r"^ *(?:`{3,}|:{3,}|:[\w-]+:).*$", re.MULTILINE)
CITED = re.compile(r"(?:(?!(?<=[.!?])\s|\n\s*\n).)*\{cite(?:(?!(?<=[.!?])\s|\n\s*\n).)*", re.DOTALL)
MARKUP = re.compile(
    r"`[^`]*`|\]\([^)]*\)|<[^>]+>|https?://\S+"
    r"|\b(?:Figure|Table|Section|Chapter|Theorem|Lemma|Exercise|PyTorch|Python|version) \d[\d.]*"
)
UNITS = "times|points|percent|decades|orders of magnitude|seconds|fold"
MEASURED = re.compile(
    rf"(?<![\w.^/−-])\d[\d,]*(?:\.\d+(?:e[+−-]?\d+)?|e[+−-]?\d+|(?=\s?%|[ -](?:{UNITS})\b))"
)  # decimals, powers of ten, and whole numbers of a unit
LEVEL = 95.0  # percent, of the book's intervals


def number(written: str) -> float:
    return float(written.replace(",", "").replace("−", "-"))


def calls(cell: dict, name: str) -> Iterator[ast.Call]:
    """The calls of a function by this name, or of a method."""
    for node in ast.walk(parsed(cell)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", None)) == name:
            yield node


def parsed(cell: dict) -> ast.Module:
    try:
        return ast.parse(text(cell["source"]))
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])  # plain_python reports it


def prose(notebook: Notebook) -> Iterator[tuple[int, str]]:
    """What a reader reads as text: Markdown, captions, alt texts, and the fixed words of verdicts."""
    for n, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "markdown":
            source = EXERCISE.sub(" ", text(cell["source"]))
            for pattern in (FORMULA, CITED, FENCE, MARKUP):
                source = pattern.sub(" ", source)
            yield n, source
    for n, cell in code_cells(notebook):
        shown = cell["metadata"].get("mystnb", {})
        yield n, shown.get("image", {}).get("alt", "")
        yield n, FORMULA.sub(" ", shown.get("figure", {}).get("caption", ""))
        for call in calls(cell, "settle"):
            for node in (node for argument in call.args[1:] for node in ast.walk(argument)):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield n, node.value


def settings(notebook: Notebook) -> set[float]:
    """The numbers in code cells, as settings or asserted thresholds, and in formulas; as shares and as percentages."""
    found = {LEVEL}
    for _, cell in code_cells(notebook):
        for node in ast.walk(parsed(cell)):
            if isinstance(node, ast.Constant) and type(node.value) in (int, float):
                found.add(float(node.value))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            for formula in FORMULA.finditer(text(cell["source"])):
                found |= {
                    float(n) for n in re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d)\{?,\}?(?=\d)", "", formula[0]))
                }
    return found | {value / 100 for value in found} | {100 * value for value in found}


def no_typed_numbers(notebook: Notebook) -> list[str]:
    """A number in prose is a setting, an asserted threshold, or part of a formula; measured ones are printed."""
    known = settings(notebook)
    return [
        f"cell {n} has a number typed into prose that its page neither sets nor asserts: "
        f"... {source[max(0, found.start() - 40) : found.end() + 20]} ...".replace("\n", " ")
        for n, source in prose(notebook)
        for found in MEASURED.finditer(source)
        if not any(math.isclose(number(found[0]), value) for value in known)
    ]


MODULES = {"lrlib", "np", "math", "torch"}


def names(node: ast.AST) -> set[str]:
    """The variables that code reads or sets: no functions that it calls, constants in capitals, or loop variables."""
    nodes = list(ast.walk(node))
    called = {id(inner.func) for inner in nodes if isinstance(inner, ast.Call)}
    used = {inner.id for inner in nodes if isinstance(inner, ast.Name) and id(inner) not in called}
    loops = {name for inner in nodes if isinstance(inner, ast.comprehension) for name in names(inner.target)}
    return {name for name in used if not name.isupper()} - loops - MODULES - set(dir(builtins))


def criterion(cell: dict, verdict: ast.expr) -> set[str]:
    """The names that a verdict is computed from, those of the variable that holds it included."""
    used = names(verdict)
    for node in ast.walk(parsed(cell)):
        if isinstance(node, ast.Assign) and used & set().union(*map(names, node.targets)):
            used = used | names(node.value)
    return used


def assertions(cells: list[dict]) -> list[ast.Assert]:
    """Those of the first cell, and of the next ones up to the first that has any, or that settles another claim."""
    found: list[ast.Assert] = []
    for place, cell in enumerate(cells):
        here = [node for node in ast.walk(parsed(cell)) if isinstance(node, ast.Assert)]
        if place and any(calls(cell, "settle")):
            break
        found += here
        if place and here:
            break
    return found


def verdicts_pinned(notebook: Notebook) -> list[str]:
    """Where a claim is settled, or in the next assertions, stands one on the verdict or what it is computed from.

    An answer to a question has no verdict to compute; its assertion is on what its sentence and evidence name.
    """
    problems = []
    cells = list(code_cells(notebook))
    for place, (n, cell) in enumerate(cells):
        near = assertions([following for _, following in cells[place:]])
        for call in calls(cell, "settle"):
            verdict: ast.expr = call.args[1] if len(call.args) > 1 else ast.Constant(None)
            if isinstance(verdict, ast.Constant) and verdict.value == "answered":
                verdict = ast.Tuple([*call.args[2:], *(keyword.value for keyword in call.keywords)])
            if not names(ast.Module(near, [])) & criterion(cell, verdict):
                problems.append(f"cell {n} settles {ast.unparse(call.args[0])}, and no assertion pins the verdict")
    return problems


CHECKS: list[Callable[[Notebook], list[str]]] = [
    executed,
    in_order,
    outputs_counted,
    no_errors,
    no_stderr,
    streams_merged,
    described,
    captioned,
    pictures_described,
    tour_scale,
    kernel_named,
    no_patch_versions,
    no_timing,
    plain_python,
    no_semicolons,
    no_clear_output,
    no_typed_numbers,
    verdicts_pinned,
]


def toc_files(toc: dict) -> list[str]:
    """Every file of a table of contents, in reading order."""
    found = [toc[name] for name in ("root", "file") if name in toc]
    for name in ("parts", "chapters", "sections", "subtrees", "entries"):
        for entry in toc.get(name, ()):
            found += toc_files(entry)
    return found


def toc_problems(toc: dict, present: set[str]) -> list[str]:
    """Where a table of contents and the files present (paths without suffix) disagree."""
    listed = toc_files(toc)
    problems = [f"_toc.yml names {name}, which does not exist" for name in listed if name not in present]
    problems += [f"_toc.yml names {name} twice" for name in sorted({name for name in listed if listed.count(name) > 1})]
    return problems + [f"{name} is not in _toc.yml" for name in sorted(present - set(listed))]
