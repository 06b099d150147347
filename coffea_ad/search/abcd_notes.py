"""What is to be said of the regions and bins of an ABCD estimate that hold few events, none, or less than none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coffea_ad.search.abcd_counts import Plane
from coffea_ad.search.abcd_planes import Pair
from coffea_ad.typing import Bools, Float64s

__all__ = ["FEW", "notes_of_bins", "notes_of_regions"]

FEW = 5.0
"""With fewer effective events in a region its name and number are said."""


def notes_of_regions(plane: Plane, pair: Pair, observable: str, cut: float) -> list[str]:
    """Say which of B, C and D hold few events, none, or less than none."""
    names = {
        "B": (plane.b, f"{pair.tagged}, {observable} below {cut:g}"),
        "C": (plane.c, f"{pair.untagged}, {observable} above {cut:g}"),
        "D": (plane.d, f"{pair.untagged}, {observable} below {cut:g}"),
    }
    notes = []
    for letter, (content, where) in names.items():
        n, value = float(content.n_effective), float(content.value)
        effect = (
            "the estimate has no upper bound"
            if letter == "D"
            else "the estimate is 0, and its upper error what it says"
        )
        if value < 0:
            notes.append(
                f"region {letter} ({where}) holds {value:.3g} events, less than none: taken as 0, and {effect}"
            )
        elif n == 0:
            notes.append(f"region {letter} ({where}) is empty: {effect}")
        elif n < FEW:
            notes.append(f"region {letter} ({where}) holds {n:.2g} effective events: the error is far from symmetric")
    return notes


def notes_of_bins(plane: Plane, pair: Pair, observable: str, edges: Float64s) -> list[str]:
    """Say which bins of C are empty or negative; a sentence for each kind."""
    notes = []
    value = np.asarray(plane.c.value)
    for what, mask, effect in (
        ("less than no events", value < 0, "they are taken as empty"),
        ("no events", value == 0, "the estimate is 0 with an upper error"),
    ):
        names = [f"{edges[i]:g} to {edges[j]:g}" for i, j in _runs(mask)]
        if names and np.any(value > 0):
            notes.append(f"region C ({pair.untagged}), bins of {observable} {', '.join(names)}: {what}, {effect}")
    return notes


def _runs(mask: Sequence[bool] | Bools) -> list[tuple[int, int]]:
    """Return begin and end of the runs of true values.

    >>> _runs([True, True, False, True])
    [(0, 2), (3, 4)]
    """
    ends = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(int)))
    return [(int(i), int(j)) for i, j in zip(ends[::2], ends[1::2], strict=True)]
