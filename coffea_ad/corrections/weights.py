"""Event weights with their variations: from columns of the file, generator weights, and correctionlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import awkward as ak
import numpy as np
import numpy.typing as npt
from pydantic import Field

from coffea_ad.corrections.files import OUTSIDE, Correction, CorrectionFiles, Outside, Part
from coffea_ad.errors import BadFile, ConfigError, MissingBranch
from coffea_ad.nanoaod.columns import where
from coffea_ad.typing import Float64s
from coffea_ad.weights import event_branch, has_branch

__all__ = [
    "Columns",
    "CorrectionWeight",
    "EventWeight",
    "PdfWeights",
    "Pileup",
    "ScaleWeights",
    "column_weight",
    "correctionlib_weight",
    "pdf_weights",
    "pileup_weight",
    "scale_weights",
]

Triple = tuple[Float64s, Float64s, Float64s]
Absent = Literal["error", "unit"]

SCALES = {"muR": (7, 1), "muF": (5, 3), "muRmuF": (8, 0)}
"""Places of up and down among the nine of LHEScaleWeight; 4 is the central one."""
_SHOWERS = 4  # numbers of PSWeight: ISR and FSR up, ISR and FSR down
_COLUMN = r"^([A-Za-z]\w*(\[\d+\])?)?$"
_ABSENT = "unit: files or events without the numbers get weight 1, and no variation"


class Columns(Part):
    """A weight that the file holds: branches, or places of lists such as PSWeight[0]; up and down replace the nominal."""

    nominal: str = Field("", pattern=_COLUMN, description="empty: 1")
    up: str = Field("", pattern=_COLUMN, description="empty: no variation")
    down: str = Field("", pattern=_COLUMN, description="empty, but up is not: as the nominal, a one-sided variation")
    absent: Absent = Field("error", description=_ABSENT)


class ScaleWeights(Part):
    """Renormalisation and factorisation scales times 2 and 1/2: variations muR, muF, and muRmuF of both together."""

    branch: str = "LHEScaleWeight"
    absent: Absent = Field("error", description=_ABSENT)


class PdfWeights(Part):
    """Parton densities: variation pdf, and alphaS where `alpha_s` tells its members."""

    branch: str = "LHEPdfWeight"
    kind: Literal["hessian", "replicas"] = Field(
        "hessian", description="symmetric eigenvectors, or Monte Carlo replicas"
    )
    first: int = Field(1, ge=1)
    last: int = Field(100, ge=2, description="the members that are added up; member 0 is the central one")
    alpha_s: tuple[int, int] | None = Field(None, description="members of α_S down and up, such as [101, 102]")
    absent: Absent = Field("error", description=_ABSENT)


class CorrectionWeight(Part):
    """A weight from a correctionlib file; the string input that `inputs` leaves out takes the words of the variations."""

    file: str
    name: str
    inputs: dict[str, float | str] = Field(description="input → branch, number, or word of a string input")
    nominal: str = "nominal"
    up: str = "up"
    down: str = "down"
    ranges: dict[str, tuple[float, float]] = Field({}, description="branch → [from, to); weight 1 outside")
    outside: Outside = Field("fail", description=OUTSIDE)


class Pileup(Part):
    """The weight of the true number of interactions, as in puWeights.json.gz: variation pileup."""

    file: str
    name: str
    branch: str = "Pileup_nTrueInt"
    outside: Outside = Field("fail", description=OUTSIDE)


@dataclass(frozen=True)
class EventWeight:
    """Weights that are made together.

    Attributes
    ----------
    label : str
        For messages.
    branches : tuple of str
        What they are made of.
    varied : tuple of str
        Names of those weights that have variations.
    make : callable
        events → {name: (nominal, up, down)}, (n_events,) float64 each; it must pickle.
    """

    label: str
    branches: tuple[str, ...]
    varied: tuple[str, ...]
    make: Callable[[Any], Mapping[str, Triple]]


def column_weight(name: str, config: Columns) -> EventWeight:
    """Return the weight made of columns."""
    branches = [c.partition("[")[0] for c in (config.nominal, config.up, config.down) if c]
    varied = (name,) if config.up else ()
    return EventWeight(name, tuple(dict.fromkeys(branches)), varied, partial(_columns, name, config))


def scale_weights(config: ScaleWeights) -> EventWeight:
    """Return the weights of the scales.

    `LHEScaleWeight` holds nine numbers relative to the nominal weight, of μ_R times ½, 1, 2, and within each of μ_F
    times ½, 1, 2: [4] is the central one. Generators that leave it out have eight. All are taken relative to it.
    """
    return EventWeight("scale", (config.branch,), tuple(SCALES), partial(_scales, config))


def pdf_weights(config: PdfWeights) -> EventWeight:
    """Return the weights of the parton densities, relative to the central member.

    1 ± √Σ(w_k/w_0 − 1)² over the eigenvectors of a symmetric Hessian set, or 1 ± the standard deviation of w_k/w_0 over
    replicas. This is taken for every event; since √Σ_k(Σ_i δ_ik)² ≤ Σ_i √Σ_k δ_ik², it is never less than the
    uncertainty of a sum of events of positive weight that would come from a histogram of every member.
    """
    names = ("pdf", "alphaS") if config.alpha_s else ("pdf",)
    return EventWeight("pdf", (config.branch,), names, partial(_pdf, config))


def pileup_weight(config: Pileup, files: CorrectionFiles) -> EventWeight:
    """Return the weight of pile-up."""
    numbers = [n for n, kind in files.correction(config.file, config.name).inputs.items() if kind != "string"]
    inputs: dict[str, float | str] = dict.fromkeys(numbers, config.branch)
    whole = CorrectionWeight(file=config.file, name=config.name, inputs=inputs, outside=config.outside)
    return correctionlib_weight("pileup", whole, files)


def correctionlib_weight(name: str, config: CorrectionWeight, files: CorrectionFiles) -> EventWeight:
    """Return a weight from a correctionlib file: one number per event, or the product over objects.

    With a branch of a collection among the inputs, the weight is the product over the objects of an event, which are
    varied together.

    Raises
    ------
    BadFile, ConfigError
    """
    correction = files.correction(config.file, config.name, config.outside)
    for argument in config.inputs:
        correction.check_input(argument)
    left = [n for n in correction.inputs if n not in config.inputs]
    if len(left) > 1 or any(correction.inputs[n] != "string" for n in left):
        raise ConfigError(f"{correction}: say what goes into {', '.join(left)}")
    for argument, value in config.inputs.items():
        if correction.inputs[argument] == "string":
            correction.check_word(argument, str(value))
    for word in (config.nominal, config.up, config.down) if left else ():
        correction.check_word(left[0], word)
    source = {n: v for n, v in config.inputs.items() if isinstance(v, str) and correction.inputs[n] != "string"}
    branches = tuple(dict.fromkeys([*source.values(), *config.ranges]))
    make = partial(_correctionlib, name, config, correction, source, left[0] if left else "")
    return EventWeight(name, branches, (name,) if left else (), make)


def _columns(name: str, config: Columns, events: Any) -> dict[str, Triple]:
    nominal = _entry(events, config.nominal, config.absent) if config.nominal else np.ones(len(events))
    up = _entry(events, config.up, config.absent) if config.up else nominal
    return {name: (nominal, up, _entry(events, config.down, config.absent) if config.down else nominal)}


def _entry(events: Any, column: str, absent: Absent) -> Float64s:
    """Return a branch, or one place of a list per event, (n_events,)."""
    branch, _, place = column.rstrip("]").partition("[")
    if absent == "unit" and not has_branch(events, branch):
        return np.ones(len(events))
    values = event_branch(events, branch)
    if (values.ndim > 1) != bool(place):
        raise ConfigError(f"{column}: {branch} is {'a list of numbers' if values.ndim > 1 else 'one number'} per event")
    if place:
        many = int(ak.max(ak.num(values, axis=1), initial=0))
        if branch == "PSWeight" and many > _SHOWERS:
            raise BadFile(
                f"{where(events)}PSWeight has {many} numbers per event, in an order of their own; only the {_SHOWERS} of initial "
                "and final state are known, so their places mean something else"
            )
        values = ak.pad_none(values, int(place) + 1, axis=1)[:, int(place)]
        if absent == "error" and ak.any(ak.is_none(values)):
            raise MissingBranch(f"{where(events)}{branch} has no entry [{place}] in some events")
        values = ak.fill_none(values, 1.0)
    return np.asarray(ak.to_numpy(values), np.float64)


def _members(events: Any, branch: str, absent: Absent, lengths: Sequence[int], central: int) -> npt.NDArray[Any] | None:
    """Return the lists of all events relative to their central members, (n_events, members), or None where all are absent.

    With `absent: unit`, events without numbers, or whose central number is 0 or undefined, get ones.
    """
    if absent == "unit" and not has_branch(events, branch):
        return None
    lists = event_branch(events, branch)
    if lists.ndim != 2:
        raise ConfigError(f"{branch} is one number per event, not a list")
    counts = ak.to_numpy(ak.num(lists, axis=1))
    filled = counts > 0 if absent == "unit" else np.ones(len(counts), bool)
    if not filled.any():
        return None
    sizes = np.unique(counts[filled])
    if len(sizes) > 1 or sizes[0] not in lengths:
        have = ", ".join(map(str, sizes))
        known = "8 or 9" if len(lengths) == 2 else f"{lengths[0]} or more"
        raise MissingBranch(f"{where(events)}{branch} has {have} numbers per event, but {known} are needed")
    table = np.ones((len(counts), sizes[0]), np.asarray(ak.flatten(lists[:1])).dtype)
    table[filled] = ak.to_numpy(lists[filled])
    if sizes[0] == 8 and len(lengths) == 2:
        table = np.insert(table, 4, 1.0, axis=1)
    undefined = ~np.isfinite(table).all(axis=1) | (table[:, central] == 0)
    if undefined.any():
        if absent == "error":
            raise BadFile(
                f"{where(events)}{branch} of {int(undefined.sum())} events has a central number of 0 or one that is not finite; "
                "absent: unit gives them no variation"
            )
        table[undefined] = 1
    return np.asarray(table / table[:, central : central + 1])


def _scales(config: ScaleWeights, events: Any) -> dict[str, Triple]:
    one = np.ones(len(events))
    table = _members(events, config.branch, config.absent, range(8, 10), 4)
    if table is None:
        return dict.fromkeys(SCALES, (one, one, one))
    table = table.astype(np.float64)
    return {name: (one, table[:, up], table[:, down]) for name, (up, down) in SCALES.items()}


def _pdf(config: PdfWeights, events: Any) -> dict[str, Triple]:
    one = np.ones(len(events))
    largest = max(config.last, *(config.alpha_s or (0,)))
    table = _members(events, config.branch, config.absent, range(largest + 1, 10_000), 0)
    if table is None:
        return dict.fromkeys(("pdf", "alphaS") if config.alpha_s else ("pdf",), (one, one, one))
    # as stored, in float32: a hundred numbers per event
    shift = table[:, config.first : config.last + 1] - 1
    if config.kind == "hessian":
        spread = np.sqrt(np.einsum("ij,ij->i", shift, shift, dtype=np.float64))
    else:
        spread = shift.std(axis=1, ddof=1, dtype=np.float64)
    out = {"pdf": (one, 1 + spread, 1 - spread)}
    if config.alpha_s:
        down, up = config.alpha_s
        out["alphaS"] = (one, table[:, up].astype(np.float64), table[:, down].astype(np.float64))
    return out


def _correctionlib(
    name: str, config: CorrectionWeight, correction: Correction, source: Mapping[str, str], systematic: str, events: Any
) -> dict[str, Triple]:
    columns = {branch: event_branch(events, branch) for branch in (*source.values(), *config.ranges)}
    lists = {branch for branch, column in columns.items() if column.ndim > 1}
    objects = [ak.to_numpy(ak.num(columns[branch], axis=1)) for branch in lists]
    if any(not np.array_equal(objects[0], counts) for counts in objects):
        raise ConfigError(f"{correction}: {' and '.join(sorted(lists))} are not of the same objects")
    counts = objects[0] if objects else np.ones(len(events), np.int64)
    flat = {
        branch: ak.to_numpy(ak.flatten(column)) if branch in lists else np.repeat(ak.to_numpy(column), counts)
        for branch, column in columns.items()
    }
    inside = np.ones(counts.sum(), bool)
    for branch, (low, high) in config.ranges.items():
        inside &= (flat[branch] >= low) & (flat[branch] < high)
    values = {n: flat[source[n]][inside] if n in source else value for n, value in config.inputs.items()}

    def weight(word: str) -> Float64s:
        factors = np.ones(len(inside))
        factors[inside] = correction({**values, systematic: word}, int(inside.sum()), place=where(events))
        return np.asarray(ak.to_numpy(ak.prod(ak.unflatten(factors, counts), axis=1)), np.float64)

    if not systematic:
        return {name: (weight(""),) * 3}
    return {name: (weight(config.nominal), weight(config.up), weight(config.down))}
