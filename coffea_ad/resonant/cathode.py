"""CATHODE: data of the signal region against samples of a density that is interpolated from the sidebands."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from coffea_ad.nn.density.sampling import sample_equally
from coffea_ad.resonant.background import fit_density
from coffea_ad.resonant.classifiers import Classified
from coffea_ad.resonant.masses import sample_masses
from coffea_ad.resonant.method import Method
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float64s

__all__ = ["CATHODE", "Sampled"]


class Sampled(Method):
    """A method with a flow of the sidebands, whose samples at masses of the signal region are the template."""

    def learn_density(self, sidebands: Skim) -> None:
        """Train p(x | m) on the sidebands."""
        self.flow, loss = fit_density(
            self.settings.flow, sidebands, self.window.mass, self.folder / "background", self.seed
        )
        self.metrics["background_loss"] = loss

    def rows(self, n: int | None, seed: int, splits: tuple[str, ...]) -> Skim:  # noqa: ARG002
        """Return samples, from each of the best epochs equally many."""
        number = int(self.settings.oversampling * len(self.masses)) if n is None else n
        return self.sampled(sample_masses(self.masses, self.window, number, seed), seed)

    def sideband_template(self, seed: int) -> Skim:
        """Return samples at the masses of the sidebands' "test" rows, several at each."""
        masses = self.mass(self.sidebands.splits("test"))
        return self.sampled(np.repeat(masses, int(np.ceil(self.settings.oversampling))), seed)

    def sampled(self, masses: Float64s, seed: int) -> Skim:
        """Return a sample of p(x | m) at each mass."""
        return self.generated(sample_equally(self.flow, masses[:, None].astype("float32"), seed), masses, seed)


class CATHODE(Sampled, Classified):
    """A classifier tells data from samples of p(x | m) at the masses of the signal region.

    References
    ----------
    A. Hallin et al., "Classifying anomalies through outer density estimation (CATHODE)", arXiv:2109.00546.
    """

    name: ClassVar[str] = "cathode"
    reference: ClassVar[str] = "arXiv:2109.00546"
    title = "CATHODE"

    def prepare(self) -> None:
        """Learn the density."""
        self.learn_density(self.sidebands)
