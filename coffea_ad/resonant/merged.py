"""Several templates as one: a classifier that is trained jointly on the templates of several methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from coffea_ad.resonant.classifiers import Classified
from coffea_ad.resonant.method import Method
from coffea_ad.resonant.settings import Settings
from coffea_ad.resonant.windows import Window
from coffea_ad.skims.skim import Skim

__all__ = ["Merged"]


class Merged(Classified):
    """A classifier tells data from the templates of several methods together, of equal weight each.

    Errors of a template that the others do not share are diluted, and with them false positives.

    Parameters
    ----------
    parts : sequence of Method
        Whose templates are merged.
    settings, window, folder, seed
        As of any method.

    References
    ----------
    "The interplay of machine learning-based resonant anomaly detection methods", arXiv:2307.11157.
    """

    name: ClassVar[str] = "merged"
    reference: ClassVar[str] = "arXiv:2307.11157"

    def __init__(
        self, parts: Sequence[Method], settings: Settings, window: Window, folder: Path, seed: int = 1
    ) -> None:
        super().__init__(settings, window, folder, seed)
        self.parts = list(parts)
        self.title = f"merged {', '.join(p.name for p in parts)}"

    def prepare(self) -> None:
        """Fit all methods."""
        for part in self.parts:
            part.fit(
                self.sidebands, self.signal_region, simulation=self.simulation, background=self.background, signal=self.signal
            )  # fmt: skip
            self.metrics |= {f"{part.name}_{key}": value for key, value in part.metrics.items()}

    def sideband_template(self, seed: int) -> Skim | None:
        """Return those of all methods, equally many of each; None if one has none."""
        each = [part.sideband_template(seed + i) for i, part in enumerate(self.parts)]
        known = [rows for rows in each if rows is not None]
        return self._together(known, seed) if len(known) == len(each) else None

    def rows(self, n: int | None, seed: int, splits: tuple[str, ...]) -> Skim:
        """Return rows of all templates, equally many of each."""
        each = None if n is None else -(-n // len(self.parts))
        rows = [part.rows(each, seed + i, splits) for i, part in enumerate(self.parts)]
        return self._together(rows, seed)

    @staticmethod
    def _together(rows: Sequence[Skim], seed: int) -> Skim:
        n = min(len(r.weight) for r in rows)
        first, *others = (r.select(np.random.default_rng(seed).permutation(len(r.weight))[:n]) for r in rows)
        for other in others:
            first = first.joined(other)
        return first
