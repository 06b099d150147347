"""Figures of explanations: bars, or maps where a row is an image or the rapidity-mass matrix."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

from coffea_ad import features
from coffea_ad.errors import ConfigError
from coffea_ad.explaining.explanations import Explanation, Explanations
from coffea_ad.features.rmm import RMMOptions, matrix, slot_names
from coffea_ad.plotting.contributions import BARS, Bars, Map, contribution_bars, contribution_maps
from coffea_ad.scoring.specs import InputSpec

__all__ = ["draw"]

_PANELS, _MAPS = 6, 4
_NAMED = 3  # leading parts in the title of a map


def draw(explanations: Explanations, path: str | Path | BinaryIO) -> list[str]:
    """Draw the contributions of the first events, and return what is left out.

    Up to six events as bars of up to 40 parts; or up to four as maps, where all numbers of an image or of the rapidity-mass matrix contribute.

    Parameters
    ----------
    explanations : Explanations
    path : path or binary file
        Of the figure; its suffix is the format, and a file gets a PNG.

    Raises
    ------
    ConfigError
        There is no event, or matplotlib is missing.
    """
    if not explanations.rows:
        raise ConfigError("there is no event to draw: none has a score")
    spec = explanations.card.inputs[0]
    numbers = len(spec.entries)
    whole = explanations.rows[0].names[:numbers] == spec.entries
    what = f"contribution to {explanations.of}" if explanations.of in ("score", "exp(score)") else "contribution"
    if whole and _is_rmm(spec):
        options: RMMOptions = features.get("rmm").resolve(spec.features[0].options)
        rows, names = explanations.rows[:_MAPS], slot_names(options)
        maps = [
            Map(_title(row), matrix(row.contributions[None, :numbers].astype(np.float32), options, np.nan)[0])
            for row in rows
        ]
        edges = [
            i for i, name in enumerate(names) if i and name.rstrip("0123456789") != names[i - 1].rstrip("0123456789")
        ]
        contribution_maps(maps, path, label=what, ticks=names, edges=edges)
    elif whole and len(spec.shape) == 2 and len(spec.features[0].columns) == 1:
        rows = explanations.rows[:_MAPS]
        maps = [Map(row.title, row.contributions[:numbers].reshape(spec.shape)) for row in rows]
        contribution_maps(maps, path, label=what, axes_labels=(r"pixel in $\phi'$", r"pixel in $\eta'$"))
    else:
        rows = explanations.rows[:_PANELS]
        known = "input = value (median of the background)" if np.isfinite(rows[0].typical).any() else ""
        contribution_bars([_bars(row) for row in rows], path, xlabel=what, explanation=known)
        parts = len(rows[0].names)
        if parts > BARS:
            return [
                *_left_out(explanations, len(rows)),
                f"the figure shows the {BARS} largest of {parts} parts of each",
            ]
    return _left_out(explanations, len(rows))


def _is_rmm(spec: InputSpec) -> bool:
    return len(spec.features) == 1 and spec.features[0].name == "rmm"


def _left_out(explanations: Explanations, shown: int) -> list[str]:
    n = len(explanations.rows)
    return [f"the figure shows the first {shown} of {n}"] if shown < n else []


def _title(row: Explanation) -> str:
    leading = ", ".join(f"{part.name} {part.share:.0%}" for part in row.leading(_NAMED))
    return f"{row.title}\n{leading}"


def _bars(row: Explanation) -> Bars:
    parts = row.leading(BARS)
    labels = []
    for part in parts:
        usual = "" if math.isnan(part.typical) else f" ({part.typical:.3g})"
        labels.append(part.name if math.isnan(part.value) else f"{part.name} = {part.value:.3g}{usual}")
    return Bars(row.title, labels, np.array([part.contribution for part in parts]))
