"""Transport: events of the sidebands, moved to masses of the signal region by the flow that describes them, as the template."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from coffea_ad.errors import SkimError
from coffea_ad.nn.density.flow import Flow
from coffea_ad.nn.scorable import models_in
from coffea_ad.resonant.cathode import CATHODE
from coffea_ad.resonant.masses import sample_masses
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float64s

__all__ = ["Transport"]

_BLOCK = 16_384


class Transport(CATHODE):
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
    title = "transport"

    def rows(self, n: int | None, seed: int, splits: tuple[str, ...]) -> Skim:
        """Return moved rows of the sidebands, each once.

        Of a row that is there twice, at two masses, one half of a classifier's rows would know the other half.
        """
        rows = self.some(self.sidebands, n, seed, splits)
        m = self.mass(rows)
        if not (m < self.window.low).any() or not (m >= self.window.high).any():
            raise SkimError(f"window {self.window.name}: a sideband has no {' or '.join(splits)} rows")
        masses = sample_masses(self.masses, self.window, len(m), seed)
        # the nearer a mass is to a sideband, the more of its rows come from there: both in order, but for some disorder
        rng, spread = np.random.default_rng(seed + 1), self.window.high - self.window.low
        place = np.argsort(m + spread * rng.standard_normal(len(m)), kind="stable")
        to = np.empty_like(masses)
        to[place] = masses[np.argsort(masses + spread * rng.standard_normal(len(m)), kind="stable")]
        return self.moved(rows, to)

    def sideband_template(self, seed: int) -> Skim:  # noqa: ARG002
        """Return the "test" rows of the sidebands, the lowest mass moved to the highest and so on: further than into the window."""
        rows = self.sidebands.splits("test")
        m = self.mass(rows)
        to = np.empty_like(m)
        to[np.argsort(m, kind="stable")] = np.sort(m)[::-1]
        return self.moved(rows, to)

    def moved(self, rows: Skim, to: Float64s) -> Skim:
        """Return rows moved to other masses, (n,)."""
        flow = next(models_in(self.flow))
        assert isinstance(flow, Flow)
        x, parts = np.asarray(rows.x[:], np.float32), []
        with torch.no_grad():
            for start in range(0, len(x), _BLOCK):
                block = slice(start, start + _BLOCK)
                u = flow.latent(torch.from_numpy(x[block])).numpy()
                parts.append(flow.inverse(u, to[block, None].astype(np.float32)))
        return self.at(rows, to, np.concatenate(parts))
