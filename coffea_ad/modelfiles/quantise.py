"""Model files for real time: dense layers in eight-bit integers, with a card of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad import evaluation
from coffea_ad.errors import BadModel, ConfigError
from coffea_ad.modelfiles.fidelity import fidelity, half_width, refuse_unfaithful
from coffea_ad.modelfiles.int8 import bare, dense_layers, int8_network
from coffea_ad.modelfiles.joining import join_graphs
from coffea_ad.modelfiles.ranks import Nodes
from coffea_ad.scoring import regions
from coffea_ad.scoring.card import ModelCard, without_contributions, write_card
from coffea_ad.scoring.modelfile import network_digest, part_for
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.specs import Calibration, Golden, RegionSpec
from coffea_ad.skims.background import background, model_rows, rows_in_words
from coffea_ad.skims.files import skim_files
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s, Ints
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
        The new file, without contributions. `provenance["int8"]` of its card says what was done, to which file, and what was lost: what
        `fidelity` measures on validation rows (of a cross-trained model on all, each scored by the member that never saw it), the
        largest change of the golden rows' scores, and, with a signal, AUC before and after with the paired bootstrap error
        of their difference.

    Raises
    ------
    BadModel
        There is nothing to quantise, the model has windows or several inputs, or its scores change by more than
        `refuse_unfaithful` allows.
    ConfigError
        The skim has not these datasets, or it is not clear which are the background.
    """
    scorer = OnnxScorer(data, name=name)
    scores_only, card = without_contributions(data, scorer.card, name)
    if card.windows is not None or len(card.inputs) > 1:
        what = f"{len(card.inputs)} inputs" if len(card.inputs) > 1 else f"{len(card.windows.bounds)} windows"  # type: ignore[union-attr]
        raise BadModel(
            f"{name}: a model of {what} cannot be quantised; quantise a single network of one input, or its folds"
        )
    rows = background(card, calibration, datasets, ("train", "validation"))
    held_out = rows if "rows" not in card.provenance or card.folds is not None else rows.splits("validation")
    weight, folds = held_out.event_weight, None if card.folds is None else card.folds.of(held_out.spectators)
    network, layers = _network(scores_only, card, rows, name)
    plain = card.model_copy(update={"calibrations": (), "regions": (), "golden": None})
    small = OnnxScorer(write_card(network, plain, name), name=name)
    before, after = scorer(held_out.x, folds), small(held_out.x, folds)
    measured = fidelity(before, after, weight, folds)
    refuse_unfaithful(measured, name, "the int8 form")
    words = f"{rows_in_words(card, held_out)}, scored in int8"
    tables = regions.calibrate_folds(after, weight, words, folds, card.members)
    points, left_out = _regions(card.regions, tables, after, weight, folds)
    record: dict[str, Any] = {
        "of": scorer.digest,
        "network_of": network_digest(data, name),
        "what": "dense layers: 8 bits, weights per output, inputs in the range of the training rows; all else float32",
        "layers": layers,
        "rows": min(_CALIBRATION_ROWS, len(rows.x)),
        "files": rows.provenance["files"],
        "regions_left_out": [r.name for r in card.regions if r.name not in {p.name for p in points}],
        "versions": versions("coffea-ad", "onnx", "onnxruntime", "numpy"),
        **measured,
        "largest_change_of_golden": _change_of_golden(card, small, half_width(before[np.isfinite(before)])),
    }
    if signal is not None:
        record["auc"] = _auc_loss(card, scorer, small, held_out, (before, after), signal, signal_datasets, rows)
    final = ModelCard.model_validate(
        {
            **card.model_dump(),
            "name": f"{card.name}-int8",
            "method": f"{card.method}, int8",
            "calibrations": tables,
            "regions": points,
            "golden": _golden(small, held_out.x, after),
            "provenance": {**card.provenance, "regions_left_out": left_out, "int8": record},
        }
    )
    sealed = write_card(network, final, name)
    OnnxScorer(sealed, name=name).sessions  # noqa: B018  a file whose own golden rows fail must not be written
    return sealed


