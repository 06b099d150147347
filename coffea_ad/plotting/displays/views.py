"""The views of an event, by name, as whole figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from coffea_ad.errors import MissingBranch, UnknownName
from coffea_ad.nanoaod.columns import where
from coffea_ad.plotting.canvas import canvas
from coffea_ad.plotting.displays.contents import Content, content_of
from coffea_ad.plotting.displays.event_eta_phi import draw_eta_phi, reach_of
from coffea_ad.plotting.displays.jet_view import draw_jet
from coffea_ad.plotting.displays.jets import JetContent, jets_of
from coffea_ad.plotting.displays.lund import draw_lund
from coffea_ad.plotting.displays.marks import FLOW, JETS, LARGE, LEPTONS, MISSING, PARTICLES, SYMBOLS, number, title
from coffea_ad.plotting.displays.rmm_map import draw_rmm, rmm_of
from coffea_ad.plotting.displays.transverse import draw_transverse, flow

__all__ = ["VIEWS", "draw_event"]

_NUMBERS = "numbers: $p_T$ in GeV"


def draw_event(
    events: Any, path: str | Path | BinaryIO, view: str = "event", *, scores: Mapping[str, float] | None = None
) -> None:
    """Draw one view of an event.

    Parameters
    ----------
    events : (1,) NanoEvents
        Such as `coffea_ad.event_lists.opened.open_event` returns it.
    path : path or binary file
        Its suffix tells the format; a file gets a PNG.
    view : str
        A key of `VIEWS`.
    scores : {name: float}, optional
        Of taggers, for the title.

    Raises
    ------
    UnknownName
        There is no such view.
    MissingBranch, ConfigError
        The file, or the event, does not have what the view shows.
    BadFile
        A branch cannot be read.

    Examples
    --------
    >>> import io
    >>> from coffea_ad.event_lists.opened import Place, open_event
    >>> draw_event(open_event(Place(str(svj_file), 7)), image := io.BytesIO(), "transverse")
    >>> image.getvalue()[1:4]
    b'PNG'
    """
    if view not in VIEWS:
        raise UnknownName.of("view", view, VIEWS)
    VIEWS[view](events, content_of(events), path, dict(scores or {}))


def _event(events: Any, content: Content, path: Any, scores: dict[str, float]) -> None:  # noqa: ARG001
    with _beside(path, content, scores, high=min(1.0, np.pi / reach_of(content))) as ax:
        draw_eta_phi(ax, content)
        _legend(ax, [*_objects(content), *_beneath(content)], "outside right upper", title=_NUMBERS)


def _transverse(events: Any, content: Content, path: Any, scores: dict[str, float]) -> None:  # noqa: ARG001
    from matplotlib.patches import Patch

    with _beside(path, content, scores) as ax:
        draw_transverse(ax, content)
        tallest = f"constituents of\n{_jets_with_particles(content)},\n$p_T$ in 5°, at most\n{number(flow(content.particles).max())} GeV"
        bars = (
            [Patch(facecolor=FLOW.color, edgecolor="black", linewidth=0.3, label=tallest)]
            if len(content.particles)
            else []
        )
        _legend(ax, [*_objects(content), *bars], "outside right upper", title=_NUMBERS)


@contextmanager
def _beside(path: Any, content: Content, scores: dict[str, float], high: float = 1.0) -> Iterator[Any]:
    """Yield the axes of a view with a legend at its side, so high in the units of their width."""
    with canvas(path, size=(9.8, 1.2 + 6.0 * high)) as axes:
        _title(axes, title(content, scores, content.notes))
        yield axes[0, 0]


def _jet(events: Any, content: Content, path: Any, scores: dict[str, float]) -> None:
    jets = jets_of(events, content)
    if not any(jet.particles is not None or jet.subjets for jet in jets):
        raise MissingBranch(
            f"{where(events)}there are neither constituents nor subjets of the {jets[0].jet.kind.name}s of this event"
        )
    with canvas(path, 1, len(jets), size=(5.8, 6.7)) as axes:
        for ax, jet in zip(axes[0], jets, strict=True):
            draw_jet(ax, jet)
        _title(axes, title(content, scores, [_subjets(jets), *content.notes]))
        _legend(axes[0, 0], _constituents(content), "outside lower center", columns=2 if len(jets) == 1 else 5)


def _lund(events: Any, content: Content, path: Any, scores: dict[str, float]) -> None:
    jets = jets_of(events, content)
    if any(jet.particles is None for jet in jets):
        raise MissingBranch(
            f"{where(events)}there are no constituents of {jets[0].jet.kind.name}s, of which a Lund plane is made"
        )
    with canvas(path, 1, len(jets), size=(5.6, 6.0)) as axes:
        for ax, jet in zip(axes[0], jets, strict=True):
            draw_lund(ax, jet)
        axes[0, -1].legend(loc="upper right", fontsize=13)
        _title(
            axes,
            title(
                content, scores, ["Cambridge/Aachen, down the harder branch, 1 the widest; area in proportion to $z$"]
            ),
        )


def _rmm(events: Any, content: Content, path: Any, scores: dict[str, float]) -> None:
    cells = rmm_of(events)
    with canvas(path, size=(7.6, 7.0)) as axes:
        draw_rmm(axes[0, 0], cells)
        text = title(content, scores, [f"rapidity-mass matrix: {cells.size} × {cells.size}, without empty slots"])
        _title(axes, text)


VIEWS: dict[str, Callable[[Any, Content, Any, dict[str, float]], None]] = {
    "event": _event,
    "transverse": _transverse,
    "jet": _jet,
    "lund": _lund,
    "rmm": _rmm,
}
"""What there is: η and φ; across the beams; the leading jets with subjets; their Lund planes; the rapidity-mass matrix."""


def _subjets(jets: list[JetContent]) -> str:
    if jets[0].clustered:
        return f"{len(jets[0].subjets)} exclusive $k_T$ subjets"
    return "stored subjets"


def _objects(content: Content) -> list[Any]:
    """Return what the legend has of objects."""
    from matplotlib.lines import Line2D

    lines = []
    for collection, mark in {**JETS, **LEPTONS}.items():
        objects = content.of(collection)
        if not objects:
            continue
        kind = objects[0].kind
        cut = f", $p_T$ > {kind.pt_min:.0f} GeV" if collection in JETS and kind.pt_min else ""
        text = f"{kind.name}{'s' if collection in JETS else ''} ({SYMBOLS[collection]}){cut}"
        look = LARGE if collection in LEPTONS else {"linewidth": mark.width}
        line: Any = mark.line if collection in JETS else ""
        lines.append(Line2D([], [], color=mark.color, marker=mark.marker, linestyle=line, label=text, **look))
    if content.missing:
        look = {"linestyle": MISSING.line, "linewidth": MISSING.width}
        lines.append(Line2D([], [], color=MISSING.color, label=content.missing.name, **look))
    return lines


def _jets_with_particles(content: Content) -> str:
    return " and ".join(f"{name}s" for name in content.with_particles)


def _constituents(content: Content) -> list[Any]:
    """Return what the legend has of constituents."""
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"linestyle": "", "markersize": 9, "markeredgecolor": "black", "markeredgewidth": 0.3}
    return [
        Line2D([], [], color=mark.color, marker=mark.marker, label=kind, **look)
        for kind, mark in PARTICLES.items()
        if kind in content.particles.kind
    ]


def _beneath(content: Content) -> list[Any]:
    """Return the constituents of a legend with a line that says of what they are."""
    from matplotlib.lines import Line2D

    head = f"constituents of\n{_jets_with_particles(content)},\narea in proportion to $p_T$:"
    lines = _constituents(content)
    return [Line2D([], [], linestyle="", label=head), *lines] if lines else []


def _legend(ax: Any, handles: list[Any], place: str, columns: int = 1, title: str = "") -> None:
    if handles:
        legend = ax.get_figure().legend(
            handles=handles, fontsize=13, loc=place, ncols=columns, handlelength=2.6, title=title
        )
        legend.set_alignment("left")
        legend.get_title().set_fontsize(13)


def _title(axes: Any, text: str) -> None:
    figure = axes[0, 0].get_figure()
    figure.set_layout_engine("compressed", w_pad=0.15, h_pad=0.1)
    figure.suptitle(text, x=0.01, ha="left", fontsize=14)
