"""The models of a run: their cards, how their training went, and what went into them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coffea_ad import files
from coffea_ad.errors import BadFile, BadModel
from coffea_ad.report.blocks import Block, Figure, Figures, Section, Sentences, Table
from coffea_ad.report.sources import Sources, data_in, png_files
from coffea_ad.scoring.card import ModelCard, read_card
from coffea_ad.scoring.listing import card_table
from coffea_ad.scoring.modelfile import verify
from coffea_ad.tables import Listing

__all__ = ["file_of", "models_section"]

_CURVES = ("training", "chain_health", "long_run")
"""Figures of a training that show no rows."""
_SHIFTS = 8


def models_section(sources: Sources) -> Section | None:
    """Return a part for each model that the results name; None if they name none."""
    parts = [_model(sources, model) for model in sources.results.report.get("models", ())]
    inputs = sources.results.report.get("inputs", {})
    blocks = [Table(table) for table in (_seen(inputs), _shifts(inputs)) if table.rows]
    return Section("Models", blocks, parts) if parts else None


def _model(sources: Sources, model: Mapping[str, Any]) -> Section:
    name, digest = str(model["name"]), str(model["digest"])
    path, problem = file_of(sources, str(model["file"]), digest)
    if path is None:
        return Section(name, [Sentences((problem, f"its digest in the results: {digest}"), grave=True)])
    card = read_card(files.read(path), path)
    blocks: list[Block] = [Table(_with_digest(card, digest))]
    folder = path.removesuffix(".onnx")
    return Section(name, [*blocks, *_training(sources, card, folder)])


def _with_digest(card: ModelCard, digest: str) -> Listing:
    table = card_table(card)
    return Listing("", table.columns, (table.rows[0], ("digest", f"{digest}, that of the results"), *table.rows[1:]))


def file_of(sources: Sources, named: str, digest: str) -> tuple[str | None, str]:
    """Return the model file with the digest of the results, or why there is none."""
    problem = f"{named}: the model file is not there any more"
    beside = files.join(files.parted(sources.folder.rstrip("/"))[0], *files.parted(named)[1:])
    for path in dict.fromkeys((named, *sources.models, beside)):
        try:
            if not files.exists(path):
                continue
            if verify(files.read(path), path) == digest:
                return path, ""
        except (BadFile, BadModel) as error:
            problem = str(error)
            continue
        if path == named:
            problem = f"{named}: this is another model than that of the results, its digest differs"
    return None, problem


def _training(sources: Sources, card: ModelCard, folder: str) -> Iterator[Block]:
    """Yield the figures of a training, if the folder beside the model holds the one that the card tells of."""
    folds = _folds(folder)
    pictures = {f"{fold} {stem}".strip(): path for fold, at in folds.items() for stem, path in png_files(at).items()}
    if not pictures:
        return
    if not _trained_in(card, list(folds.values())):
        yield Sentences((f"{folder}: this training is not that of the model, and not shown",))
        return
    if sources.blinded and data_in(card.provenance) != []:
        hidden = [name for name in pictures if name.split()[-1] not in _CURVES]
        pictures = {name: path for name, path in pictures.items() if name not in hidden}
        if hidden:
            yield Sentences((f"not shown, since they may show data and the results are blinded: {', '.join(hidden)}",))
    order = sorted(pictures, key=lambda name: [c in name for c in ("chains", *reversed(_CURVES))])
    yield Figures(tuple(Figure(name.replace("_", " "), files.read(pictures[name])) for name in order))


def _folds(folder: str) -> dict[str, str]:
    """Return the folders of the trainings of a model: one, or those of its folds, {fold: folder}."""
    out, fold = {"": folder}, 0
    while png_files(place := files.join(folder, f"fold_{fold}")):
        out[f"fold {fold}"] = place
        fold += 1
    return out


def _trained_in(card: ModelCard, folders: Sequence[str]) -> bool:
    """Say whether the epoch of a card is one of those in `metrics.jsonl`; a card or a folder without metrics says nothing against it."""
    metrics = card.provenance.get("metrics", {})
    told = [m for m in metrics.get("folds") or [metrics] if isinstance(m, Mapping) and "epoch" in m]
    stored = [path for path in (files.join(f, "metrics.jsonl") for f in folders) if files.exists(path)]
    if not told or not stored:
        return True
    try:
        epochs = [json.loads(line) for path in stored for line in files.read(path).splitlines()]
        return all(any(e["epoch"] == m["epoch"] and _alike(e, m) for e in epochs) for m in told)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def _alike(epoch: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    return all(epoch[name] == told[name] for name in set(epoch) & set(told))


def _seen(inputs: Mapping[str, Any]) -> Listing:
    rows = [
        (
            model,
            dataset,
            str(counted["rows"]),
            str(counted.get("unscored", "–")),
            ", ".join(f"{c} {n}" for c, n in counted["undefined"].items()) or "none",
        )
        for model, seen in inputs.items()
        for dataset, counted in seen.get("datasets", {}).items()
    ]
    return Listing(
        "rows that the models saw", ("tagger", "dataset", "rows", "without a score", "undefined inputs"), tuple(rows)
    )


def _shifts(inputs: Mapping[str, Any]) -> Listing:
    """Return the inputs that are furthest from those of the training."""
    rows = []
    for model, seen in inputs.items():
        for sample, distances in seen.get("drift", {}).items():
            largest = sorted(distances.items(), key=lambda pair: -pair[1])[:_SHIFTS]
            rows += [(model, sample, _short(column), f"{distance:.3f}") for column, distance in largest]
    title = "inputs furthest from the training (largest difference of the cumulative distributions)"
    return Listing(title, ("tagger", "sample", "input", "distance"), tuple(rows))


def _short(column: str) -> str:
    """Return feature and column without the options.

    >>> _short("jet_substructure[observables=tau1+tau2].tau2"), _short("rmm.met")
    ('jet_substructure.tau2', 'rmm.met')
    """
    feature, dot, name = column.rpartition(".")
    return feature.partition("[")[0] + dot + name
