"""CATHODE: data of the signal region against samples of a density that is interpolated from the sidebands."""

from __future__ import annotations

from typing import ClassVar

from coffea_ad.nn.density.sampling import sample_equally
from coffea_ad.nn.scorable import Scorable
from coffea_ad.resonant.background import fit_density
from coffea_ad.resonant.classifiers import fit_classifier, labelled
from coffea_ad.resonant.masses import sample_masses
from coffea_ad.resonant.method import Method
from coffea_ad.skims.skim import Skim

__all__ = ["CATHODE", "Sampled"]


class Sampled(Method):
    """A method with a flow of the sidebands, whose samples at masses of the signal region are the template."""

    def learn_density(self, sidebands: Skim, signal_region: Skim) -> None:
        """Train p(x | m) on the sidebands."""
        self.like = signal_region
        self.masses = self.mass(signal_region.splits("train", "validation"))
        self.flow, loss = fit_density(
            self.settings.flow, sidebands, self.window.mass, self.folder / "background", self.seed
        )
        self.metrics["background_loss"] = loss

    def template(self, n: int, seed: int) -> Skim:
        """Return n samples, from each of the best epochs equally many."""
        masses = sample_masses(self.masses, self.window, n, seed)
        x = sample_equally(self.flow, masses[:, None].astype("float32"), seed)
        return self.rows_at(self.like, x, masses, "template", seed)

    def oversampled(self, signal_region: Skim) -> Skim:
        """Return a template of `oversampling` times as many rows as the signal region trains with."""
        n = int(self.settings.oversampling * len(signal_region.splits("train", "validation").weight))
        return self.template(n, 1000 + self.seed)


class CATHODE(Sampled):
    """A classifier tells data from samples of p(x | m) at the masses of the signal region.

    References
    ----------
    A. Hallin et al., "Classifying anomalies through outer density estimation (CATHODE)", arXiv:2109.00546.
    """

    name: ClassVar[str] = "cathode"
    reference: ClassVar[str] = "arXiv:2109.00546"

    def fit(
        self, sidebands: Skim, signal_region: Skim, *, simulation: Skim | None = None, background: Skim | None = None,  # noqa: ARG002
        signal: Skim | None = None,  # noqa: ARG002
    ) -> Scorable:  # fmt: skip
        """Learn the density, sample it, and learn the classifier."""
        self.learn_density(sidebands, signal_region)
        rows = labelled(signal_region, self.oversampled(signal_region), self.seed)
        return fit_classifier(
            self.settings.classifier, rows, self.inputs(rows), self.folder / "classifier", self.seed, "CATHODE"
        )
