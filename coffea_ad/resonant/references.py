"""What no data analysis can have: pure background in the signal region (IAD), and pure signal (supervised)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from coffea_ad.nn.scorable import Scorable
from coffea_ad.resonant.classifiers import fit_classifier, labelled
from coffea_ad.resonant.method import Method, Need
from coffea_ad.skims.skim import Skim

__all__ = ["IAD", "Supervised"]


class IAD(Method):
    """Idealised anomaly detector: a classifier tells data of the signal region from true background; a ceiling of weak methods.

    References
    ----------
    A. Hallin et al., "Classifying anomalies through outer density estimation (CATHODE)", arXiv:2109.00546.
    """

    name: ClassVar[str] = "iad"
    needs: ClassVar[tuple[Need, ...]] = ("background",)
    reference: ClassVar[str] = "arXiv:2109.00546"
    sampled: ClassVar[bool] = False

    def fit(
        self, sidebands: Skim, signal_region: Skim, *, simulation: Skim | None = None, background: Skim | None = None,  # noqa: ARG002
        signal: Skim | None = None,  # noqa: ARG002
    ) -> Scorable:  # fmt: skip
        """Learn the classifier."""
        return self.learn(signal_region, background, "IAD")

    def learn(self, ones: Skim, background: Skim | None, method: str) -> Scorable:
        """Learn to tell rows from true background."""
        self.require(background=background)
        assert background is not None
        inside = background.select(self.window.in_signal_region(self.mass(background)))
        self.require(background=inside)
        self.background = inside
        rows = labelled(ones, inside, self.seed)
        return fit_classifier(
            self.settings.classifier, rows, self.inputs(rows), self.folder / "classifier", self.seed, method
        )

    def template(self, n: int, seed: int) -> Skim:
        """Return test rows of the background, at most n."""
        rows = self.background.splits("test")
        take = np.random.default_rng(seed).permutation(len(rows.weight))[:n]
        return rows.select(np.sort(take))


class Supervised(IAD):
    """A classifier tells true signal from true background: the ceiling of everything with these inputs."""

    name: ClassVar[str] = "supervised"
    needs: ClassVar[tuple[Need, ...]] = ("background", "signal")

    def fit(
        self, sidebands: Skim, signal_region: Skim, *, simulation: Skim | None = None, background: Skim | None = None,  # noqa: ARG002
        signal: Skim | None = None,
    ) -> Scorable:  # fmt: skip
        """Learn the classifier, from signal in the window."""
        self.require(signal=signal)
        assert signal is not None
        inside = signal.select(self.window.in_signal_region(self.mass(signal)))
        self.require(signal=inside)
        return self.learn(inside, background, "supervised")
