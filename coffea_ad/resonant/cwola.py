"""CWoLa hunting: signal region against its sidebands."""

from __future__ import annotations

from typing import ClassVar

from coffea_ad.resonant.classifiers import Classified
from coffea_ad.resonant.masses import sample_masses
from coffea_ad.skims.skim import Skim

__all__ = ["CWoLa"]


class CWoLa(Classified):
    """A classifier tells the signal region from the sidebands; s → log p(x | SR) / p(x | SB).

    If x does not depend on m for the background, that is monotonic in the ratio of signal and background. Where it does
    depend, the classifier learns m, and makes a bump of background.

    References
    ----------
    E. Metodiev, B. Nachman, J. Thaler, "Classification without labels", arXiv:1708.02949;
    J. Collins, K. Howe, B. Nachman, "Extending the search for new resonances with machine learning", arXiv:1902.02634.
    """

    name: ClassVar[str] = "cwola"
    reference: ClassVar[str] = "arXiv:1902.02634"
    title = "CWoLa"

    def prepare(self) -> None:
        """Keep sidebands of the width of `short_sidebands` only."""
        width = self.settings.short_sidebands
        if width is not None:
            m = self.mass(self.sidebands)
            near = (m >= self.window.low - width) & (m < self.window.high + width)
            self.sidebands = self.sidebands.select(near)

    def rows(self, n: int | None, seed: int, splits: tuple[str, ...]) -> Skim:
        """Return rows of the sidebands, at masses of the signal region."""
        rows = self.some(self.sidebands, n, seed, splits)
        return self.at(rows, sample_masses(self.masses, self.window, len(rows.weight), seed))
