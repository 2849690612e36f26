"""The box with what a chapter found agrees with the cards of the chapter."""

import json
from pathlib import Path

import opening
import pytest
from bs4 import BeautifulSoup

from lrlib.claims import CLAIMS, Ledger

CHAPTERS = sorted((Path(__file__).resolve().parent.parent / "book").glob("*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_opens_with_each_of_its_verdicts_once(path):
    cards = [
        BeautifulSoup("".join(output["data"]["text/html"]), "html.parser").div
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", ())
        if "application/vnd.lrlib.verdict+json" in output.get("data", {})
    ]
    said = {card["id"]: card.find("strong").get_text().rstrip(".") for card in cards}
    box = BeautifulSoup(opening.found(Ledger([path])), "html.parser")
    assert {item.a["href"][1:]: item.strong.get_text() for item in box.find_all("li")} == said
    assert bool(box.find("details")) == bool(cards)
    assert not box.select("details[open]")  # no answer above its prediction


def test_what_was_found_instead_stands_where_the_claim_does_not_hold():
    (path,) = (path for path in CHAPTERS if path.stem == "image_schedules")
    items = {
        item.a["href"][7:]: item.get_text()
        for item in BeautifulSoup(opening.found(Ledger([path])), "html.parser")("li")
    }
    assert items["A4"] == f"Holds {CLAIMS['A4'].statement}"
    assert len(items["A8"]) > len(f"Corrected {CLAIMS['A8'].statement} ") + 20
