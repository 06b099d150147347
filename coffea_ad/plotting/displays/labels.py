"""Labels beside objects, each where it covers the least of those before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Labels", "around", "outlined"]

Box = tuple[float, float, float, float]
_WIDE, _HIGH = 0.6 / 72, 1.2 / 72  # of a letter, inches a point


class Labels:
    """The labels of one picture.

    Parameters
    ----------
    ax : matplotlib axes
        With equal units in both directions.
    width, height : float
        Half of what is shown in either direction; the centre is 0.
    inches : float
        How long the longer side is in the figure, roughly.
    """

    def __init__(self, ax: Any, width: float, height: float, inches: float) -> None:
        self.ax, self.width, self.height = ax, width, height
        self.unit = 2 * max(width, height) / inches
        self.boxes: list[Box] = []

    def avoid(self, x: float, y: float, half: float) -> None:
        """Keep later labels off a square."""
        self.boxes.append((x - half, y - half, 2 * half, 2 * half))

    def put(
        self, text: str, anchors: Sequence[tuple[float, float, float, float]], *, color: str = "black", size: int = 12
    ) -> None:
        """Write a text at one of several places, the earlier the better.

        Parameters
        ----------
        text : str
        anchors : sequence of (x, y, horizontal, vertical)
            A point, and where the text lies from it: −1 left or below, 0 centred, 1 right or above.
        color, size
            Of the letters, in points.
        """
        wide, high = _WIDE * len(text) * size * self.unit, _HIGH * size * self.unit
        tried = []
        for rank, (x, y, across, along) in enumerate(anchors):
            left, low = x + (across - 1) * wide / 2, y + (along - 1) * high / 2
            inside = min(max(left, -self.width), self.width - wide), min(max(low, -self.height), self.height - high)
            moved = abs(inside[0] - left) / wide + abs(inside[1] - low) / high
            covered = sum(_shared((*inside, wide, high), box) for box in self.boxes) / (wide * high)
            tried.append((covered + 0.5 * moved + 0.02 * rank, inside))
        left, low = min(tried)[1]
        self.boxes.append((left, low, wide, high))
        self.ax.text(left + wide / 2, low + high / 2, text, ha="center", va="center", fontsize=size, color=color,
                     path_effects=outlined(), zorder=6)  # fmt: skip


def _shared(one: Box, two: Box) -> float:
    """Return the area that two boxes (left, low, width, height) share.

    >>> _shared((0, 0, 2, 2), (1, 1, 2, 2)), _shared((0, 0, 1, 1), (2, 0, 1, 1))
    (1, 0)
    """
    wide, high = (min(one[i] + one[i + 2], two[i] + two[i + 2]) - max(one[i], two[i]) for i in (0, 1))
    return max(wide, 0) * max(high, 0)


def around(x: float, y: float, away: float) -> list[tuple[float, float, float, float]]:
    """Return where a text may stand about a point: above, below and at the sides, as `Labels.put` takes it."""
    slant = 0.72 * away
    corners = [(x + a * slant, y + b * slant, a, b) for b in (1, -1) for a in (1, -1)]
    return [(x, y + away, 0, 1), (x, y - away, 0, -1), (x + away, y, 1, 0), (x - away, y, -1, 0), *corners]


def outlined() -> list[Any]:
    """Return the path effects of text that has to be read over anything."""
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=2.5, foreground="white")]
