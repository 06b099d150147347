"""Integrated gradients: what each input adds to a score that is no sum of parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from coffea_ad.errors import BadModel, ConfigError
from coffea_ad.explaining.explanations import Attribution, medians, only_input
from coffea_ad.nn.cross_training import CrossTrained
from coffea_ad.nn.ensemble import LARGEST_LOG_ODDS, Ensemble
from coffea_ad.nn.loading import load
from coffea_ad.nn.model import Model
from coffea_ad.nn.scorable import Scorable
from coffea_ad.nn.transforms.columns import Transform
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.typing import Float32s, Float64s, Ints

__all__ = ["integrated_gradients"]

Score = Callable[[Tensor], Tensor]
_FIRST, _LAST = 64, 4096  # steps from the baseline to a row
_MISSED = 0.002  # of the difference of scores, above which the steps are made smaller
_BLOCK = 256
_SAME = 1e-3


def integrated_gradients(
    scorer: OnnxScorer, folder: str | Path, *, classes: Sequence[type[nn.Module]] = ()
) -> Attribution:
    """Return a way to take scores apart by the trained network behind a model file.

    Along the straight line from a baseline z⁰ to the transformed row z, input i adds

        (zᵢ − zᵢ⁰) ∫₀¹ ∂s/∂zᵢ (z⁰ + t (z − z⁰)) dt,

    which add up to s(z) − s(z⁰). A density of x has −log |dzᵢ/dxᵢ| of each input beside. The line is one in the inputs x where z are
    not the inputs one by one, as behind an encoder. The integral is a sum over 64 midpoints, or over more, up to 4096, until it misses that difference by less
    than 0.2 %; what it misses is the remainder. The baseline is the median of every input in the background, which the card has; of sets
    and images, of which it has none, it is the empty row.

    Parameters
    ----------
    scorer : OnnxScorer
        The model file.
    folder : path
        Of its training, such as `svdd/` beside `svdd.onnx`.
    classes
        As of `nn.load`.

    Returns
    -------
    Attribution
        Raises a `BadModel` if the trained network gives other scores than the file, and a `ConfigError` if the baseline has no score.

    Raises
    ------
    ConfigError
        There is no trained network in the folder, its score has no gradient, or the card does not say the median of flat inputs.

    References
    ----------
    M. Sundararajan, A. Taly, Q. Yan, "Axiomatic attribution for deep networks", Proceedings of Machine Learning Research 70 (2017)
    3319, arXiv:1703.01365.
    """
    card, spec = scorer.card, only_input(scorer.card)
    try:
        model = load(folder, classes=classes)
    except ConfigError as error:
        lacking = f"; {scorer.name} gives no contributions, and gradients need its training"
        raise ConfigError(f"{error}{'' if card.contributions else lacking}") from None
    if model.shape != spec.shape:
        raise ConfigError(
            f"{folder}: the model was trained on rows of shape {model.shape}, and {scorer.name} takes {spec.shape}, which a network that "
            "cannot be differentiated turns into these"
        )
    members = model.members if isinstance(model, CrossTrained) else [model]
    for member in members:
        _refuse_without_gradient(member, str(folder))
    flat = len(spec.shape) == 1
    baseline = medians(card, spec) if flat else np.zeros(len(spec.entries))
    if np.isnan(baseline).any():
        raise ConfigError(f"{scorer.name}: its card has no quantiles, whose medians gradients begin at")
    start = torch.from_numpy(baseline.astype(np.float32).reshape(spec.shape))

    def apply(x: Float32s, of: Ints | None) -> tuple[Float64s, Float64s]:
        expected = np.asarray(scorer(x, of))
        ours = model.scores(x, of if isinstance(model, CrossTrained) else None)
        if not np.allclose(ours, expected, rtol=_SAME, atol=_SAME):
            raise BadModel(
                f"{folder}: what was trained there gives other scores than {scorer.name}; name its training with --training"
            )
        rows = torch.from_numpy(np.ascontiguousarray(x))
        each = [_of_row(members[0 if of is None else of[i]], start, row, str(folder)) for i, row in enumerate(rows)]
        parts = np.array([part for part, _ in each], np.float64).reshape(len(x), len(spec.entries))
        return parts, np.array([missed for _, missed in each], np.float64)

    place = "the median of the background" if flat else "an empty row"
    return Attribution(f"integrated gradients from {place}", "score − score of that row", apply)


def _refuse_without_gradient(model: Scorable, folder: str) -> None:
    if isinstance(model, Ensemble) and model.how != "rank":
        for member in model.members:
            _refuse_without_gradient(member, folder)
    elif not isinstance(model, Model):
        raise ConfigError(f"{folder}: the score of {model.method} has no gradient")


def _of_row(model: Scorable, start: Tensor, row: Tensor, folder: str) -> tuple[Float64s, float]:
    """Return what each number of a row adds to its score by one member, (numbers,), and what all of them miss."""
    if isinstance(model, Ensemble) and model.how == "mean":
        each = [_of_row(member, start, row, folder) for member in model.members]
        return np.mean([parts for parts, _ in each], axis=0), float(np.mean([missed for _, missed in each]))
    both = torch.stack([start, row])
    in_z = _in_z(model, both)
    if in_z is None:
        return _integral(_together(model, "score"), start, row, folder)
    z, beside = in_z
    parts, missed = _integral(_together(model, "energy"), z[0], z[1], folder)
    return parts + (beside[1] - beside[0]).double().numpy().reshape(-1), missed


def _in_z(model: Scorable, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return transformed rows, and what scores have of each input beside the energy; None if scores are no functions of such z.

    Members of an ensemble, such as the epochs of a training, have to share z.
    """
    members = [model] if isinstance(model, Model) else getattr(model, "members", [])
    if not members or not all(isinstance(m, Model) for m in members):
        return None
    with torch.no_grad():
        z, beside = members[0].transform(x), _slopes(members[0], x)
        one_by_one = all(
            isinstance(m.transform, nn.Identity) or getattr(m.transform, "z_columns", None) == () for m in members
        )
        if not one_by_one or not all(torch.equal(m.transform(x), z) for m in members):
            return None
        scores = _together(model, "score")(x)
        gaps = scores - _together(model, "energy")(z) - beside.flatten(1).sum(dim=1)
        return (z, beside) if bool((gaps.abs() <= _SAME * (1 + scores.abs())).all()) else None


