"""Skim: rows for training and calibration, with weights, and a split that follows the events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from coffea_ad.features.spec import FeatureSpec
from coffea_ad.skims.rows import Rows
from coffea_ad.typing import Bools, Float32s, Float64s, Ints

__all__ = ["Skim", "WeightMode"]


WeightMode = Literal["xsec", "flat_pt", "none"]


@dataclass(frozen=True)
class Skim:
    """Rows of a skim.

    Attributes
    ----------
    x : (n, *shape) float32
        Model inputs; all finite. Features that the skim stores sparse are dense here, 4 bytes a number, unless `load_skim`
        was asked otherwise: then this is `rows.Rows`, which gives float32 arrays for a slice, places or a mask.
    weight : (n,) float64
        What a training draws by, after `weights`; the mean of |w| is 1. Rows with a negative weight are not drawn.
    dataset : (n,) str
    split : (n,) str
        "train", "validation" or "test", by event.
    spectators : {name: (n,)}
        The other columns of the skim, keys included.
    feature : FeatureSpec
    provenance : dict
        Files with hashes, counts, weights.
    event_weight : (n,) float64
        genWeight · xsec / sumw with its sign, pb, or 1 in data, whatever `weights` is: what calibration, regions, quantiles
        and evaluation count with. Rows that come from no skim may do without; then it is `weight`.
    """

    x: Float32s
    weight: Float64s
    dataset: npt.NDArray[np.str_]
    split: npt.NDArray[np.str_]
    spectators: dict[str, npt.NDArray[Any]]
    feature: FeatureSpec
    provenance: dict[str, Any]
    event_weight: Float64s = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Take `weight` where no event weights are given."""
        if vars(self)["event_weight"] is None:
            object.__setattr__(self, "event_weight", self.weight)

    def select(self, mask: Bools | Ints) -> Skim:
        """Return some rows, by a mask or by their places; of `Rows` none is read."""
        x: Any = self.x
        x = x.select(mask) if isinstance(x, Rows) else x[mask]
        return replace(
            self, x=x, weight=self.weight[mask], dataset=self.dataset[mask], split=self.split[mask],
            spectators={k: v[mask] for k, v in self.spectators.items()}, event_weight=self.event_weight[mask],
        )  # fmt: skip

    def splits(self, *names: str) -> Skim:
        """Return the rows of some splits."""
        return self.select(np.isin(self.split, names))
