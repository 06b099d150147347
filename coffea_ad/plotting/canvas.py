"""One way to begin and to write a figure: the field's style, no window, several formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from coffea_ad import files
from coffea_ad.errors import ConfigError

__all__ = ["canvas"]


@contextmanager
def canvas(
    path: str | Path | BinaryIO,
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] = (6.4, 4.8),
    *,
    formats: Sequence[str] = (),
    heights: Sequence[float] | None = None,
) -> Iterator[Any]:
    """Yield axes in the field's style, and write the figure at the end, in other formats (`pdf`) too; no window is ever opened.

    A binary file in the place of a path gets a PNG.
    """
    try:
        import matplotlib as mpl
        import mplhep
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("figures need matplotlib: pip install 'coffea-ad[plot]'") from error
    style = {**mplhep.style.ROOT, "font.size": 12, "axes.labelsize": 13, "legend.fontsize": 10, "xtick.labelsize": 11,
             "ytick.labelsize": 11, "axes.titlesize": 12, "figure.figsize": size}  # fmt: skip
    with mpl.rc_context(style):
        figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure.subplots(rows, columns, squeeze=False, height_ratios=heights, sharex="col" if heights else False)
        if not isinstance(path, (str, Path)):
            figure.savefig(path, dpi=120, format="png")
            return
        for place in (str(path), *(f"{str(path).removesuffix(Path(path).suffix)}.{suffix}" for suffix in formats)):
            kind = Path(place).suffix[1:] or "png"
            undated = {"CreationDate": None} if kind == "pdf" else None
            with files.replacing(place) as file:
                figure.savefig(file, dpi=120, format=kind, metadata=undated)
