"""One member of a bag: boosted trees of LightGBM or scikit-learn, stopped early by rows that they are not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from coffea_ad.errors import ConfigError
from coffea_ad.nn.classifiers.trees_graph import Sums, lightgbm_trees, scikit_learn_trees
from coffea_ad.typing import Float32s, Float64s, Ints

__all__ = ["LIBRARIES", "Boosted", "Half", "Library", "LightGBM", "ScikitLearn"]

Library = Literal["lightgbm", "sklearn"]


class Half(NamedTuple):
    """Rows of some columns, (n, columns), with labels 0 and 1 and weights, (n,)."""

    x: Float32s
    label: Ints
    weight: Float64s


class Boosted(Protocol):
    """Boosted trees that look at some columns of x."""

    columns: Ints

    def log_odds(self, x: Float32s) -> Float64s:
        """Return the log-odds of finite rows with all columns, (n, columns of x) → (n,)."""

    def sums(self) -> Sums:
        """Return the trees as plain arrays, whose features are columns of x."""


class LightGBM:
    """Boosted trees of LightGBM, up to the iteration that is best on the rows that stop it, and ten more."""

    options: Mapping[str, Any] = {
        "num_iterations": 200, "early_stopping_round": 10, "learning_rate": 0.1, "num_leaves": 31, "max_bin": 127,
    }  # fmt: skip
    reserved: Mapping[str, Any] = {
        "objective": "binary", "metric": "binary_logloss", "num_threads": 1, "deterministic": True, "force_row_wise": True,
        "verbosity": -1,
    }  # fmt: skip

    def __init__(self, train: Half, stop: Half, columns: Ints, seed: int, options: Mapping[str, Any]) -> None:
        lightgbm = _lightgbm()
        settings = {**_settings("LightGBM", self.options, self.reserved, options), "seed": seed}
        rows = lightgbm.Dataset(train.x, train.label, weight=train.weight, params=settings)
        stopping = lightgbm.Dataset(stop.x, stop.label, weight=stop.weight, reference=rows, params=settings)
        booster = lightgbm.train(settings, rows, valid_sets=[stopping], keep_training_booster=True)
        self.columns = columns
        # The least loss often comes before a small signal is learnt: the trees that were grown in vain are part of it.
        self._text: str = booster.model_to_string(num_iteration=-1)
        self._booster: Any = None

    @property
    def booster(self) -> Any:
        """All trees that were grown."""
        if self._booster is None:
            self._booster = _lightgbm().Booster(model_str=self._text)
        return self._booster

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the text of the trees."""
        return {**vars(self), "_booster": None}

    def log_odds(self, x: Float32s) -> Float64s:
        """Return the log-odds of finite rows with all columns, (n, columns of x) → (n,)."""
        rows = np.ascontiguousarray(x[:, self.columns])
        return np.asarray(self.booster.predict(rows, raw_score=True, num_threads=1), np.float64)

    def sums(self) -> Sums:
        """Return the trees as plain arrays."""
        return Sums(lightgbm_trees(self.booster.dump_model(), self.columns.tolist()))


class ScikitLearn:
    """A `HistGradientBoostingClassifier`, up to the iteration that is best on the rows that stop it, and ten more."""

    options: Mapping[str, Any] = {
        "max_iter": 200, "n_iter_no_change": 10, "learning_rate": 0.1, "max_leaf_nodes": 31, "max_bins": 127,
    }  # fmt: skip
    reserved: Mapping[str, Any] = {"early_stopping": True, "scoring": "loss"}

    def __init__(self, train: Half, stop: Half, columns: Ints, seed: int, options: Mapping[str, Any]) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from threadpoolctl import threadpool_limits

        settings = _settings("scikit-learn", self.options, self.reserved, options)
        trees = HistGradientBoostingClassifier(random_state=seed, **settings)
        validation = {"X_val": stop.x, "y_val": stop.label, "sample_weight_val": stop.weight}
        with threadpool_limits(1):
            trees.fit(train.x, train.label, train.weight, **validation)
        self.classifier, self.columns = trees, columns

    def log_odds(self, x: Float32s) -> Float64s:
        """Return the log-odds of finite rows with all columns, (n, columns of x) → (n,)."""
        return np.asarray(self.classifier.decision_function(np.ascontiguousarray(x[:, self.columns])), np.float64)

    def sums(self) -> Sums:
        """Return the trees as plain arrays."""
        return scikit_learn_trees(self.classifier, self.columns.tolist())


LIBRARIES: dict[Library, type[LightGBM | ScikitLearn]] = {"lightgbm": LightGBM, "sklearn": ScikitLearn}


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise ConfigError(
            'library is "lightgbm", which is not installed: pip install lightgbm, or use library="sklearn"'
        ) from None
    return lightgbm


def _settings(
    name: str, defaults: Mapping[str, Any], reserved: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all settings of a library; what makes the trees exportable and the same again is not to be changed."""
    taken = sorted({*reserved, "seed", "random_state"} & set(options))
    if taken:
        raise ConfigError(f"{', '.join(taken)} of {name} cannot be set here; use seed, and leave the others out")
    return {**defaults, **options, **reserved}
