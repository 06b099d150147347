"""How the figures of a run look: names, colours, order and groups of processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from coffea_ad.config import Frozen

__all__ = ["STYLE", "Style"]

STYLE = "style.yaml"
"""Of a results folder, whose figures are drawn like this."""


class Style(Frozen):
    """The keys of a style file; all of them may be left out.

    >>> Style(labels={"qcd": "QCD multijet"}).label("qcd")
    'QCD multijet'
    """

    labels: dict[str, str] = Field({}, description="what a process is called; LaTeX between $ is set")
    colors: dict[str, str] = Field({}, description="of a process, as matplotlib has them")
    order: tuple[str, ...] = Field((), description="processes of a stack from below; others lie below them, by yield")
    groups: dict[str, tuple[str, ...]] = Field({}, description="several processes as one: {diboson: [ww, wz, zz]}")
    signal_scale: float | Literal["auto"] = Field(
        1.0, description="factor on signals, in the legend; auto: a power of ten"
    )
    experiment: str = Field("", description="CMS, ATLAS, or any text; nothing by default")
    status: str = Field("", description="behind it, such as Preliminary")
    log: bool = Field(True, description="logarithmic events")
    formats: tuple[Literal["png", "pdf", "svg"], ...] = Field(("png",), min_length=1)

    def label(self, process: str) -> str:
        """Return what a process is called."""
        return self.labels.get(process, process)

    def group(self, process: str) -> str:
        """Return the group of a process, or itself."""
        return next((name for name, members in self.groups.items() if process in members), process)

    def colors_of(self, processes: Iterable[str]) -> dict[str, Any]:
        """Return a colour for each of the processes of a run, which no figure changes."""
        import matplotlib as mpl

        usual = [c for c in mpl.color_sequences["petroff10"] if c not in self.colors.values()]
        free = [p for p in sorted(set(processes)) if p not in self.colors]
        return {**{p: usual[i % len(usual)] for i, p in enumerate(free)}, **self.colors}
