"""Did a training work? Sentences for the card, from the kept epoch, the long run, the scores and the calibration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from coffea_ad.nn.model import Model
from coffea_ad.scoring.specs import Calibration
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s

__all__ = ["ALIKE", "FAR", "FEW", "verdict"]

FAR = 0.2
"""An energy does not model the data if the excess of its chains is more than this part of the data's own variance."""
FEW = 100.0
"""A calibration on fewer effective background objects is doubtful."""

ALIKE = 0.9
"""A student whose ranks are less correlated with those of its teacher is another model."""

_ROWS = 2048
_USELESS = 0.99  # of the error of the best constant


def verdict(
    members: Sequence[Model],
    held_out: Skim,
    score: Float32s,
    calibrations: Sequence[Calibration],
    metrics: Mapping[str, Any],
    *,
    epochs: int = 1,
) -> list[str]:
    """Say what is wrong or doubtful about a training; nothing if nothing is.

    A reconstruction has to be better than a constant, a latent space in use, an energy's chains near the data after many
    steps at frozen weights, a student's ranks those of its teacher, an epoch later than the first the best one, every score
    finite and most of them different, and the calibration based on enough rows. A model that passes may still be a bad tagger: that is for `coffea-ad evaluate`.

    Parameters
    ----------
    members : sequence of Model
        One, those of a cross-training or an ensemble, or none of something else than torch.
    held_out : Skim
        The rows that calibrate.
    score : (n,) float32
        Theirs.
    calibrations : sequence of Calibration
    metrics : mapping
        Of the kept epoch, with "long_run" of an energy model (`nn.long_run`); of a cross-training those of
        each fold under "folds", which are judged one by one.
    epochs : int
        How many there were to be.

    Returns
    -------
    list of str
        One sentence each.
    """
    constant, variance = _spread(members[0], held_out) if members else (math.nan, math.inf)
    trainings = metrics.get("folds") or [metrics]
    doubts = [
        f"fold {f}: {sentence}" if len(trainings) > 1 else sentence
        for f, training in enumerate(trainings)
        for sentence in (
            *_not_finite(training),
            *_of_epoch(training, constant, variance, epochs if _trained(members) else 1),
            *_of_long_run(training.get("long_run") or {}, variance),
        )
    ]
    doubts += [
        *_of_weights(held_out.provenance),
        *_of_scores(score),
        *_of_calibrations(calibrations),
    ]
    return list(dict.fromkeys(doubts))


def _trained(members: Sequence[Model]) -> bool:
    """Say whether there is anything that epochs change; PCA is fitted once."""
    return any(p.requires_grad for member in members for p in member.parameters())


def _spread(model: Model, rows: Skim) -> tuple[float, float]:
    """Return the error of a constant reconstruction of transformed rows, as far as it is known, and their variance."""
    places = np.unique(np.linspace(0, len(rows.x) - 1, _ROWS).astype(int))
    device = next(iter(model.state_dict().values()), torch.zeros(0)).device
    with torch.no_grad():
        z = model.transform(torch.from_numpy(np.asarray(rows.x[places], np.float32)).to(device))
        z = getattr(model, "scaled", torch.nn.Identity())(z)  # the coordinates of an energy
        shape, z = z.shape, z.flatten(1).double()
        weight = torch.from_numpy(np.maximum(rows.weight[places], 0.0)).to(device)
        weight = weight / weight.sum().clamp_min(1e-300)
        away = z - weight @ z
        variance = weight @ (away**2).sum(dim=1)
        if getattr(model, "minimised", "mse") == "mae":
            away = z - z.median(dim=0).values
        # as the model reports its own: a sum or a mean, of squares or not
        of_rows = getattr(model, "error_of", _mean_square)(away.float().reshape(shape)).double()
        constant = weight @ of_rows
        error = (weight**2 @ (of_rows - constant) ** 2).sqrt()  # heavy tails and few rows do not tell it exactly
    return float(_USELESS * constant + error), float(variance)


def _mean_square(difference: torch.Tensor) -> torch.Tensor:
    return (difference.double() ** 2).flatten(1).mean(dim=1)


def _not_finite(metrics: Mapping[str, Any]) -> Iterator[str]:
    for name, value in metrics.items():
        if isinstance(value, float) and not math.isfinite(value):
            yield f"the metric {name} of the kept epoch is {value}"


def _of_epoch(metrics: Mapping[str, Any], constant: float, variance: float, epochs: int) -> Iterator[str]:
    error = metrics.get("reconstruction")
    if error is not None and math.isfinite(constant) and error >= constant:
        yield f"the reconstruction is no better than a constant: its error is {error:.3g}, that of a constant {constant:.3g}"
    if metrics.get("active") == 0:
        yield "no latent unit depends on the input: the posterior has collapsed"
    if metrics.get("excess", -math.inf) > FAR * variance:
        yield (
            f"the chains are far from the data: the excess of W₂² is {metrics['excess']:.3g}, the variance of the data "
            f"{variance:.3g}"
        )
    if metrics.get("rank_correlation", 1.0) < ALIKE:
        yield f"the student is not like its teacher: the correlation of their ranks is {metrics['rank_correlation']:.3f}"
    untrained, trained = metrics.get("untrained"), metrics.get("validation", -math.inf)
    if untrained is not None and trained >= untrained:
        yield f"the training has improved nothing: the validation loss is {trained:.3g}, before the training it was {untrained:.3g}"
    elif epochs > 1 and metrics.get("epoch") == 0:
        yield f"no later epoch of {epochs} was better than the first: the training has improved nothing"


def _of_weights(provenance: Mapping[str, Any]) -> Iterator[str]:
    """Judge the weights of all rows of the skim: a split of its own may look fine because the heavy rows are in another."""
    effective, rows = provenance.get("n_effective", FEW), provenance.get("rows", {})
    if effective < FEW:
        yield (
            f"few rows carry the sum of weights of {', '.join(rows)}: {sum(rows.values())} rows are worth {effective:.3g} of "
            "equal weight"
        )


def _of_long_run(measured: Mapping[str, Any], variance: float) -> Iterator[str]:
    """Judge the last point of the long run of chains from the buffer and from data."""
    for start in ("buffer", "data"):
        excess = np.atleast_1d(measured.get(start, ()))
        if not len(excess):
            continue
        error = np.atleast_1d(measured.get(f"{start}_error") or 0.0)[-1]
        if not excess[-1] - 2 * error <= FAR * variance:
            yield (
                f"the energy does not model the data: {measured['steps'][-1]} further steps take chains from the {start} "
                f"{excess[-1]:.3g} ± {error:.2g} away (excess of W₂²; the variance of the data is {variance:.3g})"
            )


def _of_scores(score: Float32s) -> Iterator[str]:
    undefined = int((~np.isfinite(score)).sum())
    if undefined:
        yield f"{undefined} of {len(score)} held-out rows have no finite score"
    different = len(np.unique(score[np.isfinite(score)]))
    if different < 0.5 * len(score):
        yield f"{len(score)} held-out rows have only {different} different scores"


def _of_calibrations(calibrations: Sequence[Calibration]) -> Iterator[str]:
    for calibration in calibrations:
        if calibration.n_effective < FEW:
            yield (
                f"the calibration rests on {calibration.n_effective:.0f} effective background objects "
                f"({calibration.derived_from}), fewer than {FEW:g}"
            )
