"""Tables of results: HTML on a page, aligned text elsewhere."""

import re
from collections.abc import Mapping, Sequence
from html import escape

from tabulate import tabulate

__all__ = ["Table", "table"]

_NUMBER = re.compile(r"$|[-+]?(\d|inf|nan)")
_UNBROKEN = re.compile(r"\[[^]]*]|\S+-\S+")
_NOWRAP = r'<span class="text-nowrap">\g<0></span>'


class Table:
    """What :func:`table` returns: a notebook shows it as HTML, ``repr`` is text."""

    def __init__(self, headers: Sequence[str], rows: Sequence[Sequence[str]], caption: str):
        self._headers, self._rows, self._caption = headers, rows, caption
        self._align = ["right" if all(map(_NUMBER.match, column)) else "left" for column in zip(*rows, strict=True)]

    def _tabulate(self, tablefmt: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        return tabulate(rows, headers, tablefmt=tablefmt, colalign=self._align, disable_numparse=True)

    def __repr__(self) -> str:
        text = self._tabulate("simple", self._headers, self._rows)
        return f"{self._caption}\n{text}" if self._caption else text

    def _repr_html_(self) -> str:
        rows = [[_UNBROKEN.sub(_NOWRAP, escape(cell)) for cell in row] for row in self._rows]
        html = self._tabulate("unsafehtml", [escape(header) for header in self._headers], rows)
        html = re.sub(r"(<t[dh][^>]*>) +| +(?=</t[dh]>)", r"\1", html)  # the padding of cells
        html = html.replace("<table>", '<table class="dataframe">', 1)
        caption = f"<figcaption>{escape(self._caption)}</figcaption>" if self._caption else ""
        return f'<figure class="results">{caption}{html}</figure>'


def table(rows: Sequence[Mapping[str, object]], caption: str = "") -> Table:
    """A table with one column per key.

    Columns whose entries all begin with a number are aligned on the right. On a page no line is broken
    inside of brackets or at a hyphen.

    Args:
        rows: at least one; each maps headings to entries, shown as `str` writes them. The columns are those of the
            first row; another row may lack some of them.
        caption: what the table shows, with the units that the headings leave out.

    Raises:
        ValueError: there is no row, or a row has a column that the first one lacks.

    Example:
        >>> table([{"shape": "cosine", "rate": 0.1}, {"shape": "linear", "rate": 0.25}], "best rates")
        best rates
        shape      rate
        -------  ------
        cosine      0.1
        linear     0.25
    """
    if not rows:
        raise ValueError(f"rows={rows!r}: must have at least one row")
    headers = list(rows[0])
    for number, row in enumerate(rows):
        if new := [key for key in row if key not in headers]:
            raise ValueError(f"rows: row {number} has the column {new[0]!r}, must have those of the first, {headers}")
    return Table(headers, [[str(row.get(key, "")) for key in headers] for row in rows], caption)
