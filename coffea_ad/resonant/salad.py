"""SALAD: simulation, reweighted to the sidebands and interpolated into the signal region, as the template."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from coffea_ad.nn.scorable import Scorable
from coffea_ad.resonant.classifiers import fit_classifier, labelled
from coffea_ad.resonant.method import Method, Need
from coffea_ad.resonant.settings import ClassifierConfig
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float64s

__all__ = ["SALAD"]

_LARGEST = 20.0  # of a weight: a ratio beyond is one that the network cannot know


class SALAD(Method):
    """Weights w(x, m) = f / (1 − f) of a network that tells data from simulation in the sidebands, m among its inputs.

    They make simulation of the signal region the template, from which a classifier tells the data.

    References
    ----------
    A. Andreassen, B. Nachman, D. Shih, "Simulation assisted likelihood-free anomaly detection", arXiv:2001.05001.
    """

    name: ClassVar[str] = "salad"
    needs: ClassVar[tuple[Need, ...]] = ("sidebands", "simulation")
    reference: ClassVar[str] = "arXiv:2001.05001"
    sampled: ClassVar[bool] = False

    def fit(
        self, sidebands: Skim, signal_region: Skim, *, simulation: Skim | None = None, background: Skim | None = None,  # noqa: ARG002
        signal: Skim | None = None,  # noqa: ARG002
    ) -> Scorable:  # fmt: skip
        """Learn the weights in the sidebands, and the classifier in the signal region."""
        self.require(simulation=simulation)
        assert simulation is not None
        m = self.mass(simulation)
        outside, inside = (
            simulation.select(mask) for mask in (self.window.in_sidebands(m), self.window.in_signal_region(m))
        )
        self.require(simulation=outside)
        self.require(simulation=inside)
        rows = labelled(sidebands, outside, self.seed)
        with_mass = tuple(dict.fromkeys((*self.inputs(rows), self.window.mass)))
        network = ClassifierConfig(kind="mlp", epochs=self.settings.classifier.epochs, keep=5)
        self.weigher = fit_classifier(network, rows, with_mass, self.folder / "weights", self.seed, "weights")
        self.simulation = self._weighted(inside)
        rows = labelled(signal_region, self.simulation, self.seed)
        return fit_classifier(
            self.settings.classifier, rows, self.inputs(rows), self.folder / "classifier", self.seed, "SALAD"
        )

    def template(self, n: int, seed: int) -> Skim:
        """Return test rows of the weighted simulation, at most n."""
        rows = self.simulation.splits("test")
        take = np.random.default_rng(seed).permutation(len(rows.weight))[:n]
        return rows.select(np.sort(take))

    def _weighted(self, simulation: Skim) -> Skim:
        ratio: Float64s = np.exp(np.clip(self.weigher.scores(simulation.x), -20, 20).astype(np.float64))
        capped = np.minimum(ratio, _LARGEST * np.median(ratio))
        self.metrics["capped_weights"] = float((capped < ratio).mean())
        weight = simulation.weight * capped / capped.mean()
        return replace(simulation, weight=weight, event_weight=simulation.event_weight * capped / capped.mean())
