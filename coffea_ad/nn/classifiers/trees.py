"""Trees: gradient-boosted decision trees that tell two classes apart, as a model like any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.nn.classifiers.trees_graph import scikit_learn_trees, trees_graph
from coffea_ad.nn.training.batches import balanced
from coffea_ad.scoring.specs import Density, Folds
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s, Ints

__all__ = ["Trees"]

_BLOCK = 65_536


class Trees:
    """A `HistGradientBoostingClassifier` of scikit-learn; the score is the log of the ratio of the classes' densities.

    s(x) = b + Σₜ wₜ(x) with the leaf wₜ of tree t that x falls into: with balanced classes s → ln p(x|1) / p(x|0).

    Parameters
    ----------
    classifier : HistGradientBoostingClassifier
        Fitted, to two classes and without categorical columns.
    method : str
        Name on the card.

    Raises
    ------
    ConfigError
        It is not fitted, or has other columns or classes.

    References
    ----------
    T. Finke et al., "Tree-based algorithms for weakly supervised anomaly detection", arXiv:2309.13111.

    Examples
    --------
    >>> from sklearn.ensemble import HistGradientBoostingClassifier
    >>> x = np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32)
    >>> trees = Trees(HistGradientBoostingClassifier(max_iter=5).fit(x, x[:, 0] > 0))
    >>> bool(trees.scores(np.float32([[2, 0]]))[0] > trees.scores(np.float32([[-2, 0]]))[0])
    True
    """

    folds: Folds | None = None
    density: Density | None = None

    def __init__(self, classifier: Any, method: str = "boosted trees") -> None:
        if not hasattr(classifier, "n_features_in_"):
            raise ConfigError("the trees are not fitted")
        if len(classifier.classes_) != 2 or getattr(classifier, "is_categorical_", None) is not None:
            raise ConfigError("the trees must tell two classes apart, by columns that are numbers")
        self.classifier, self.method = classifier, method
        self.shape: tuple[int, ...] = (int(classifier.n_features_in_),)

    @classmethod
    def of(cls, data: Skim, *, method: str = "boosted trees", seed: int = 1, **options: Any) -> Trees:
        """Fit trees to the "train" rows of a labelled skim; the weights of the two labels sum to the same.

        Parameters
        ----------
        data : Skim
            With labels 0 and 1, such as `skim.labelled(mask)`.
        method, seed : str, int
        options
            Of `HistGradientBoostingClassifier`.

        Raises
        ------
        SkimError
            The rows have no labels, or not two of them.
        """
        from sklearn.ensemble import HistGradientBoostingClassifier

        rows = np.flatnonzero((data.split == "train") & (data.weight > 0))
        if data.label is None or len(np.unique(data.label[rows])) != 2:
            raise SkimError("trees need training rows with two labels: skim.labelled(mask) gives them")
        weight = balanced(data.weight[rows], data.label[rows]) * (len(rows) / 2)
        trees = HistGradientBoostingClassifier(random_state=seed, **options)
        return cls(trees.fit(np.asarray(data.x[rows]), data.label[rows], sample_weight=weight), method)

    def scores(self, x: Float32s, folds: Ints | None = None) -> Float32s:  # noqa: ARG002
        """Score rows, (n, columns) → (n,); NaN where a column is not finite."""
        out = np.full(len(x), np.nan, np.float32)
        for start in range(0, len(x), _BLOCK):
            rows = np.asarray(x[start : start + _BLOCK])
            finite = np.isfinite(rows).all(axis=1)
            if finite.any():
                out[start : start + _BLOCK][finite] = self.classifier.decision_function(rows[finite])
        return out

    def graph(self, outputs: Sequence[str]) -> bytes:
        """Return an ONNX graph of the score: a TreeEnsembleRegressor."""
        return trees_graph([scikit_learn_trees(self.classifier)], self.shape[0], outputs[0])
