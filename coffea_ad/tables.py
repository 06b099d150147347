"""Tables of texts: in Markdown, and in HTML for notebooks and pages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

__all__ = ["Listing", "html_of"]

_LONG = 40  # characters, from which on a text may be broken
_NUMBER = re.compile(r"[(]?[-+−]?\d[\d.e+/-]*[σ%]?( [±+−[].*)?|–|hidden|")


@dataclass(frozen=True)
class Listing:
    """A table of texts.

    Attributes
    ----------
    title : str
    columns : tuple of str
    rows : tuple of tuples of str
        As many texts as there are columns.

    Examples
    --------
    >>> table = Listing("events", ("dataset", "n"), (("<qcd>", "12"),))
    >>> print(table.markdown())
    ## events
    <BLANKLINE>
    | dataset | n |
    | --- | --- |
    | <qcd> | 12 |
    <BLANKLINE>
    >>> "&lt;qcd&gt;" in table.html()
    True
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = [f"## {self.title}", "", "| " + " | ".join(self.columns) + " |", "| --- " * len(self.columns) + "|"]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in self.rows), ""])

    def html(self) -> str:
        """Return the table in HTML: all texts escaped, and columns of numbers on the right."""
        numbers = [all(_NUMBER.fullmatch(row[i]) is not None for row in self.rows) for i in range(len(self.columns))]
        sides = [' style="text-align: right"' if n and self.rows else ' style="text-align: left"' for n in numbers]

        def line(tag: str, texts: Iterable[str]) -> str:
            long = {True: ' class="long"', False: ""}
            cells = (
                f"<{tag}{side}{long[len(text) > _LONG]}>{escape(text)}</{tag}>"
                for side, text in zip(sides, texts, strict=True)
            )
            return f"<tr>{''.join(cells)}</tr>"

        title = f'<caption style="text-align: left">{escape(self.title)}</caption>' if self.title else ""
        body = "".join(line("td", row) for row in self.rows)
        return f"<table>{title}<thead>{line('th', self.columns)}</thead><tbody>{body}</tbody></table>"

    _repr_html_ = html


def html_of(title: str, tables: Iterable[Listing], sentences: Iterable[str] = ()) -> str:
    """Return HTML for a notebook: a title, tables, and a list of sentences; all texts are escaped.

    >>> html_of("a < b", [], ["one"])
    '<strong>a &lt; b</strong><ul><li>one</li></ul>'
    """
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return (
        f"<strong>{escape(title)}</strong>" + "".join(t.html() for t in tables) + (f"<ul>{said}</ul>" if said else "")
    )
