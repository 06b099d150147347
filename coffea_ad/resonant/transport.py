"""Transport: events of the sidebands, moved to masses of the signal region by the flow that describes them, as the template."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from coffea_ad.errors import SkimError
from coffea_ad.nn.density.flow import Flow
from coffea_ad.nn.scorable import Scorable, models_in
from coffea_ad.resonant.cathode import Sampled
from coffea_ad.resonant.classifiers import fit_classifier, labelled
from coffea_ad.resonant.masses import sample_masses
from coffea_ad.skims.skim import Skim

__all__ = ["Transport"]

_BLOCK = 16_384


class Transport(Sampled):
    """x′ = f⁻¹(f(x; m); m′) for rows x of the sidebands at m, to masses m′ of the signal region.

    f is the flow p(x | m) of the sidebands, at its best epoch. What it does not know of x it leaves as it is, so that a
    template keeps details which samples lack; a classifier then tells the data from it. It is of the class of CURTAINs and FETA, with
    one flow for both ways.

    References
    ----------
    "CURTAINs for your sliding window", arXiv:2203.09470; "CURTAINs flows for flows", arXiv:2305.04646.
    """

    name: ClassVar[str] = "transport"
    reference: ClassVar[str] = "arXiv:2203.09470, arXiv:2305.04646"
    sampled: ClassVar[bool] = False

    def fit(
        self, sidebands: Skim, signal_region: Skim, *, simulation: Skim | None = None, background: Skim | None = None,  # noqa: ARG002
        signal: Skim | None = None,  # noqa: ARG002
    ) -> Scorable:  # fmt: skip
        """Learn the density, move the sidebands' rows, and learn the classifier."""
        self.learn_density(sidebands, signal_region)
        self.sidebands = sidebands
        n = int(self.settings.oversampling * len(self.masses))
        rows = labelled(signal_region, self._moved(("train", "validation"), n, 1000 + self.seed), self.seed)
        return fit_classifier(
            self.settings.classifier, rows, self.inputs(rows), self.folder / "classifier", self.seed, "transport"
        )

    def template(self, n: int, seed: int) -> Skim:
        """Return moved test rows of the sidebands, at most n."""
        return self._moved(("test",), n, seed)

    def _moved(self, splits: tuple[str, ...], n: int, seed: int) -> Skim:
        rows = self.sidebands.splits(*splits)
        m = self.mass(rows)
        if not (m < self.window.low).any() or not (m >= self.window.high).any():
            raise SkimError(f"window {self.window.name}: a sideband has no {' or '.join(splits)} rows")
        rng = np.random.default_rng(seed + 1)
        # each row once: of a row that is there twice, one half of a classifier's rows would know the other half
        row = rng.permutation(len(m))[:n]
        masses = sample_masses(self.masses, self.window, len(row), seed)
        # the nearer a mass is to a sideband, the more of its rows come from there: both in order, but for some disorder
        spread = self.window.high - self.window.low
        row = row[np.argsort(m[row] + spread * rng.standard_normal(len(row)), kind="stable")]
        masses = masses[np.argsort(masses + spread * rng.standard_normal(len(row)), kind="stable")]
        flow = next(models_in(self.flow))
        assert isinstance(flow, Flow)
        x, to = np.asarray(rows.x[:], np.float32)[row], masses[:, None].astype(np.float32)
        parts = []
        with torch.no_grad():
            for start in range(0, len(row), _BLOCK):
                u = flow.latent(torch.from_numpy(x[start : start + _BLOCK])).numpy()
                parts.append(flow.inverse(u, to[start : start + _BLOCK]))
        return self.rows_at(self.like, np.concatenate(parts), masses, "template", seed)
