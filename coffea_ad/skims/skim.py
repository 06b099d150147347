"""Skim: rows for training and calibration, with weights, and a split that follows the events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import SkimError
from coffea_ad.features.spec import FeatureSpec, column_names
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.skims.rows import Rows
from coffea_ad.splits import SPLIT, fold_of
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
    features : tuple of FeatureSpec
        Of several, the columns stand side by side in `x`.
    provenance : dict
        Files with hashes, counts, weights.
    event_weight : (n,) float64
        genWeight · xsec / sumw with its sign, pb, or 1 in data, whatever `weights` is: what calibration, regions, quantiles
        and evaluation count with. Rows that come from no skim may do without; then it is `weight`.
    label : (n,) int64, optional
        What a classifier learns to tell apart, such as 1 in a signal window and 0 in a template; training samples rows of all
        labels equally often.
    names : tuple of str
        Of the columns of x, where it has what a network makes of the features in place of them.
    """

    x: Float32s
    weight: Float64s
    dataset: npt.NDArray[np.str_]
    split: npt.NDArray[np.str_]
    spectators: dict[str, npt.NDArray[Any]]
    features: tuple[FeatureSpec, ...]
    provenance: dict[str, Any]
    event_weight: Float64s = None  # type: ignore[assignment]
    label: Ints | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Take `weight` where no event weights are given, and one feature for a tuple of it."""
        stated: Any = self.features
        if isinstance(stated, FeatureSpec):
            object.__setattr__(self, "features", (stated,))
        if vars(self)["event_weight"] is None:
            object.__setattr__(self, "event_weight", self.weight)

    @property
    def feature(self) -> FeatureSpec:
        """The only feature.

        Raises
        ------
        SkimError
            There are several.
        """
        if len(self.features) != 1:
            raise SkimError(f"the rows have several features: {', '.join(f.key for f in self.features)}")
        return self.features[0]

    @property
    def columns(self) -> list[str]:
        """Names of the columns of flat rows; of several features those that are not unique begin with the feature's name."""
        return list(self.names) or column_names(self.features)

    def select(self, mask: Bools | Ints) -> Skim:
        """Return some rows, by a mask or by their places; of `Rows` none is read."""
        x: Any = self.x
        x = x.select(mask) if isinstance(x, Rows) else x[mask]
        return replace(
            self, x=x, weight=self.weight[mask], dataset=self.dataset[mask], split=self.split[mask],
            spectators={k: v[mask] for k, v in self.spectators.items()}, event_weight=self.event_weight[mask],
            label=None if self.label is None else self.label[mask],
        )  # fmt: skip

    def splits(self, *names: str) -> Skim:
        """Return the rows of some splits."""
        return self.select(np.isin(self.split, names))

    def labelled(self, mask: Bools) -> Skim:
        """Return the rows with the label 1 where the mask is true, (n,), and 0 elsewhere."""
        if mask.shape != self.weight.shape:
            raise SkimError(f"a label needs a value for each of {len(self.weight)} rows, not the shape {mask.shape}")
        return replace(self, label=mask.astype(np.int64))

    def joined(self, other: Skim) -> Skim:
        """Return the rows of both, this one's first, such as data and a template of its background.

        Provenance is that of this one, and the names of the others' files and datasets are added to it.

        Raises
        ------
        SkimError
            They have other features, one has labels and the other none, or columns beside the features differ.
        """
        if self.features != other.features:
            ours, theirs = (" and ".join(f.key for f in skim.features) for skim in (self, other))
            raise SkimError(f"rows of {ours} and of {theirs} cannot be joined")
        if (self.label is None) != (other.label is None):
            raise SkimError("of rows that are joined, all or none must have labels")
        if set(self.spectators) != set(other.spectators):
            differing = ", ".join(sorted(set(self.spectators) ^ set(other.spectators)))
            raise SkimError(f"of rows that are joined, only some have the columns {differing}")
        both = ("files", "rows", "sumw", "xsec", "simulated")
        merged = {
            k: {**self.provenance.get(k, {}), **other.provenance.get(k, {})} for k in both if k in self.provenance
        }
        return Skim(
            x=np.concatenate([np.asarray(self.x[:]), np.asarray(other.x[:])]),
            weight=np.concatenate([self.weight, other.weight]),
            dataset=np.concatenate([self.dataset, other.dataset]),
            split=np.concatenate([self.split, other.split]),
            spectators={k: np.concatenate([v, other.spectators[k]]) for k, v in self.spectators.items()},
            features=self.features,
            provenance={**self.provenance, **merged},
            event_weight=np.concatenate([self.event_weight, other.event_weight]),
            label=None if self.label is None or other.label is None else np.concatenate([self.label, other.label]),
            names=self.names,
        )

    def replaced(
        self,
        x: Float32s,
        *,
        dataset: str,
        weight: Float64s | None = None,
        spectators: Mapping[str, npt.NDArray[Any]] | None = None,
        seed: int = 1,
    ) -> Skim:
        """Return generated rows in place of these, such as samples of a density: of the same feature, and split at random.

        Parameters
        ----------
        x : (m, *shape) float32
        dataset : str
            What they are called.
        weight : (m,) float64, optional
            1 by default.
        spectators : {name: (m,)}, optional
            Other columns, such as the mass that they were generated for. Ids of events are numbered through.
        seed : int
            Of the split: as many train, validate and test as of events.

        Raises
        ------
        SkimError
            The rows have another shape, or are not finite.
        """
        rows = np.asarray(x, np.float32)
        if rows.shape[1:] != tuple(self.x.shape[1:]) or not np.isfinite(rows).all():
            raise SkimError(
                f"generated rows must be finite and of the shape {tuple(self.x.shape[1:])}, not {rows.shape[1:]}"
            )
        n = len(rows)
        ones = np.ones(n) if weight is None else np.asarray(weight, np.float64)
        ids: dict[str, npt.NDArray[Any]] = {
            "run": np.zeros(n, np.uint32),
            "luminosityBlock": np.zeros(n, np.uint32),
            "event": np.arange(n, dtype=np.uint64),
        }
        split = np.random.default_rng(seed).choice(list(SPLIT), n, p=list(SPLIT.values()))
        return Skim(
            x=rows, weight=ones, dataset=np.full(n, dataset), split=split, spectators={**ids, **(spectators or {})},
            features=self.features, provenance={**self.provenance, "files": {}, "rows": {dataset: n}, "generated": True}, names=self.names,
        )  # fmt: skip

    def for_fold(self, f: int, k: int, salt: str) -> Skim:
        """Return the rows with the splits of a fold of k: fold f is "test", f + 1 (or 0) "validation", the others "train".

        Raises
        ------
        SkimError
            k is less than 3, which leaves nothing to train on, or the rows have no ids of events.
        """
        if k < 3:
            raise SkimError(f"folds is {k}, but must be at least 3: one tests, one validates, and the others train")
        missing = [name for name in EVENT_ID if name not in self.spectators]
        if missing:
            raise SkimError(f"rows without {', '.join(missing)} cannot be divided by events")
        fold = fold_of(salt, k, *(self.spectators[name] for name in EVENT_ID))
        split = np.select([fold == f, fold == (f + 1) % k], ["test", "validation"], "train")
        return replace(self, split=split)
