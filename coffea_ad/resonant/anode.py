"""ANODE: a ratio of two densities, one of the signal region and one interpolated from the sidebands."""

from __future__ import annotations

from typing import ClassVar

from coffea_ad.nn.scorable import Scorable
from coffea_ad.resonant.background import fit_density
from coffea_ad.resonant.cathode import Sampled
from coffea_ad.resonant.ratio import LogRatio

__all__ = ["ANODE"]


class ANODE(Sampled):
    """s(x, m) = log p_SR(x | m) − log p_SB(x | m).

    References
    ----------
    B. Nachman, D. Shih, "Anomaly detection with density estimation", arXiv:2001.04990.
    """

    name: ClassVar[str] = "anode"
    reference: ClassVar[str] = "arXiv:2001.04990"

    def learn(self) -> Scorable:
        """Learn both densities."""
        self.learn_density(self.sidebands)
        inner, loss = fit_density(
            self.settings.flow, self.signal_region, self.window.mass, self.folder / "signal_region", self.seed
        )
        self.metrics["signal_region_loss"] = loss
        return LogRatio([inner], [self.flow], "ANODE")