def _slopes(model: Model, x: Tensor) -> Tensor:
    """Return what each column of raw rows has in a score beside the energy: −log |dz/dx| in a density of x, else 0, in the shape of x."""
    transform, values = model.transform, getattr(model, "values", None)
    if model.density != "x" or not isinstance(transform, Transform) or not transform.has_jacobian:
        return torch.zeros_like(x)
    slopes = -transform.log_slopes(x)
    if values is None:
        return slopes
    conditions = torch.ones_like(slopes, dtype=torch.bool).index_fill(1, values, value=False)  # a density of the others
    return slopes.masked_fill(conditions, 0.0)


def _together(model: Scorable, what: Literal["score", "energy"]) -> Score:
    """Return the score of raw rows as torch computes it, or the energy of transformed ones; of an ensemble that of all members."""
    if isinstance(model, Model):
        function: Score = getattr(model.eval(), what)
        return function
    assert isinstance(model, Ensemble)
    members, how = [_together(member, what) for member in model.members], model.how

    def score(x: Tensor) -> Tensor:
        each = torch.stack([member(x) for member in members])
        if how == "mean" or len(members) == 1:
            return each.mean(dim=0)
        if how == "logmeanexp":
            return math.log(len(members)) - torch.logsumexp(-each, dim=0)
        odds = each.clamp(-LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)
        up, down = (nn.functional.logsigmoid(sign * odds).logsumexp(dim=0) for sign in (1, -1))
        total: Tensor = up - down
        return total

    return score


def _integral(score: Score, start: Tensor, row: Tensor, folder: str) -> tuple[Float64s, float]:
    """Return what each number of a row adds, (numbers,), and what all of them miss of the difference of scores."""
    with torch.no_grad():
        difference = float(np.subtract(*score(torch.stack([row, start])).double().numpy()))
    if not np.isfinite(difference):
        raise ConfigError(f"{folder}: the row that gradients begin at has no score")
    steps = _FIRST
    while True:
        along = (torch.arange(steps) + 0.5) / steps
        total = torch.zeros_like(row, dtype=torch.float64)
        for t in along.split(_BLOCK):
            points = (start + t.reshape(-1, *(1 for _ in row.shape)) * (row - start)).requires_grad_()
            (gradient,) = torch.autograd.grad(score(points).sum(), points)
            total += gradient.double().sum(dim=0)
        parts = ((row - start).double() * total / steps).numpy().reshape(-1)
        missed = difference - float(parts.sum())
        if abs(missed) <= _MISSED * abs(difference) or steps >= _LAST:
            return parts, missed
        steps *= 4
