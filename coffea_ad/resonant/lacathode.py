"""LaCATHODE: the classifier of CATHODE, in the latent space of its flow."""

from __future__ import annotations

from typing import ClassVar

from coffea_ad.nn.density.flow import Flow
from coffea_ad.nn.density.latent import FlowLatent
from coffea_ad.nn.scorable import Scorable, models_in
from coffea_ad.resonant.cathode import Sampled
from coffea_ad.resonant.classifiers import fit_classifier, labelled
from coffea_ad.skims.skim import Skim

__all__ = ["LaCATHODE"]


class LaCATHODE(Sampled):
    """A classifier tells data from a normal distribution in z = f(x; m), the latent space of p(x | m).

    Background is normal there at every mass, so that the score does not know the mass, inside the window and outside. The
    classifier is a network, behind the flow of the best epoch in one graph.

    References
    ----------
    A. Hallin et al., "Resonant anomaly detection without background sculpting", arXiv:2210.14924.
    """

    name: ClassVar[str] = "lacathode"
    reference: ClassVar[str] = "arXiv:2210.14924"

    def fit(
        self, sidebands: Skim, signal_region: Skim, *, simulation: Skim | None = None, background: Skim | None = None,  # noqa: ARG002
        signal: Skim | None = None,  # noqa: ARG002
    ) -> Scorable:  # fmt: skip
        """Learn the density, and the classifier on what it makes of data and of its own samples."""
        self.learn_density(sidebands, signal_region)
        flow = next(models_in(self.flow))
        assert isinstance(flow, Flow)
        rows = labelled(signal_region, self.oversampled(signal_region), self.seed)
        inputs = tuple(c for c in rows.columns if c != self.window.mass)
        network = self.settings.classifier.model_copy(update={"kind": "mlp"})
        return fit_classifier(
            network, rows, inputs, self.folder / "classifier", self.seed, "LaCATHODE", transform=FlowLatent(flow)
        )
