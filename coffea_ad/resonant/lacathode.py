"""LaCATHODE: the classifier of CATHODE, in the latent space of its flow."""

from __future__ import annotations

from typing import ClassVar

from coffea_ad.errors import ConfigError
from coffea_ad.nn.density.flow import Flow
from coffea_ad.nn.density.latent import FlowLatent
from coffea_ad.nn.scorable import Scorable, models_in
from coffea_ad.resonant.cathode import CATHODE
from coffea_ad.resonant.classifiers import fit_best
from coffea_ad.skims.skim import Skim

__all__ = ["LaCATHODE"]


class LaCATHODE(CATHODE):
    """A classifier tells data from a normal distribution in z = f(x; m), the latent space of p(x | m).

    Background is normal there at every mass, so that the score does not know the mass, inside the window and outside. The
    classifier is a network, behind the flow of the best epoch in one graph.

    References
    ----------
    A. Hallin et al., "Resonant anomaly detection without background sculpting", arXiv:2210.14924.
    """

    name: ClassVar[str] = "lacathode"
    reference: ClassVar[str] = "arXiv:2210.14924"
    title = "LaCATHODE"

    def classify(self, rows: Skim) -> Scorable:
        """Fit a network to what the flow makes of data and of its own samples."""
        flow = next(models_in(self.flow))
        assert isinstance(flow, Flow)
        inputs = tuple(c for c in rows.columns if c != self.window.mass)
        if any(c.inputs for c in self.settings.tried):
            raise ConfigError(
                "lacathode: a classifier cannot have inputs of its own, since it sees the latent space of all"
            )
        networks = [c.model_copy(update={"kind": "mlp"}) for c in self.settings.tried]
        model, metrics = fit_best(
            networks, rows, inputs, self.folder / "classifier", self.seed, self.title, transform=FlowLatent(flow)
        )
        self.metrics |= metrics
        return model
