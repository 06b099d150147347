"""Model files for real time: dense layers in eight-bit integers, with a card of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad import evaluation
from coffea_ad.errors import BadModel, ConfigError
from coffea_ad.modelfiles.int8 import bare, dense_layers, int8_network
from coffea_ad.scoring import regions
from coffea_ad.scoring.card import ModelCard, write_card
from coffea_ad.scoring.modelfile import network_digest
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.specs import Calibration, Golden, RegionSpec
from coffea_ad.skims.background import background, model_rows, rows_in_words
from coffea_ad.skims.files import skim_files
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s
from coffea_ad.versions import versions

__all__ = ["quantise"]


_CALIBRATION_ROWS = 4096
_GOLDEN_ROWS = 8
_STEADY = 2e-5  # a golden row's score may move so much, relative to 1 + |score|; the scorer allows five times that


def quantise(
    data: bytes,
    calibration: str | Path,
    *,
    datasets: Sequence[str] = (),
    signal: str | Path | None = None,
    signal_datasets: Sequence[str] = (),
    name: str = "model",
) -> bytes:
    """Write the int8 form of a model file, with a calibration, regions and golden rows of its own.

    Parameters
    ----------
    data : bytes
        A model file with its card.
    calibration : path
        A skim of the background. Rows of the training give the ranges of the layers' inputs, validation rows the table of
        background efficiencies, the regions at the efficiencies of the old ones, and what was lost.
    datasets : sequence of str
        The background in the skim; what the model was trained on by default.
    signal : path, optional
        A skim, for the loss in AUC.
    signal_datasets : sequence of str
        The signal in it; all that is not background by default.
    name : str
        For messages.

    Returns
    -------
    bytes
        The new file. `provenance["int8"]` of its card says what was done, to which file, and what was lost: the rank
        correlation with the float32 score, the largest and the 99 % quantile of the change of `ad_logp`, and, with a
        signal, AUC before and after with the paired bootstrap error of their difference.

    Raises
    ------
    BadModel
        There is nothing to quantise, or the model has several members or inputs.
    ConfigError
        The skim has not these datasets, or it is not clear which are the background.
    """
    scorer = OnnxScorer(data, name=name)
    card = scorer.card
    if card.members > 1 or len(card.inputs) > 1:
        what = f"{card.members} members" if card.members > 1 else f"{len(card.inputs)} inputs"
        raise BadModel(f"{name}: a model of {what} cannot be quantised; quantise a single network of one input")
    rows = background(card, calibration, datasets, ("train", "validation"))
    trained, held_out = _divide(card, rows)
    weight = held_out.event_weight
    network = int8_network(data, _draw(trained), name)
    plain = card.model_copy(update={"calibration": None, "regions": (), "golden": None})
    small = OnnxScorer(write_card(network, plain, name), name=name)
    before, after = scorer(held_out.x), small(held_out.x)
    table = regions.calibrate(after, weight, f"{rows_in_words(card, held_out)}, scored in int8")
    points, left_out = _regions(card.regions, table, after, weight)
    record: dict[str, Any] = {
        "of": scorer.digest,
        "network_of": network_digest(data, name),
        "what": "dense layers: 8 bits, weights per output, inputs in the range of the training rows; all else float32",
        "layers": len(dense_layers(bare(data))),
        "rows": min(_CALIBRATION_ROWS, len(trained.x)),
        "files": rows.provenance["files"],
        "regions_left_out": [r.name for r in card.regions if r.name not in {p.name for p in points}],
        "versions": versions("coffea-ad", "onnx", "onnxruntime", "numpy"),
        **_losses(before, after, weight),
    }
    if signal is not None:
        record["auc"] = _auc_loss(card, scorer, small, held_out, (before, after), signal, signal_datasets, rows)
    final = ModelCard.model_validate(
        {
            **card.model_dump(),
            "name": f"{card.name}-int8",
            "method": f"{card.method}, int8",
            "calibrations": (table,),
            "regions": points,
            "golden": _golden(small, held_out.x, after),
            "provenance": {**card.provenance, "regions_left_out": left_out, "int8": record},
        }
    )
    sealed = write_card(network, final, name)
    OnnxScorer(sealed, name=name).session  # noqa: B018  a file whose own golden rows fail must not be written
    return sealed


def _divide(card: ModelCard, skim: Skim) -> tuple[Skim, Skim]:
    """Return rows for the ranges of the layers, and rows for the calibration, which the model has not seen."""
    if "rows" not in card.provenance:
        return skim, skim
    return skim.splits("train"), skim.splits("validation")


def _draw(skim: Skim) -> Float32s:
    """Draw rows in proportion to their weights."""
    weight = np.maximum(skim.event_weight, 0.0)
    if not weight.sum() > 0:
        raise ConfigError("the skim has no training rows with a positive weight, which give the ranges of the layers")
    size = min(_CALIBRATION_ROWS, len(weight))
    return skim.x[np.random.default_rng(1).choice(len(weight), size, p=weight / weight.sum())]


def _regions(
    old: Sequence[RegionSpec], table: Calibration, score: Float32s, weight: Any
) -> tuple[tuple[RegionSpec, ...], list[str]]:
    """Derive the regions anew, at their efficiencies and under their names, and say which are not written and why."""
    names = {r.efficiency: r.name for r in old if r.spectator is None}
    points, left_out = regions.derive((table,), score, weight, tuple(names))
    over = [f"region {r.name} is not written: it has thresholds in bins of {r.spectator}" for r in old if r.spectator]
    return tuple(p.model_copy(update={"name": names[p.efficiency]}) for p in points), [*left_out, *over]


def _losses(before: Float32s, after: Float32s, weight: Any) -> dict[str, float]:
    """Compare two scores of the same background rows."""
    from scipy.stats import spearmanr

    both = np.isfinite(before) & np.isfinite(after)
    logp = [regions.logp(regions.calibrate(s[both], weight[both], ""), s[both]) for s in (before, after)]
    change = np.abs(logp[0] - logp[1])
    return {
        "rank_correlation": float(spearmanr(before[both], after[both]).statistic),
        "largest_change_of_ad_logp": float(change.max()),
        "change_of_ad_logp_99": float(np.quantile(change, 0.99)),
    }


def _auc_loss(
    card: ModelCard, scorer: OnnxScorer, small: OnnxScorer, held_out: Skim, scores: tuple[Any, Any],
    folder: str | Path, datasets: Sequence[str], background: Skim,
) -> dict[str, Any]:  # fmt: skip
    """Return the AUC before and after, and the bootstrap error of the loss, of the same resampled rows."""
    names = list(datasets) or sorted(set(skim_files(folder)) - set(background.provenance["rows"]))
    if not names:
        raise ConfigError(
            f"{folder}: it holds background only; say which datasets are the signal with --signal-datasets"
        )
    signal = model_rows(card, folder, names)
    pairs = [(scores[0], np.asarray(scorer(signal.x))), (scores[1], np.asarray(small(signal.x)))]

    def loss(i: Any, j: Any) -> tuple[float, float]:
        first, second = (
            evaluation.auc(b[i], s[j], held_out.event_weight[i], signal.event_weight[j], n_bootstrap=0).value
            for b, s in pairs
        )
        return first, second

    rng, (n, m) = np.random.default_rng(1), (len(held_out.x), len(signal.x))
    value = loss(np.arange(n), np.arange(m))
    drawn = [loss(rng.integers(0, n, n), rng.integers(0, m, m)) for _ in range(50)]
    return {
        "signal": names,
        "float32": value[0],
        "int8": value[1],
        "loss": value[0] - value[1],
        "error": float(np.std([a - b for a, b in drawn], ddof=1)),
    }


def _golden(scorer: OnnxScorer, x: Float32s, score: Float32s) -> Golden:
    """Take rows from the lowest score to the highest that stand off all edges of the rounding.

    A number that lies on such an edge goes up on one machine and down on another, which moves the score by a whole step.
    """
    order = np.argsort(score)[: int(np.isfinite(score).sum())]
    rows = x[order[np.linspace(0, len(order) - 1, min(len(order), 40 * _GOLDEN_ROWS)).astype(int)]]
    scores = np.asarray(scorer(rows))
    others = [_unfused(scorer, rows)] + [np.asarray(scorer(rows * np.float32(1 + e))) for e in (-1e-6, 1e-6)]
    moved = np.max([np.abs(other - scores) / (1 + np.abs(scores)) for other in others], axis=0)
    steady = np.flatnonzero(moved <= max(_STEADY, float(np.sort(moved)[min(_GOLDEN_ROWS, len(moved)) - 1])))
    taken = steady[np.linspace(0, len(steady) - 1, _GOLDEN_ROWS).astype(int)]
    return Golden.of({scorer.card.inputs[0].name: rows[taken]}, scores[taken])


def _unfused(scorer: OnnxScorer, rows: Float32s) -> Float32s:
    """Score with the graph as it is written: rounded floats, where a session would use integers."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(scorer.data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([scorer.card.output], {scorer.card.inputs[0].name: rows})[0]).reshape(-1)
