"""What no data analysis can have: pure background in the signal region (IAD), and pure signal (supervised)."""

from __future__ import annotations

from typing import ClassVar

from coffea_ad.resonant.classifiers import Classified
from coffea_ad.resonant.method import Need
from coffea_ad.skims.skim import Skim

__all__ = ["IAD", "Supervised"]


class IAD(Classified):
    """Idealised anomaly detector: a classifier tells data of the signal region from true background; a ceiling of weak methods.

    References
    ----------
    A. Hallin et al., "Classifying anomalies through outer density estimation (CATHODE)", arXiv:2109.00546.
    """

    name: ClassVar[str] = "iad"
    needs: ClassVar[tuple[Need, ...]] = ("background",)
    reference: ClassVar[str] = "arXiv:2109.00546"
    title = "IAD"

    def prepare(self) -> None:
        """Keep true background of the signal region only."""
        self.background = self.inside(self.required("background"))
        self.required("background")

    def rows(self, n: int | None, seed: int, splits: tuple[str, ...]) -> Skim:
        """Return rows of the background."""
        return self.some(self.required("background"), n, seed, splits)


class Supervised(IAD):
    """A classifier tells true signal from true background: the ceiling of everything with these inputs."""

    name: ClassVar[str] = "supervised"
    needs: ClassVar[tuple[Need, ...]] = ("background", "signal")
    title = "supervised"

    def ones(self) -> Skim:
        """Return signal in the window."""
        self.signal = self.inside(self.required("signal"))
        return self.required("signal")
