"""Claims: every id of the sources, and verdicts that can be read back from a notebook."""

import json

import pytest

from lrlib import claims


def test_every_claim_of_the_five_sources_is_there():
    counts = {letter: sum(key.startswith(letter) for key in claims.CLAIMS) for letter in claims.SOURCES}
    assert counts == {"A": 10, "J": 13, "H": 8, "L": 11, "Q": 15}
    assert len({claim.statement for claim in claims.CLAIMS.values()}) == len(claims.CLAIMS)


def test_a_verdict_is_read_back_from_the_notebook_it_was_stored_in(tmp_path):
    verdict = claims.settle("J1", "holds", "Divergence begins at 2/h < 0.2.")
    bundle = verdict._repr_mimebundle_()
    assert "&lt; 0.2" in bundle["text/html"] and 'class="claim holds"' in bundle["text/html"]
    cells = [{"id": "a", "cell_type": "markdown"}, {"id": "b", "cell_type": "code", "outputs": [{"data": bundle}]}]
    path = tmp_path / "chapter.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    assert list(claims.verdicts_in(path)) == [("b", verdict)]


@pytest.mark.parametrize(
    "arguments, named",
    [(("Z9", "holds", "x"), "claim='Z9'"), (("J1", "open", "x"), "verdict='open'"), (("J1", "holds", " "), "evidence")],
)
def test_a_bad_verdict_is_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        claims.settle(*arguments)
