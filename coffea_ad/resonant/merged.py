"""Several templates as one: a classifier that is trained jointly on the templates of several methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from coffea_ad.nn.scorable import Scorable
from coffea_ad.resonant.classifiers import fit_classifier, labelled
from coffea_ad.resonant.method import Method, Need
from coffea_ad.skims.skim import Skim

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Merged"]


class Merged(Method):
    """A classifier tells data from the templates of several methods together, of equal weight each.

    Errors of a template that the others do not share are diluted, and with them false positives.

    References
    ----------
    "The interplay of machine learning-based resonant anomaly detection methods", arXiv:2307.11157.
    """

    name: ClassVar[str] = "merged"
    needs: ClassVar[tuple[Need, ...]] = ("sidebands",)
    reference: ClassVar[str] = "arXiv:2307.11157"
    parts: Sequence[Method] = ()

    def fit(
        self, sidebands: Skim, signal_region: Skim, *, simulation: Skim | None = None, background: Skim | None = None,
        signal: Skim | None = None,
    ) -> Scorable:  # fmt: skip
        """Fit the methods of `parts`, and a classifier on all their templates."""
        for part in self.parts:
            part.fit(sidebands, signal_region, simulation=simulation, background=background, signal=signal)
            self.metrics |= {f"{part.name}_{key}": value for key, value in part.metrics.items()}
        n = int(self.settings.oversampling * len(signal_region.splits("train", "validation").weight))
        rows = labelled(signal_region, self.template(n, 1000 + self.seed), self.seed)
        return fit_classifier(
            self.settings.classifier, rows, self.inputs(rows), self.folder / "classifier", self.seed,
            f"merged {', '.join(p.name for p in self.parts)}",
        )  # fmt: skip

    def template(self, n: int, seed: int) -> Skim:
        """Return rows of all templates, equally many of each."""
        rows = [part.template(-(-n // len(self.parts)), seed + i) for i, part in enumerate(self.parts)]
        least = min(len(r.weight) for r in rows)
        out = rows[0].select(np.arange(least))
        for other in rows[1:]:
            out = out.joined(other.select(np.arange(least)))
        return out
