"""What stands in a card: inputs, contributions, calibrations, regions, quantiles, folds, golden rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field, model_validator

from coffea_ad.config import Frozen
from coffea_ad.features.spec import FeatureSpec, column_names
from coffea_ad.files.names import is_name
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.scoring.expectation import Expectation
from coffea_ad.splits import fold_of
from coffea_ad.typing import Float32s, Ints

__all__ = ["Calibration", "Contributions", "Folds", "Golden", "InputSpec", "Quantiles", "RegionSpec"]


Density = Literal["x", "z"]
"""Of what a score is −log p: of the inputs x, or of the transformed ones z."""
Finite = Annotated[float, Field(allow_inf_nan=False)]


class InputSpec(Frozen):
    """One input of the graph: float32 (rows, columns), the columns of its features side by side, or one shaped feature."""

    name: str = "features"
    features: tuple[FeatureSpec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_shape(self) -> InputSpec:
        if len(self.features) > 1 and any(len(f.row_shape) != 1 for f in self.features):
            raise ValueError("a feature whose rows are not flat must be an input of its own")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        return self.features[0].row_shape if len(self.features) == 1 else (len(self.columns),)

    @property
    def columns(self) -> tuple[str, ...]:
        """`feature.column`, in order."""
        return tuple(f"{key}.{c.name}" for f in self.features for key in (f.key,) for c in f.columns)

    @property
    def entries(self) -> tuple[str, ...]:
        """Names of all numbers of a row, in order: its columns, those of every slot of a set, or the pixels of an image."""
        columns, shape = column_names(self.features), self.shape
        if shape == (len(columns),):
            return tuple(columns)
        if len(shape) == 2 and shape[1] == len(columns):
            return tuple(f"{name}[{slot}]" for slot in range(shape[0]) for name in columns)
        places = (",".join(map(str, place)) for place in np.ndindex(shape))
        return tuple(f"{columns[0] if len(columns) == 1 else self.features[0].name}[{place}]" for place in places)


class Contributions(Frozen):
    """Another output of the graph, (rows, parts): what each part of a row adds to its score.

    The parts are the numbers of a row in their order, or those that are named, and behind them terms that are of no number of the
    row. They add up to the score s, or to exp(s) where s is a logarithm of a sum. With folds the outputs are `{output}_0` …, as those of
    scores.
    """

    output: str = "contributions"
    parts: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    of: Literal["score", "exp(score)"] = "score"

    def size(self, shape: tuple[int, ...]) -> int:
        """Return how many parts a row of some shape has.

        >>> Contributions(terms=("KL[0]", "KL[1]")).size((4, 3))
        14
        """
        return (len(self.parts) or math.prod(shape)) + len(self.terms)

    @model_validator(mode="after")
    def _different(self) -> Contributions:
        if len({*self.parts, *self.terms}) != len(self.parts) + len(self.terms):
            raise ValueError("two parts of the contributions have the same name")
        return self


class Calibration(Frozen):
    """Score → background efficiency: (score, −log10 of the efficiency of "at least this score"), both rising."""

    score: tuple[Finite, ...] = Field(min_length=2)
    logp: tuple[Finite, ...] = Field(min_length=2)
    n_effective: Finite
    derived_from: str

    @property
    def max_logp(self) -> float:
        """−log10(1/(N_eff + 1)): no score can be called rarer than this."""
        return math.log10(self.n_effective + 1)

    @model_validator(mode="after")
    def _rising(self) -> Calibration:
        if len(self.score) != len(self.logp):
            raise ValueError("score and logp differ in length")
        for name, values in (("score", self.score), ("logp", self.logp)):
            if any(b < a for a, b in itertools.pairwise(values)):
                raise ValueError(f"{name} must not decrease")
        return self


def _is_name(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"{text!r} cannot be a name, since files are named by it: letters, digits and . _ + - only")
    return text


Name = Annotated[str, AfterValidator(_is_name)]
"""What columns, histograms and files are named by."""


class RegionSpec(Frozen):
    """Objects with `ad_logp` of at least the threshold; with a spectator, one threshold per bin of it.

    A spectator is a number of the jet or of the event that the network does not see, such as `pt` or `mjj`. An expectation says
    which part of a template of the background passes, where there is one.
    """

    name: Name
    efficiency: Finite
    thresholds: tuple[Finite, ...] = Field(min_length=1)
    error: Finite
    n_effective: Finite
    derived_from: str
    spectator: str | None = None
    edges: tuple[Finite, ...] = ()
    expectation: Expectation | None = None

    @model_validator(mode="before")
    @classmethod
    def _former_name(cls, data: Any) -> Any:
        """Read cards that call the spectator a bystander."""
        if not isinstance(data, dict) or "bystander" not in data:
            return data
        if "spectator" in data:
            raise ValueError("spectator and bystander, its former name, are given at once")
        return {("spectator" if key == "bystander" else key): value for key, value in data.items()}

    @model_validator(mode="after")
    def _one_threshold_per_bin(self) -> RegionSpec:
        if len(self.thresholds) != len(self.edges) + 1:
            raise ValueError("there must be one threshold more than inner edges")
        if self.edges and self.spectator is None:
            raise ValueError("edges need a spectator")
        if any(b <= a for a, b in itertools.pairwise(self.edges)):
            raise ValueError(f"the edges in {self.spectator} must rise")
        return self


class Quantiles(Frozen):
    """Weighted quantiles of every input column on the reference background, to notice drift.

    The quantile of p is the smallest value x with P(column ≤ x) ≥ p.
    """

    probability: tuple[Finite, ...]
    values: dict[str, tuple[Finite, ...]]

    @model_validator(mode="after")
    def _rising(self) -> Quantiles:
        p = self.probability
        if any(b <= a for a, b in itertools.pairwise((0.0, *p, 1.0))):
            raise ValueError("probabilities must rise, between 0 and 1")
        for name, values in self.values.items():
            if len(values) != len(p) or any(b < a for a, b in itertools.pairwise(values)):
                raise ValueError(f"the quantiles of {name} must be as many as the probabilities, and not fall")
        return self


class Folds(Frozen):
    """Cross-trained members: event i is scored by the member that never saw it.

    The fold of an event is `weights.fold_of(salt, k, run, luminosityBlock, event)`; the graph has an output for every
    member, `{output}_0` … `{output}_{k-1}`, and member f, which was trained without fold f, scores fold f.
    """

    k: int = Field(ge=2, le=100)
    salt: str

    def of(self, ids: Mapping[str, npt.ArrayLike]) -> Ints:
        """Return the fold of events, (n,), by their `run`, `luminosityBlock` and `event`."""
        return fold_of(self.salt, self.k, *(ids[name] for name in EVENT_ID))


class Golden(Frozen):
    """Rows, flattened, with their scores, re-evaluated whenever a session is made.

    With folds or windows, every member scores all rows: first the scores of member 0, then those of member 1, ….
    """

    inputs: dict[str, tuple[tuple[Finite, ...], ...]]
    scores: tuple[Finite, ...] = Field(min_length=1)

    @classmethod
    def of(cls, inputs: Mapping[str, npt.ArrayLike], scores: npt.ArrayLike) -> Golden:
        """Take rows and their scores.

        Parameters
        ----------
        inputs : {name: (n, *shape)}
        scores : (members · n,)

        Examples
        --------
        >>> Golden.of({"features": np.ones((2, 1, 2))}, [3, 4])
        Golden(inputs={'features': ((1.0, 1.0), (1.0, 1.0))}, scores=(3.0, 4.0))
        """
        arrays = {name: np.asarray(rows) for name, rows in inputs.items()}
        flat = {name: tuple(tuple(float(v) for v in row.ravel()) for row in rows) for name, rows in arrays.items()}
        return cls(inputs=flat, scores=tuple(float(s) for s in np.asarray(scores)))

    def rows(self, spec: InputSpec) -> Float32s:
        """Return the rows of an input as the graph takes them, (n, *shape).

        Raises
        ------
        KeyError, ValueError, FloatingPointError
            There are none of this name or of this shape, or a number is beyond float32.
        """
        listed = self.inputs[spec.name]
        with np.errstate(over="raise"):
            return np.array(listed, np.float32).reshape(len(listed), *spec.shape)
