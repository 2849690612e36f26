"""The page "How to choose": its table and the data of its helper, both from data/choose.json.

What the book measured is not typed there but found, by an expression, in what the chapter that settles the claim
printed; a rule in words names the verdict that it stands on, which a test compares. All else has a citation, or says
that it is a guess.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from lrlib.claims import Ledger

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data" / "choose.json"
COLUMNS = ("Start at", "Search", "Schedule", "Warm-up", "Batch × k", "Width × k", "Length × k")
CHANGES = ("batch", "width", "length")
SCHEDULES = {"linear": "linear to zero", "cosine": "cosine to zero"}


@cache
def ledger() -> Ledger:
    """The verdicts of the chapters in the table of contents."""
    files = re.findall(r"file: (book/\w+)$", (ROOT / "_toc.yml").read_text(encoding="utf-8"), re.MULTILINE)
    return Ledger(path for path in (ROOT / f"{file}.ipynb" for file in files) if path.exists())


@cache
def told(chapter: str) -> str:
    """All that the cells of a chapter printed, as text."""
    notebook = json.loads((ROOT / "book" / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "\n".join("".join(text) for text in texts)


def settled_in(claim: str) -> str:
    """The chapter that settles a claim.

    Raises:
        ValueError: none does.
    """
    if not ledger().settled.get(claim):
        raise ValueError(f"claim={claim!r}: data/choose.json needs it, and no chapter settles it")
    return ledger().settled[claim][0].chapter


def measured(fact: dict) -> float:
    """The number that a chapter's outputs give for a fact.

    Raises:
        ValueError: the expression of the fact occurs nowhere in the chapter that settles its claim.
    """
    chapter = settled_in(fact["claim"])
    found = re.search(fact["found"], told(chapter))
    if found is None:
        raise ValueError(f"found={fact['found']!r}: nowhere in what {chapter} says")
    return float(found[1])


def data() -> dict:
    """The file with every measured number filled in, and rows that are like another one completed."""
    whole = json.loads(DATA.read_text(encoding="utf-8"))
    rows = {(row["task"], row["optimizer"]): row for row in whole["rows"]}
    for row in whole["rows"]:
        if "like" in row:
            like, by = rows[row["task"], row["like"]], whole["optimizers"][row["like"]]["text"]
            start = [entry | ({"on": f"{entry['on']}, by {by}"} if "claim" in entry else {}) for entry in like["start"]]
            row |= like | {"start": start} | row
        row["id"] = f"{row['task']}-{row['optimizer']}"
    for fact in facts(whole):
        if "found" in fact:
            fact["exponent" if "value" in fact else "rate"] = measured(fact)
        if "exponent" in fact:
            fact["value"] = fact["value"].format(fact["exponent"])
    return whole


def facts(whole: dict) -> Iterator[dict]:
    """Everything in the data that has a source."""
    for row in whole["rows"]:
        yield from row["start"]
        yield from (entry["search"] for entry in row["start"] if "search" in entry)
        yield from (row[name] for name in ("search", "schedule", "warmup", *CHANGES) if name in row)
        if isinstance(row.get("note"), dict):
            yield row["note"]
    for changes in whole["changes"].values():
        yield from changes.values()


def change(whole: dict, row: dict, what: str) -> dict:
    """What becomes of a row's rate when batch, width or length grows by k: the row's own rule, or the usual one."""
    if what in row:
        return row[what]
    changes, optimizer = whole["changes"][what], row["optimizer"]
    kind = whole["tasks"][row["task"]]["kind"]
    keys = {
        "batch": ("muon" if optimizer == "muon" else whole["optimizers"][optimizer]["batch"],),
        "width": (kind if kind == "LoRA" else optimizer, kind),
        "length": (kind,),
    }[what]
    return next(changes[key] for key in keys if key in changes)


def by_length(whole: dict, row: dict) -> dict | None:
    """The exponent by which a row's rate falls with the length of the run, and how sure it is; None without a rule."""
    fact = change(whole, row, "length")
    if "exponent" not in fact:
        return None
    sure = "measured here" if is_measured(fact) else "usual practice" if "by" in fact else "a guess"
    return {"exponent": fact["exponent"], "sure": sure}


def is_measured(fact: dict) -> bool:
    """Whether a fact has a claim, and, if it has a citation as well, that claim is settled as the fact says."""
    if "claim" not in fact or "by" not in fact:
        return "claim" in fact
    return bool(ledger().settled.get(fact["claim"])) and ledger().verdict(fact["claim"]) == fact["verdict"]


def source(fact: dict) -> str:
    """In Markdown where a fact is from: measured here and on what, usual practice with its citation, or a guess.

    Citations and the reasons of guesses are in the class `lr-from`, which the table shows when asked to.
    """
    marks = []
    if is_measured(fact):
        on = f" on {fact['on']}" if "on" in fact else ""
        marks.append(f'● <a href="{settled_in(fact["claim"])}.html#claim-{fact["claim"]}">{fact["claim"]}</a>{on}')
    if "by" in fact:
        marks.append(f"""○ <span class="lr-from">{{cite:p}}`{fact["by"]}`</span>""")
    return " ".join(marks) or f"""◇ <span class="lr-from">{fact["why"]}</span>"""


