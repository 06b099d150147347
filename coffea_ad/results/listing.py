"""The datasets of a run as a table of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coffea_ad.tables import Listing
from coffea_ad.weights import kind_of

__all__ = ["datasets_table"]


def datasets_table(datasets: Mapping[str, Mapping[str, Any]], title: str = "") -> Listing:
    """Return how much of each dataset was done.

    Parameters
    ----------
    datasets : {dataset: dict}
        Of a report: metadata, files, chunks, events, sums of weights, luminosity, failures.
    title : str

    Examples
    --------
    >>> entry = {"metadata": {"is_mc": False}, "files": {"a.root": {}}, "chunks_processed": 1, "chunks_expected": 2, "events": 10,
    ...          "weighted": False, "n_effective": None, "lumi": 59.8, "failed": [{"file": "a.root"}]}
    >>> datasets_table({"met": entry}).rows
    (('met', 'data', '1', '1/2', '10', '–', '–', '59.8', '1'),)
    """
    columns = ("dataset", "kind", "files", "chunks", "events", "sumw", "N_eff", "fb⁻¹", "failed")
    return Listing(title, columns, tuple((name, *_texts(entry)) for name, entry in datasets.items()))


def _texts(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        kind_of(entry["metadata"]),
        str(len(entry.get("files", ()))),
        f"{entry.get('chunks_processed', '?')}/{entry.get('chunks_expected', '?')}",
        str(entry.get("events", "–")),
        _number(entry.get("sumw")) if entry.get("weighted", True) else "–",
        _number(entry.get("n_effective")),
        _number(entry.get("lumi")),
        str(len(entry.get("failed", ()))),
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"