def _network(data: bytes, card: ModelCard, rows: Skim, name: str) -> tuple[bytes, int]:
    """Quantise a network by its training rows, or each member by those of other folds; and say how many layers that are."""
    feature = card.inputs[0].name
    if card.folds is None:
        trained = rows if "rows" not in card.provenance else rows.splits("train")
        return int8_network(data, _draw(trained), name), len(dense_layers(bare(data)))
    parts = [part_for(data, output, name) for output in card.outputs]
    fold = card.folds.of(rows.spectators)
    networks = [int8_network(part, _draw(rows.select(fold != f)), name) for f, part in enumerate(parts)]

    def behind(add: Nodes) -> None:
        for i, output in enumerate(card.outputs):
            add("Reshape", f"member_{i}_{output}", add.constant([-1], np.int64), output=output)

    joined = join_graphs(
        networks, card.member_names(), [{feature: feature}] * len(networks), {feature: card.inputs[0].shape}, card.outputs, behind,
    )  # fmt: skip
    return joined, sum(len(dense_layers(bare(part))) for part in parts)


def _draw(skim: Skim) -> Float32s:
    """Draw rows in proportion to their weights."""
    weight = np.maximum(skim.event_weight, 0.0)
    if not weight.sum() > 0:
        raise ConfigError("the skim has no training rows with a positive weight, which give the ranges of the layers")
    size = min(_CALIBRATION_ROWS, len(weight))
    return skim.x[np.random.default_rng(1).choice(len(weight), size, p=weight / weight.sum())]


def _regions(
    old: Sequence[RegionSpec], tables: Sequence[Calibration], score: Float32s, weight: Any, folds: Ints | None
) -> tuple[tuple[RegionSpec, ...], list[str]]:
    """Derive the regions anew, at their efficiencies and under their names, and say which are not written and why."""
    names = {r.efficiency: r.name for r in old if r.spectator is None}
    points, left_out = regions.derive(tables, score, weight, tuple(names), folds)
    over = [f"region {r.name} is not written: it has thresholds in bins of {r.spectator}" for r in old if r.spectator]
    return tuple(p.model_copy(update={"name": names[p.efficiency]}) for p in points), [*left_out, *over]


def _member_scores(scorer: OnnxScorer, x: Float32s) -> Float32s:
    """Return the scores of rows, (n, *shape), by every member, one after another, (members · n,)."""
    if scorer.card.folds is None:
        return np.asarray(scorer(x))
    return np.concatenate([np.asarray(scorer(x, np.full(len(x), f))) for f in range(scorer.card.folds.k)])


def _change_of_golden(card: ModelCard, small: OnnxScorer, width: float) -> float | None:
    """Return by how much a score of the golden rows changes at most, in half-widths of the background's scores."""
    if card.golden is None:
        return None
    scores = _member_scores(small, card.golden.rows(card.inputs[0]))
    return float(np.max(np.abs(scores - np.asarray(card.golden.scores))) / width)


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
    of = None if card.folds is None else card.folds.of(signal.spectators)
    pairs = [(scores[0], np.asarray(scorer(signal.x, of))), (scores[1], np.asarray(small(signal.x, of)))]

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
    scores = _member_scores(scorer, rows)
    others = [_unfused(scorer, rows)] + [_member_scores(scorer, rows * np.float32(1 + e)) for e in (-1e-6, 1e-6)]
    each = np.max([np.abs(other - scores) / (1 + np.abs(scores)) for other in others], axis=0)
    moved = each.reshape(-1, len(rows)).max(axis=0)
    steady = np.flatnonzero(moved <= max(_STEADY, float(np.sort(moved)[min(_GOLDEN_ROWS, len(moved)) - 1])))
    taken = steady[np.linspace(0, len(steady) - 1, _GOLDEN_ROWS).astype(int)]
    return Golden.of({scorer.card.inputs[0].name: rows[taken]}, scores.reshape(-1, len(rows))[:, taken].reshape(-1))


def _unfused(scorer: OnnxScorer, rows: Float32s) -> Float32s:
    """Score with the graph as it is written: rounded floats, where a session would use integers."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(scorer.data, options, providers=["CPUExecutionProvider"])
    scores = session.run(list(scorer.card.outputs), {scorer.card.inputs[0].name: rows})
    return np.concatenate([np.asarray(member).reshape(-1) for member in scores])
