"""What the taggers of a run saw: undefined inputs, and whether the inputs are distributed as in the training.

`with monitoring() as record:` around a processor collects, without its help, what every tagger in it is given. A record
is made of nested dictionaries of integers and arrays that add, as coffea accumulates the results of chunks. Outside of
it nothing is recorded, and nothing is computed.

Counted are the rows that a model computes scores for, as they are: without weights, after the processor's cuts, and for
every variation anew if the model reads what is varied. A score that is kept within the chunk is counted once.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.scoring.card import ModelCard
from coffea_ad.scoring.specs import Quantiles
from coffea_ad.typing import Bools, Float32s, Ints

__all__ = ["Drift", "Watch", "describe", "drift", "drifted", "monitoring", "unwatched", "watch"]

_VALUES = 2**20  # at most so many numbers of a call are binned
_CACHE_SIZE = 16
_records: ContextVar[tuple[dict[str, Any], ...]] = ContextVar("coffea_ad_monitoring", default=())
_Cuts = tuple[list[str], list[int], Float32s]
_cuts: OrderedDict[tuple[str, str], _Cuts] = OrderedDict()

Batch = Mapping[str, npt.NDArray[Any]]


@contextmanager
def monitoring() -> Iterator[dict[str, Any]]:
    """Record what taggers see until the end of the block.

    Yields
    ------
    record : dict
        {digest of the model: {"rows": int, "unscored": int, "undefined": {column: int}, "quantiles": {column: counts}}}.
        `undefined` has only columns with a NaN or infinite value, over all rows. Counts, (2 r + 1,) int64, are of the
        scored rows (of every n-th, if they have more than 2²⁰ numbers in one call): below the first of the card's r
        quantiles, at it, between it and the second, at that, …, above the last. Where quantiles are equal, because many
        rows have one value, all that lies at them counts for the first.

    Examples
    --------
    >>> from coffea.nanoevents import NanoEventsFactory
    >>> import coffea_ad as ad
    >>> events = NanoEventsFactory.from_root(f"{svj_file}:Events", schemaclass=ad.NanoAODSchema).events()
    >>> tagger = ad.Tagger(model_file)
    >>> with monitoring() as record:
    ...     jets = tagger(events)
    >>> seen = record[tagger.scorer.digest]
    >>> seen["rows"], seen["unscored"], seen["undefined"]["jet_substructure.tau2"]
    (297, 2, 2)
    >>> drifts = drifted(tagger.card, seen)
    >>> drifts[0].column
    'jet_substructure.tau3'
    """
    record: dict[str, Any] = {}
    token = _records.set((*_records.get(), record))
    try:
        yield record
    finally:
        _records.reset(token)


@contextmanager
def unwatched() -> Iterator[None]:
    """Record nothing until the end of the block: what taggers see of blinded data would tell how much is hidden."""
    token = _records.set(())
    try:
        yield
    finally:
        _records.reset(token)


def watch(card: ModelCard, digest: str, total: int) -> Watch | None:
    """Return what a tagger shows its rows to, or None where nothing is recorded.

    Parameters
    ----------
    card, digest : ModelCard, str
        Of the model.
    total : int
        Rows that the call will score.
    """
    records = _records.get()
    return Watch(card, digest, total, records) if records and total else None


@dataclass
class Watch:
    """One call of one model: counts block by block, and adds to the records at the end."""

    card: ModelCard
    digest: str
    total: int
    records: tuple[dict[str, Any], ...]
    unscored: int = 0
    undefined: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[Float32s]] = field(default_factory=dict)

    def see(self, start: int, batch: Batch, score: Float32s) -> None:
        """Look at rows that were scored.

        Parameters
        ----------
        start : int
            Place of the first row among those of the call.
        batch : {input: (n, *shape) float32}
        score : (n,) float32
            NaN where undefined.
        """
        bad = np.isnan(score)  # only these can have an undefined input
        if bad.any():
            self.unscored += int(bad.sum())
            for spec in self.card.inputs:
                wrong, names = ~np.isfinite(batch[spec.name][bad]), spec.columns
                if len(names) != wrong.shape[-1]:
                    wrong = wrong[..., np.newaxis]  # one column with axes of its own, such as an image
                number = wrong.any(axis=tuple(range(1, wrong.ndim - 1))).sum(axis=0)
                for i in np.flatnonzero(number):
                    self.undefined[names[i]] = self.undefined.get(names[i], 0) + int(number[i])
        for spec in self.card.inputs if self.card.quantiles is not None else ():
            if len(spec.shape) == 1:
                stride = -(-self.total // max(_VALUES // spec.shape[0], 1))
                sampled = slice(-start % stride, None, stride)
                rows = batch[spec.name][sampled]
                good = ~bad[sampled]
                self.samples.setdefault(spec.name, []).append(rows.copy() if good.all() else rows[good])

    def finish(self) -> None:
        """Bin the sampled rows, and add everything to the records."""
        counts = self._counts()
        for record in self.records:
            monitored = record.setdefault(self.digest, {"rows": 0, "unscored": 0, "undefined": {}, "quantiles": {}})
            monitored["rows"] += self.total
            monitored["unscored"] += self.unscored
            for name, rows in self.undefined.items():
                monitored["undefined"][name] = monitored["undefined"].get(name, 0) + rows
            for name, number in counts.items():
                monitored["quantiles"][name] = monitored["quantiles"].get(name, 0) + number

    def _counts(self) -> dict[str, Ints]:
        out: dict[str, Ints] = {}
        quantiles = self.card.quantiles
        for spec in self.card.inputs:
            if quantiles is not None and spec.name in self.samples:
                names, places, cuts = _cuts_of(quantiles, (self.digest, spec.name), spec.columns)
                rows = np.ascontiguousarray(np.concatenate(self.samples[spec.name]).T[places])
                reached = np.zeros((len(cuts), 2 * cuts.shape[1] + 2), np.int64)
                for j, cut in enumerate(cuts.T[:, :, np.newaxis]):
                    reached[:, 2 * j + 1], reached[:, 2 * j + 2] = _number(rows < cut), _number(rows <= cut)
                reached[:, -1] = rows.shape[1]
                counts = np.diff(np.maximum.accumulate(reached, axis=1), axis=1)
                out |= dict(zip(names, counts, strict=True))
        return out


def _cuts_of(quantiles: Quantiles, key: tuple[str, str], columns: Sequence[str]) -> _Cuts:
    """Return which columns have quantiles, where they are in a row, and the quantiles as (columns, r) float32."""
    if key not in _cuts:
        places = [i for i, column in enumerate(columns) if column in quantiles.values]
        names = [columns[i] for i in places]
        table = np.array([quantiles.values[name] for name in names], np.float32)
        _cuts[key] = names, places, table.reshape(-1, len(quantiles.probability))
        while len(_cuts) > _CACHE_SIZE:
            _cuts.popitem(last=False)
    return _cuts[key]


def _number(true: Bools) -> Ints:
    """Count along the last axis; by bits, which is several times faster than `np.count_nonzero` with an axis."""
    number: Ints = np.bitwise_count(np.packbits(true, axis=1)).sum(axis=1, dtype=np.int64)
    return number


@dataclass(frozen=True)
class Drift:
    """How far a column of a run is from the reference background of the training.

    Attributes
    ----------
    column : str
        `feature.column`, as in the card.
    distance : float
        max |F_run − F_card| over the quantiles of the card, 0 to 1.
    bound : float
        What statistics alone exceed in 5 % of cases: 1.36 √(1/n + 1/n_card), after Kolmogorov and Smirnov.
    n : int
        Rows.
    value : float
        Where the distance is largest, in the column's unit.
    strict : bool
        There, P(column < value) differs; otherwise P(column ≤ value).
    expected, observed : float
        This probability in the card and in the run.
    """

    column: str
    distance: float
    bound: float
    n: int
    value: float
    strict: bool
    expected: float
    observed: float


def drift(card: ModelCard, counts: Mapping[str, Any]) -> list[Drift]:
    """Compare the inputs of a run with the quantiles in the card.

    F = P(column ≤ x). A card with quantile x of the probabilities p … q, which are more than one where many rows have
    the same value, says P(column < x) < p and P(column ≤ x) ≥ q; the distance is by how much the run violates either.
    For a continuous column that is |F_run − F_card| there; for a discrete one it is the distance from the nearest
    distribution that has the quantiles of the card, so that ties alone are no drift.

    Parameters
    ----------
    card : ModelCard
    counts : dict
        The card's model in a record of `monitoring`.

    Returns
    -------
    list of Drift
        One for every column that has quantiles and was seen, in the order of the card.

    Raises
    ------
    ConfigError
        The counts are of another model.
    """
    if card.quantiles is None:
        return []
    p = np.asarray(card.quantiles.probability)
    n_card = sum(c.n_effective for c in card.calibrations) or math.inf
    out = []
    for name, quantiles in card.quantiles.values.items():
        number = np.asarray(counts["quantiles"].get(name, ()), np.float64)  # of weighted datasets, added up
        n = round(float(number.sum()))
        if n == 0:
            continue
        cut = np.asarray(quantiles, np.float32)
        if len(number) != 2 * len(cut) + 1:
            raise ConfigError(f"the counts of {name} are not of the quantiles of {card.name}")
        first, last = np.searchsorted(cut, cut), np.searchsorted(cut, cut, "right") - 1
        below, up_to = (np.cumsum(number)[:-1] / n).reshape(-1, 2).T
        gap = np.stack([below[first] - p[first], p[last] - up_to[last]])
        side, i = np.unravel_index(int(np.argmax(gap)), gap.shape)
        out.append(
            Drift(
                column=name,
                distance=max(float(gap[side, i]), 0.0),
                bound=1.36 * math.sqrt(1 / n + 1 / n_card),
                n=n,
                value=float(cut[i]),
                strict=bool(side == 0),
                expected=float((p[first], p[last])[side][i]),
                observed=float((below[first], up_to[last])[side][i]),
            )
        )
    return out


def drifted(card: ModelCard, counts: Mapping[str, Any], threshold: float = 0.1) -> list[Drift]:
    """Return the drifts above a threshold and above what statistics explain, the largest first."""
    large = [d for d in drift(card, counts) if d.distance > max(threshold, d.bound)]
    return sorted(large, key=lambda d: -d.distance)


def describe(card: ModelCard, drifts: Sequence[Drift], most: int = 3) -> str:
    """Say in one sentence which inputs are not distributed as in the training.

    Parameters
    ----------
    card : ModelCard
    drifts : sequence of Drift
        From `drifted`.
    most : int
        So many are named, with numbers.

    Examples
    --------
    >>> card = ModelCard.model_validate({
    ...     "name": "toy", "method": "AE", "inputs": [{"features": [{"name": "f", "version": 1, "columns": [{"name": "x"}]}]}],
    ... })
    >>> describe(card, [Drift("f.x", 0.3, 0.014, 10_000, 20.7, False, 0.5, 0.8)])
    'toy: 1 of 1 inputs is not distributed as in the training: f.x ≤ 20.7 in 80 % of 10000 rows, not in 50 %'
    """
    total = sum(len(f.columns) for spec in card.inputs for f in spec.features)
    if not drifts:
        return f"{card.name}: no input is distributed otherwise than in the training"
    named = [
        f"{d.column} {'<' if d.strict else '≤'} {d.value:.4g} in {100 * d.observed:.3g} % of {d.n} rows, not in {100 * d.expected:.3g} %"
        for d in drifts[:most]
    ]
    rest = f"; and {len(drifts) - most} more" if len(drifts) > most else ""
    verb = "is" if len(drifts) == 1 else "are"
    return f"{card.name}: {len(drifts)} of {total} inputs {verb} not distributed as in the training: {'; '.join(named)}{rest}"
