"""The box with what a chapter found agrees with the cards of the chapter."""

import json
from pathlib import Path

import opening
import pytest
from bs4 import BeautifulSoup

from lrlib.claims import CLAIMS, MIME, Ledger

CHAPTERS = sorted((Path(__file__).resolve().parent.parent / "book").glob("*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_opens_with_each_of_its_verdicts_once(path):
    cards = [
        BeautifulSoup("".join(output["data"]["text/html"]), "html.parser").div
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", ())
        if MIME in output.get("data", {})
    ]
    ledger = Ledger([path])
    said = {
        card["id"]: " ".join((
            card.find("strong").get_text().rstrip("."),
            CLAIMS[card["id"][6:]].statement,
            ledger.settled[card["id"][6:]][0].verdict.answer,
        ))
        for card in cards
    }  # fmt: skip
    box = BeautifulSoup(opening.found(ledger), "html.parser")
    assert {item.a["href"][1:]: item.get_text() for item in box.find_all("li")} == said
    assert bool(box.find("details")) == bool(cards)
    assert not box.select("details[open]")  # no answer above its prediction