def short(number: float) -> str:
    """A rate as one writes it: 2e-5, 0.003, 0.1.

    >>> short(2e-5), short(0.003), short(0.8), short(1.0)
    ('2e-5', '0.003', '0.8', '1')
    """
    return f"{number:.0e}".replace("e-0", "e-") if number < 1e-3 else f"{number:g}"


def size(number: float) -> str:
    """A number of parameters, in short.

    >>> size(1e6), size(1e8), size(3e10)
    ('1 M', '100 M', '30 B')
    """
    return f"{number / 1e9:g} B" if number >= 1e9 else f"{number / 1e6:g} M"


def sizes(row: dict, k: int) -> str:
    """For which sizes the k-th rate of a row is; nothing where there is one alone."""
    if len(row["start"]) == 1:
        return ""
    entry = row["start"][k]
    text = f"from {size(entry['above'])}" if "above" in entry else f"under {size(row['start'][1]['above'])}"
    return text.replace(" ", "&nbsp;")


def span(search: dict) -> str:
    """What to search, in Markdown: from one rate to another, or by factors of the start."""
    if "range" in search:
        return " to ".join(f'<span class="lr-rate">{short(rate)}</span>' for rate in search["range"])
    low = "start" if search.get("upwards") else f"÷ {search.get('down', search['factor'])}"
    return f"{low} to × {search['factor']}"


def cells(whole: dict, row: dict) -> Iterator[tuple[str, str, str]]:
    """For each column a key, what the cell says, and its source, both in Markdown."""
    lines = []
    for k, entry in enumerate(row["start"]):
        again = k + 1 < len(row["start"]) and row["start"][k + 1].get("by", "") == entry.get("by")
        mark = "" if again else f'<span class="lr-source" id="from-{row["id"]}-start-{k}">{source(entry)}</span>'
        lines.append(
            " ".join(filter(None, (f"**{short(entry['rate'])}**", sizes(row, k)))) + (mark and f"&nbsp;{mark}")
        )
    if "note" in row:
        note = row["note"]
        text = note if isinstance(note, str) else f"{note['value']} {source(note)}"
        lines.append(f'<span class="lr-source" id="from-{row["id"]}-note">{text}</span>')
    yield "start", "<br>".join(lines), ""
    own = (
        f"{span(entry['search'])} {sizes(row, k)} "
        f'<span class="lr-source" id="from-{row["id"]}-search-{k}">{source(entry["search"])}</span><br>'
        for k, entry in enumerate(row["start"])
        if "search" in entry
    )
    yield "search", "".join(own) + span(row["search"]), source(row["search"])
    yield "schedule", SCHEDULES[row["schedule"]["value"]], source(row["schedule"])
    most = f", at most {row['warmup']['most']:,} steps" if "most" in row["warmup"] else ""
    yield "warmup", f"{100 * row['warmup']['share']:g}%{most}", source(row["warmup"])
    for what in CHANGES:
        fact = change(whole, row, what)
        mark = f'<span class="lr-source">{source(fact)}</span>'
        yield what, f'<span id="from-{row["id"]}-{what}-all">{fact["value"]} {mark}</span>', ""


def table(whole: dict) -> str:
    """The table of the page, in Markdown."""
    head = f"| What, by | {' | '.join(COLUMNS)} |\n" + "| --- " * (len(COLUMNS) + 1) + "|"
    lines = [head]
    for row in whole["rows"]:
        name = f"{whole['tasks'][row['task']]['text']}: **{whole['optimizers'][row['optimizer']]['text']}**"
        texts = [f'<span id="row-{row["id"]}"></span>{name}']
        for key, says, mark in cells(whole, row):
            tail = f'&nbsp;<span class="lr-source" id="from-{row["id"]}-{key}">{mark}</span>' if mark else ""
            texts.append(says + tail)
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines)


def index(whole: dict) -> str:
    """Entries of the index for every row, which the search finds first."""
    kinds = {
        (whole["optimizers"][row["optimizer"]]["text"], whole["tasks"][row["task"]]["kind"]) for row in whole["rows"]
    }
    return "\n\n".join(f"```{{index}} single: {optimizer} {kind}\n```" for optimizer, kind in sorted(kinds))


def title(chapter: str) -> str:
    notebook = json.loads((ROOT / "book" / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    return "".join(notebook["cells"][0]["source"]).partition("# ")[2].partition("\n")[0]


def payload(whole: dict) -> str:
    """The data as the helper reads them, in a script element that does nothing by itself."""
    told = {name: whole[name] for name in ("tasks", "optimizers", "sizes")}
    told["rows"] = [row | {"length": by_length(whole, row)} for row in whole["rows"]]
    told["chapters"] = {row["chapter"]: title(row["chapter"]) for row in whole["rows"]}
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return f'<script type="application/json" id="choose-data">{text}</script>'


def generate(page: str) -> str:
    """The source of the page with the index entries, the table and the data in their places."""
    whole = data()
    for name, make in (("index", index), ("table", table), ("data", payload)):
        page = page.replace(f"<!-- choose: {name} -->", make(whole))
    return page
