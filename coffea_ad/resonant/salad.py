"""SALAD: simulation, reweighted to the sidebands and interpolated into the signal region, as the template."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from coffea_ad.errors import SkimError
from coffea_ad.resonant.classifiers import Classified, fit_classifier, labelled
from coffea_ad.resonant.method import Need
from coffea_ad.resonant.settings import ClassifierConfig
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float64s

__all__ = ["SALAD"]

_LARGEST = 20.0  # of a weight: a ratio beyond is one that the network cannot know


class SALAD(Classified):
    """Weights w(x, m) = f / (1 − f) of a network that tells data from simulation in the sidebands, m among its inputs.

    They make simulation of the signal region the template, from which a classifier tells the data.

    References
    ----------
    A. Andreassen, B. Nachman, D. Shih, "Simulation assisted likelihood-free anomaly detection", arXiv:2001.05001.
    """

    name: ClassVar[str] = "salad"
    needs: ClassVar[tuple[Need, ...]] = ("sidebands", "simulation")
    reference: ClassVar[str] = "arXiv:2001.05001"
    title = "SALAD"

    def prepare(self) -> None:
        """Learn the weights in the sidebands, and weight the simulation of the signal region by them."""
        simulation = self.required("simulation")
        outside = simulation.select(self.window.in_sidebands(self.mass(simulation)))
        inside = self.inside(simulation)
        if not len(outside.weight) or not len(inside.weight):
            raise SkimError(f"window {self.window.name}: there is no simulation in its sidebands or its signal region")
        rows = labelled(self.sidebands, outside)
        with_mass = tuple(dict.fromkeys((*self.inputs(rows), self.window.mass)))
        network = ClassifierConfig(kind="mlp", epochs=self.settings.classifier.epochs, keep=5)
        self.weigher = fit_classifier(network, rows, with_mass, self.folder / "weights", self.seed, "weights")
        self.weighted, self.weighted_outside = self._weighted(inside), self._weighted(outside)

    def rows(self, n: int | None, seed: int, splits: tuple[str, ...]) -> Skim:
        """Return rows of the weighted simulation."""
        return self.some(self.weighted, n, seed, splits)

    def sideband_template(self, seed: int) -> Skim:  # noqa: ARG002
        """Return weighted simulation of the sidebands that has not learnt the weights."""
        return self.weighted_outside.splits("test")

    def _weighted(self, simulation: Skim) -> Skim:
        ratio: Float64s = np.exp(np.clip(self.weigher.scores(simulation.x), -20, 20).astype(np.float64))
        capped = np.minimum(ratio, _LARGEST * np.median(ratio))
        self.metrics["capped_weights"] = float((capped < ratio).mean())
        weight = simulation.weight * capped / capped.mean()
        return replace(simulation, weight=weight, event_weight=simulation.event_weight * capped / capped.mean())
