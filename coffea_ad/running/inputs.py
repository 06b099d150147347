"""Inputs of models as a run saw them, against what the card says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from coffea_ad.scoring.card import ModelCard
from coffea_ad.scoring.monitoring import describe, drift, drifted

__all__ = ["inputs_seen"]


def inputs_seen(
    cards: Mapping[str, tuple[str, ModelCard]],
    done: Mapping[str, Any],
    groups: Mapping[str, Iterable[tuple[str, float]]],
) -> tuple[dict[str, Any], list[str]]:
    """Compare what the models were given with what they were trained on.

    Parameters
    ----------
    cards : {digest: (name, card)}
    done : dict
        The run's accumulator.
    groups : {kind: ((dataset, weight), …)}
        Data and simulation are compared as wholes: simulated datasets by their cross-sections.

    Returns
    -------
    report : {model: {"datasets": {dataset: dict}, "drift": {kind: {column: distance}}}}
    notes : list of str
        One sentence for each kind whose inputs have moved.
    """
    report: dict[str, Any] = {}
    notes = []
    seen = done.get("inputs", {})
    for digest, (name, card) in cards.items():
        scored = {d: s[digest] for d, s in seen.items() if digest in s}
        entry: dict[str, Any] = {
            "datasets": {
                d: {"rows": int(s["rows"]), "unscored": int(s["unscored"]), "undefined": dict(s["undefined"])}
                for d, s in scored.items()
            },
            "drift": {},
        }
        for kind, members in groups.items():
            counts = _weighted(scored, members)
            if not counts:
                continue
            entry["drift"][kind] = {f.column: round(f.distance, 4) for f in drift(card, {"quantiles": counts})}
            moved = drifted(card, {"quantiles": counts})
            if moved:
                notes.append(f"{kind}: {describe(card, moved)}")
        report[name] = entry
    return report, notes


def _weighted(seen: Mapping[str, Any], members: Iterable[tuple[str, float]]) -> dict[str, Any]:
    """Add up datasets by their weights, and bring each column to its effective number of rows."""
    total: dict[str, Any] = {}
    squares: dict[str, float] = {}
    for dataset, weight in members:
        for column, values in seen.get(dataset, {}).get("quantiles", {}).items():
            counts = np.asarray(values, np.float64)
            total[column] = total.get(column, 0) + weight * counts
            squares[column] = squares.get(column, 0.0) + weight**2 * float(counts.sum())
    return {c: t * t.sum() / squares[c] for c, t in total.items() if squares[c] > 0}
