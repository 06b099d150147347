"""What a page is made of: sections of sentences, tables, figures and texts."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from coffea_ad.errors import BadFile
from coffea_ad.tables import Listing

__all__ = ["Block", "Figure", "Figures", "Section", "Sentences", "Table", "Verbatim", "figures_in"]

_BROAD = 1100  # pixels
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Figure:
    """A picture with what stands below it.

    Attributes
    ----------
    title : str
    png : bytes

    Raises
    ------
    BadFile
        It is no PNG.
    """

    title: str
    png: bytes

    def __post_init__(self) -> None:
        if self.png[:8] != _PNG or len(self.png) < 24:
            raise BadFile(f"{self.title}: this is no PNG file")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height

    @property
    def broad(self) -> bool:
        """Whether it has several panels side by side, and takes a line of its own."""
        return self.size[0] > _BROAD

    @property
    def source(self) -> str:
        """The picture itself as an address."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Figures:
    """Pictures side by side, as many as fit."""

    figures: tuple[Figure, ...]
    kind: ClassVar[str] = "figures"


@dataclass(frozen=True)
class Sentences:
    """A list of sentences; `grave` ones are things that went wrong."""

    sentences: tuple[str, ...]
    grave: bool = False
    kind: ClassVar[str] = "sentences"


@dataclass(frozen=True)
class Table:
    """A table in a box of its own, which scrolls if the page is narrower."""

    table: Listing
    kind: ClassVar[str] = "table"

    @property
    def html(self) -> str:
        """The table without its title, which stands above the box."""
        return replace(self.table, title="").html()


@dataclass(frozen=True)
class Verbatim:
    """A long text, folded up on the screen."""

    title: str
    text: str
    kind: ClassVar[str] = "verbatim"


Block = Figures | Sentences | Table | Verbatim


@dataclass(frozen=True)
class Section:
    """A part of the page, with a title that the table of contents lists, and parts of its own."""

    title: str
    blocks: Sequence[Block] = ()
    parts: Sequence[Section] = field(default=())


def figures_in(sections: Sequence[Section]) -> Iterator[Figure]:
    """Yield all pictures, in their order on the page."""
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Figures):
                yield from block.figures
        yield from figures_in(section.parts)
