"""BaggedTrees: boosted trees on random halves of the rows, as one classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from coffea_ad.errors import ConfigError, SkimError, unknown_text
from coffea_ad.nn.classifiers.boosting import LIBRARIES, Boosted, Half, Library
from coffea_ad.nn.classifiers.trees_graph import trees_graph
from coffea_ad.nn.ensemble import log_odds_of_mean
from coffea_ad.nn.training.batches import balanced
from coffea_ad.scoring.specs import Density, Folds
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s, Ints

__all__ = ["BaggedTrees"]

_BLOCK = 65_536
_LEAST = 20  # rows of each label in each half


class BaggedTrees:
    """Members of boosted trees; the score is the log of the ratio of the two labels' densities.

    With the log-odds mₖ of M members, the mean probability is p = Σ σ(mₖ)/M, and

        s(x) = ln p − ln (1 − p) → ln p(x|1) / p(x|0),

    since the weights of the two labels sum to the same in what a member trains on. Trees are constant between thresholds, and few
    where there is little to learn: many rows share a score then, and what is ranked by it has ties.

    Parameters
    ----------
    members : sequence of Boosted
        `BaggedTrees.of` trains them.
    columns : int
        Of a row of x; those that no member looks at are ignored.
    method : str
        Name on the card.

    Raises
    ------
    ConfigError
        There is no member, or one looks at a column that a row has not.

    References
    ----------
    T. Finke et al., "Tree-based algorithms for weakly supervised anomaly detection", arXiv:2309.13111.

    Examples
    --------
    >>> from coffea_ad.features.spec import feature_spec
    >>> rng = np.random.default_rng(1)
    >>> x = rng.normal(size=(400, 8)).astype(np.float32)
    >>> spec = feature_spec("jet_substructure")
    >>> rows = Skim(x, np.ones(400), np.full(400, "toy"), np.full(400, "train"), {}, (spec,), {})
    >>> trees = BaggedTrees.of(rows.labelled(x[:, 2] > 0), inputs=[rows.columns[2]], members=2, num_iterations=5)
    >>> bool(trees.scores(x[x[:, 2] > 0.5]).min() > 0 > trees.scores(x[x[:, 2] < -0.5]).max())
    True
    """

    folds: Folds | None = None
    density: Density | None = None
    held_out = "test"  # both other splits are trained on

    def __init__(self, members: Sequence[Boosted], columns: int, method: str = "bagged trees") -> None:
        if not members:
            raise ConfigError("bagged trees need one member or more")
        last = max(int(member.columns.max()) for member in members)
        if last >= columns:
            raise ConfigError(f"a member looks at column {last}, but rows have {columns}")
        self.trees, self.method = list(members), method
        self.shape: tuple[int, ...] = (columns,)

    @classmethod
    def of(
        cls,
        data: Skim,
        *,
        inputs: Sequence[str] | None = None,
        members: int = 10,
        library: Library = "lightgbm",
        attributes: float = 1.0,
        seed: int = 1,
        method: str = "bagged trees",
        **options: Any,
    ) -> BaggedTrees:
        """Train on the "train" and "validation" rows of a labelled skim, never on "test".

        Every member trains on a random half of them, and stops by the other half, on which it never trains. As all these rows are
        seen by some member, what calibrates has to be others: "test" rows, or a cross-training, where the fold that a
        model scores is its "test".

        Parameters
        ----------
        data : Skim
            With labels 0 and 1, such as `skim.labelled(mask)`; rows count with `weight`, those without a positive one are left out.
        inputs : sequence of str, optional
            The columns that are looked at; all by default. Others, such as a mass, stay in x and are ignored.
        members : int
        library : "lightgbm" or "sklearn"
        attributes : float
            The share of the inputs that each member sees, drawn at random; below 1 where there are many.
        seed : int
            The same one gives the same trees on any number of threads.
        method : str
            Name on the card.
        options
            Of the library, such as learning_rate.

        Returns
        -------
        BaggedTrees

        Raises
        ------
        ConfigError
            A wrong number, a column that is not there, or an option that cannot be set.
        SkimError
            The rows have no labels, not two of them, or too few of one.
        """
        if library not in LIBRARIES:
            raise ConfigError(f"library is {library!r}, but must be {' or '.join(get_args(Library))}")
        if members < 1 or not 0 < attributes <= 1:
            raise ConfigError(
                f"members is {members} and attributes {attributes:g}; at least 1, and above 0 up to 1, are needed"
            )
        columns = _places(data, inputs)
        rows = _rows(data)
        label = np.asarray(data.label)[rows]
        trees: list[Boosted] = []
        for k in range(members):
            rng = np.random.default_rng([seed, k])
            some = columns
            if attributes < 1:
                some = np.sort(rng.choice(columns, max(1, round(attributes * len(columns))), replace=False))
            first = halves(label, rng)
            train, stop = (_half(data, rows[half], some) for half in (first, ~first))
            trees.append(LIBRARIES[library](train, stop, some, int(rng.integers(2**31 - 1)), options))
        return cls(trees, int(data.x.shape[1]), method)

    def scores(self, x: Float32s, folds: Ints | None = None) -> Float32s:  # noqa: ARG002
        """Score rows, (n, columns) → (n,); NaN where any column is not finite."""
        out = np.full(len(x), np.nan, np.float32)
        for start in range(0, len(x), _BLOCK):
            rows = np.asarray(x[start : start + _BLOCK], np.float32)
            finite = np.isfinite(rows).all(axis=1)
            if finite.any():
                each = np.stack([member.log_odds(rows[finite]) for member in self.trees])
                out[start : start + _BLOCK][finite] = log_odds_of_mean(each)
        return out

    def graph(self, outputs: Sequence[str]) -> bytes:
        """Return an ONNX graph of the score: one TreeEnsembleRegressor with a target for each member."""
        return trees_graph([member.sums() for member in self.trees], self.shape[0], outputs[0])


def halves(label: Ints, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Say at random which rows are in the first half; of either label half of the rows are."""
    first = np.zeros(len(label), bool)
    for value in np.unique(label):
        places = rng.permutation(np.flatnonzero(label == value))
        first[places[: len(places) // 2]] = True
    return first


def _places(data: Skim, inputs: Sequence[str] | None) -> Ints:
    if len(data.x.shape) != 2:
        raise SkimError(f"trees take flat rows, not rows of the shape {tuple(data.x.shape[1:])}")
    if inputs is None:
        return np.arange(data.x.shape[1])
    names = data.columns
    for name in inputs:
        if name not in names:
            raise ConfigError(f"inputs: {unknown_text('column', name, names)}")
    if not inputs or len(set(inputs)) != len(inputs):
        raise ConfigError("inputs must name one column or more, and none twice")
    return np.array(sorted(names.index(name) for name in inputs), np.int64)


def _rows(data: Skim) -> Ints:
    """Return the places of the rows to train on, or say why there are none."""
    rows = np.flatnonzero(np.isin(data.split, ("train", "validation")) & (data.weight > 0))
    labels = [] if data.label is None else np.unique(data.label[rows]).tolist()
    if labels != [0, 1]:
        raise SkimError("trees need training rows with the labels 0 and 1: skim.labelled(mask) gives them")
    least = int(np.bincount(np.asarray(data.label)[rows]).min())
    if least < 2 * _LEAST:
        raise SkimError(f"of one label there are {least} rows to train on; at least {2 * _LEAST} are needed")
    return rows


def _half(data: Skim, rows: Ints, columns: Ints) -> Half:
    """Return some rows of some columns; the weights of the two labels sum to the same, and are 1 in the mean."""
    label = np.asarray(data.label)[rows]
    weight = balanced(data.weight[rows], label) * (len(rows) / 2)
    return Half(np.ascontiguousarray(np.asarray(data.x[rows], np.float32)[:, columns]), label, weight)
