"""What a page shows of a chapter's code: all of a cell, a line that opens it, or nothing of it.

The rule is applied when a notebook is read for its page; the notebook itself stays as it is. What teaches is shown.
Imports and assertions alone are left out. What draws, settles a verdict, fills a table or is long is folded under a
line that says what it does, and so is what the tag `hide-input` marks. The line that tells the scale is left out.
"""

import ast
import json
import re
from collections.abc import Iterable, Iterator

LONG = 15  # lines
LEFT_OUT, FOLDED = {"remove-input", "remove-cell"}, {"hide-input", "hide-cell"}
SCALE = re.compile(r"^scale: \w+\n?", re.MULTILINE)
SET_UP = ("setup", "filterwarnings", "simplefilter")
PLAIN = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Assert)
TRAINING = ("measure", "train", "train_grid")


def source(cell: dict) -> str:
    """A notebook stores a cell's text as one string or as a list of lines."""
    return "".join(cell["source"])


def lines(cell: dict) -> int:
    """Lines of a cell that are not blank."""
    return sum(bool(line.strip()) for line in source(cell).splitlines())


def called(tree: ast.AST) -> Iterator[str]:
    """The names of the functions and methods that code calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "attr", getattr(node.func, "id", ""))


def drawn(cell: dict) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", ()))


def prepares(statement: ast.stmt) -> bool:
    """Whether a statement imports, or sets the book up.

    >>> [prepares(statement) for statement in ast.parse("import torch; lrlib.setup(); lrlib.setup").body]
    [True, True, False]
    """
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return next(called(statement), "") in SET_UP
    return isinstance(statement, ast.Import | ast.ImportFrom)


def purpose(cell: dict) -> str:
    """What a code cell is for, in the words of the line that it is folded under.

    >>> purpose({"source": "import torch"}), purpose({"source": "assert 1 + 1 == 2"})
    ('Preparation', 'How it was checked')
    >>> purpose({"source": "slope = fit()\\nlrlib.settle('J1', 'holds', '')"})
    'How the verdict was reached'
    >>> purpose({"source": "def double(x):\\n    return 2 * x"})
    'The code of double'
    >>> purpose({"source": "loss = lrlib.train(model, data, 0.1, steps=10).loss"})
    'How it was measured'
    """
    tree = ast.parse(source(cell))
    names = set(called(tree))
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    if all(map(prepares, tree.body)):
        return "Preparation"
    if all(isinstance(node, PLAIN) for node in tree.body) and isinstance(tree.body[-1], ast.Assert):
        return "How it was checked"
    if "settle" in names:
        return "How the verdict was reached"
    if drawn(cell):
        return "How the figure was drawn"
    if "table" in names:
        return "How the table was made"
    runs = {name for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef) for name in called(node)}
    if defined and not runs & set(TRAINING) and not cell.get("outputs"):
        return f"The code of {', '.join(defined)}"
    return "How it was measured"


def shown(cell: dict) -> str:
    """ "whole", "folded" or "nothing": how much of a code cell's source a page shows.

    >>> shown({"source": "rate = 0.1"}), shown({"source": "rate = 0.1", "metadata": {"tags": ["hide-input"]}})
    ('whole', 'folded')
    >>> shown({"source": "import torch"}), shown({"source": "assert rate > 0\\nassert rate < 1"})
    ('nothing', 'nothing')
    """
    tags = set(cell.get("metadata", {}).get("tags", ()))
    tree = ast.parse(source(cell))
    asserted = sum(isinstance(node, ast.Assert) for node in tree.body)
    if tags & LEFT_OUT or all(map(prepares, tree.body)) or asserted == len(tree.body) or _lacks_record(cell, tree):
        return "nothing"
    checks = purpose(cell) == "How it was checked" and 2 * asserted >= len(tree.body)
    settles = "settle" in called(tree)
    return "folded" if tags & FOLDED or checks or settles or drawn(cell) or lines(cell) > LONG else "whole"


def _lacks_record(cell: dict, tree: ast.Module) -> bool:
    """Whether a cell only shows a record, and there is none yet."""
    conditional = all(isinstance(node, ast.If) for node in tree.body)
    return conditional and not cell.get("outputs") and not {"load_record", "whole_record"}.isdisjoint(called(tree))


def page(notebook: dict) -> dict:
    """The notebook as its page shows it: each code cell with the tag and the line that the rule gives it.

    >>> cells = [{"cell_type": "code", "source": "assert True", "metadata": {}, "outputs": []}]
    >>> page({"cells": cells})["cells"][0]["metadata"]["tags"]
    ['remove-input', 'remove-output']
    """
    return notebook | {"cells": [_marked(cell) if cell["cell_type"] == "code" else cell for cell in notebook["cells"]]}


def _marked(cell: dict) -> dict:
    metadata, much = dict(cell["metadata"]), shown(cell)
    own = set(metadata.get("tags", ())) - LEFT_OUT - FOLDED
    if much == "nothing":
        unseen = {"remove-output"} if purpose(cell) in ("Preparation", "How it was checked") else set()
        own |= {"remove-input"} | unseen
    elif much == "folded":
        own.add("hide-input")
        line = purpose(cell)
        metadata["mystnb"] = {"code_prompt_show": line, "code_prompt_hide": line} | metadata.get("mystnb", {})
    return cell | {"metadata": metadata | {"tags": sorted(own)}, "outputs": list(_told(cell["outputs"]))}


def _told(outputs: Iterable[dict]) -> Iterator[dict]:
    """The outputs without the line in which the set-up tells the scale."""
    for output in outputs:
        text = "".join(output.get("text", ""))
        rest = SCALE.sub("", text)
        if rest == text:
            yield output
        elif rest:
            yield output | {"text": rest}


def apply(app, docname: str, text: list[str]) -> None:
    """Apply the rule to a notebook that Sphinx has read."""
    if app.env.doc2path(docname).endswith(".ipynb"):
        text[0] = json.dumps(page(json.loads(text[0])))
