"""CWoLa hunting: signal region against its sidebands."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from coffea_ad.nn.scorable import Scorable
from coffea_ad.resonant.classifiers import fit_classifier, labelled
from coffea_ad.resonant.masses import sample_masses
from coffea_ad.resonant.method import Method
from coffea_ad.skims.skim import Skim

__all__ = ["CWoLa"]


class CWoLa(Method):
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
    sampled: ClassVar[bool] = False

    def fit(
        self, sidebands: Skim, signal_region: Skim, *, simulation: Skim | None = None, background: Skim | None = None,  # noqa: ARG002
        signal: Skim | None = None,  # noqa: ARG002
    ) -> Scorable:  # fmt: skip
        """Learn the classifier; with `short_sidebands` from sidebands of that width only."""
        self.sidebands, self.masses = self._short(sidebands), self.mass(signal_region.splits("train", "validation"))
        rows = labelled(signal_region, self.sidebands, self.seed)
        return fit_classifier(
            self.settings.classifier, rows, self.inputs(rows), self.folder / "classifier", self.seed, "CWoLa"
        )

    def template(self, n: int, seed: int) -> Skim:
        """Return test rows of the sidebands, at most n, at masses of the signal region."""
        rows = self.sidebands.splits("test")
        take = np.random.default_rng(seed).permutation(len(rows.weight))[:n]
        some = rows.select(np.sort(take))
        masses = sample_masses(self.masses, self.window, len(some.weight), seed)
        return self.rows_at(some, np.asarray(some.x[:]), masses, "template", seed)

    def _short(self, sidebands: Skim) -> Skim:
        width = self.settings.short_sidebands
        if width is None:
            return sidebands
        m = self.mass(sidebands)
        return sidebands.select((m >= self.window.low - width) & (m < self.window.high + width))
