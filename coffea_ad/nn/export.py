"""Trained model → one ONNX file with its card, checked against the model before it gets its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad import features, files
from coffea_ad.errors import BadModel, ConfigError
from coffea_ad.modelfiles.attach import check_rows
from coffea_ad.modelfiles.quantiles import input_quantiles
from coffea_ad.nn.encoded import Encoded, FrozenGraph
from coffea_ad.nn.scorable import Scorable, contributions_in, explaining, models_in
from coffea_ad.nn.training.verdict import verdict
from coffea_ad.scoring import regions
from coffea_ad.scoring.agreement import allowed
from coffea_ad.scoring.card import ModelCard, write_card
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.specs import Golden, InputSpec
from coffea_ad.skims.background import rows_in_words
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s
from coffea_ad.versions import versions

__all__ = ["behind", "check_scores", "export", "make_card"]

_GOLDEN_ROWS = 8
_TOLERANCE = 1e-5
_TRIED = 1000  # rows of which some become golden
_ALONE = 16  # rows that are scored by themselves as well


def make_card(
    model: Scorable,
    data: Skim,
    *,
    name: str,
    config: dict[str, Any],
    metrics: dict[str, Any],
    efficiencies: Sequence[float] = (1e-1, 1e-2, 1e-3),
    collection: str | None = None,
) -> ModelCard:
    """Describe a trained model: inputs, calibration and regions from rows that it has not seen, provenance.

    Parameters
    ----------
    model : Scorable
        `Model`, `CrossTrained`, `Ensemble`, `Trees`, or one of your own.
    data : Skim
        The background it was trained on. Where it has the vectors of a network in place of its features, the card has neither golden
        rows nor quantiles, which `behind` adds. Training rows are not used for calibration: of an AE, the validation rows are;
        of a folded model all rows, each scored by the member that never saw it, and every member has a table of its own;
        of trees, which train on both, the test rows. Where rows have labels, those of label 0 are the background.
        Rows count with `event_weight`, whatever weights the training drew by.
    name : str
    config, metrics : dict
        The resolved configuration and the metrics of the kept epoch.
    efficiencies : sequence of float
        Nominal background efficiencies of the regions.
    collection : str, optional
        Which objects are scored; those of the skim by default.

    Returns
    -------
    ModelCard
        `provenance["verdict"]` says what is doubtful about the training, `provenance["regions_left_out"]` which regions
        are not written and why.

    Raises
    ------
    ConfigError
        No held-out row has a finite score, or they make no calibration.
    """
    held_out = data if model.folds is not None else data.splits(_held_out(model))
    if held_out.label is not None:  # of data against a template, the template is the background
        held_out = held_out.select(held_out.label == 0)
    folds = None if model.folds is None else model.folds.of(held_out.spectators)
    score = model.scores(held_out.x, folds)
    if not np.isfinite(score).any():
        raise ConfigError(f"{name}: none of {len(score)} held-out rows has a finite score; the training has failed")
    inputs = (InputSpec(features=data.features),)
    levels = {features.get(f.name).level for f in data.features}
    if len(levels) != 1:
        raise ConfigError(f"{name}: features of jets and of events cannot be inputs of one model")
    left = ("flavours", "selection", "collection", "asked", "signals")
    packages = ("coffea-ad", "torch", "coffea", "awkward", "onnx", "onnxruntime", "numpy")
    card = ModelCard(
        name=name,
        method=model.method,
        level=levels.pop(),
        collection=collection or data.provenance.get("collection", "FatJet"),
        inputs=inputs,
        quantiles=None if data.names else input_quantiles(held_out, inputs[0]),
        selection=data.provenance["selection"],
        folds=model.folds,
        density=model.density,
        contributions=contributions_in(model),
        slots_vary=all(member.slots_vary for member in models_in(model)) and any(models_in(model)),
        flavours=tuple(data.provenance["flavours"]),
        provenance={
            **{key: value for key, value in data.provenance.items() if key not in left},
            "rows": data.provenance.get("rows", {}),
            "config": config,
            "metrics": metrics,
            "versions": versions(*packages),
        },
        golden=None if data.names else _golden(model, held_out.x, score),
    )
    weight = held_out.event_weight
    calibrations = regions.calibrate_folds(score, weight, rows_in_words(card, held_out), folds, card.members)
    written, left_out = regions.derive(calibrations, score, weight, efficiencies, folds)
    epochs = int((config.get("train") or {}).get("epochs", 1))
    doubts = verdict(list(models_in(model)), held_out, score, calibrations, metrics, epochs=epochs)
    provenance = {**card.provenance, "verdict": doubts, "regions_left_out": list(left_out)}
    return card.model_copy(update={"calibrations": calibrations, "regions": written, "provenance": provenance})


def behind(network: FrozenGraph, model: Scorable, card: ModelCard, data: Skim) -> tuple[Encoded, ModelCard]:
    """Put a model behind the network whose vectors it was trained on.

    Parameters
    ----------
    network : FrozenGraph
    model : Scorable
        On its vectors.
    card : ModelCard
        As `make_card` describes the model.
    data : Skim
        Rows that the network takes.

    Returns
    -------
    Encoded, ModelCard
        With golden rows through both, and the quantiles of the network's inputs.
    """
    whole, x = Encoded(network, model), np.asarray(data.x[:_TRIED], np.float32)
    golden = _golden(whole, x, _member_scores(whole, x)[0])
    quantiles = input_quantiles(data, card.inputs[0])
    update = {"golden": golden, "quantiles": quantiles, "density": whole.density, "contributions": None}
    return whole, card.model_copy(update=update)  # parts of a vector are no inputs


def _held_out(model: Scorable) -> str:
    """Return the split that a model has never seen: "validation", or "test" if it trains on validation rows as well."""
    members = getattr(model, "members", None) or [model]
    return "test" if any(getattr(m, "held_out", "") == "test" for m in members) else "validation"


def _member_scores(model: Scorable, x: Float32s) -> list[Float32s]:
    """Return the scores of all rows by every member."""
    if model.folds is None:
        return [model.scores(x)]
    return [model.scores(x, np.full(len(x), f)) for f in range(model.folds.k)]


def _golden(model: Scorable, x: Float32s, score: Float32s) -> Golden:
    """Take rows from the lowest score to the highest, and the scores of every member on them."""
    order = np.argsort(score)[: int(np.isfinite(score).sum())]  # those without a score come last
    rows = x[order[np.linspace(0, len(order) - 1, _GOLDEN_ROWS).astype(int)]]
    return Golden.of({"features": rows}, np.concatenate(_member_scores(model, rows)))


def check_scores(model: Scorable, expected: Float32s, other: Float32s, name: str) -> None:
    """Refuse scores of a graph, (n,), that are not those of its model: to 1e-5, and where it has densities as they need it.

    Raises
    ------
    BadModel
    """
    if not np.array_equal(np.isnan(expected), np.isnan(other)):
        raise BadModel(f"{name}: torch and onnxruntime disagree on which rows are undefined")
    kinds = (model.density, *(member.density for member in models_in(model)))
    density = next((kind for kind in kinds if kind is not None), None)  # ranks and ratios of densities as well
    size = 1 + np.abs(expected)
    gap, bounds = np.abs(expected - other), allowed(expected, _TOLERANCE * size, density)
    if not np.all((gap <= bounds)[np.isfinite(expected)]):
        raise BadModel(
            f"{name}: nothing is written, since torch and onnxruntime differ by {np.nanmax(gap / size):.2g} in the scores of "
            f"{len(expected)} rows, the largest of which is {np.nanmax(np.abs(expected)):.3g}; if the training has "
            "diverged, lower train.learning_rate"
        )


def _check_parity(model: Scorable, data: bytes, x: Float32s, name: str) -> None:
    """Compare the model and OnnxScorer, member by member, at 0, 1, 2 and all rows and with undefined values.

    The raw graph has to know by itself what is undefined. It is not run without rows, and the scorer never does.
    """
    scorer = OnnxScorer(data, name=name)
    sessions = scorer.sessions  # which checks that a row keeps its score, alone and among others
    broken = x[:4].copy()
    broken[0].flat[0], broken[1].flat[-1], broken[2].flat[0] = np.nan, np.inf, -np.inf
    for rows in (x[:0], x[:1], x[:2], x, broken):
        for f, (expected, output) in enumerate(zip(_member_scores(model, rows), scorer.card.outputs, strict=True)):
            folds = None if model.folds is None else np.full(len(rows), f)
            others = [np.asarray(scorer(rows, folds))]
            if len(rows):
                others.append(sessions[f].run([output], {"features": rows})[0].reshape(-1))
            for other in others:
                check_scores(model, expected, other, name)


def _check_contributions(model: Scorable, data: bytes, x: Float32s, name: str) -> None:
    """Compare contributions of the model and of the file, member by member, and their sums with the scores.

    Contributions of either sign may be larger than their sum: what is rounded then is the largest of them.
    """
    scorer, broken = OnnxScorer(data, name=name), x[:4].copy()
    broken[0].flat[0] = np.nan
    promised = scorer.card.contributions
    if promised is None:
        return
    for rows in (x[:0], x[:1], x, broken):
        for f, score in enumerate(_member_scores(model, rows)):
            folds = None if model.folds is None else np.full(len(rows), f)
            ours, theirs = explaining(model).contributions_of(rows, folds), scorer.contributions(rows, folds)
            size = _TOLERANCE * (1 + np.abs(ours).sum(axis=1, keepdims=True))
            if not np.array_equal(np.isnan(ours), np.isnan(theirs)) or np.any(np.abs(ours - theirs) > size):
                raise BadModel(
                    f"{name}: nothing is written, since torch and onnxruntime differ in the contributions to its scores, by up to "
                    f"{np.nanmax(np.abs(ours - theirs)):.2g}"
                )
            total = np.exp(score.astype(np.float64)) if promised.of == "exp(score)" else score
            gap = np.abs(theirs.sum(axis=1, dtype=np.float64) - total)
            if np.any(gap > size[:, 0]):
                raise BadModel(
                    f"{name}: nothing is written, since the contributions to a score do not add up to {promised.of}: they miss it "
                    f"by up to {np.nanmax(gap):.2g}"
                )


def export(model: Scorable, path: str | Path, card: ModelCard, x: Float32s | None = None) -> Path:
    """Write a model file.

    Parameters
    ----------
    model : Scorable
        Of a folded model, every member becomes an output of the one graph.
    path : path
        The file gets this name only after torch and onnxruntime agree to 1e-5; of a density, −ln p, to 1e-3 and 1e-4 of it.
    card : ModelCard
    x : (n, columns) float32, optional
        Rows for the comparison; the card's golden rows by default.

    Raises
    ------
    BadModel
        The exported graph does not give the model's scores or their contributions, these do not add up, a score depends on the other rows of a batch, or the card is of
        other folds than the model.
    """
    final = Path(path)
    if card.folds != model.folds:
        raise BadModel(f"{final}: the folds of the card, {card.folds}, are not those of the model")
    data = write_card(model.graph((*card.outputs, *card.contribution_outputs)), card, str(final))
    if x is None and card.golden is not None:
        x = card.golden.rows(card.inputs[0])
    if x is None or len(x) < 4:
        raise BadModel(f"{final}: the comparison with torch needs at least 4 rows")
    _check_parity(model, data, x, str(final))
    _check_contributions(model, data, x, str(final))
    scorer = OnnxScorer(data, name=str(final))
    check_rows(scorer, x[:_ALONE])
    files.write(final, data)
    return final
