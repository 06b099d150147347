"""What a training learns from: datasets, rows and effective numbers; signals only where they are asked for by name."""

from __future__ import annotations

import numpy as np

from coffea_ad.errors import SkimError
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Bools
from coffea_ad.weights import n_effective

__all__ = ["refuse_signals", "sample_in_words"]


def refuse_signals(data: Skim) -> None:
    """Refuse a training on a dataset that its metadata marks as a signal, unless it was asked for by name.

    Raises
    ------
    SkimError
    """
    present = sorted(set(data.dataset.tolist()))
    signals = [d for d in data.provenance.get("signals", ()) if d in present and d not in data.provenance["asked"]]
    if signals:
        rest = ", ".join(d for d in present if d not in signals)
        raise SkimError(
            f"dataset {signals[0]} is marked as a signal by its metadata, and would train the model; say which datasets are the "
            f"background: 'datasets=[{rest}]'"
        )


def sample_in_words(data: Skim) -> str:
    """Return datasets with their rows, and rows and effective numbers of the splits, in words.

    N_eff is that of the training weights, of rows with a positive weight.
    """
    names, counts = np.unique(data.dataset, return_counts=True)
    listed = ", ".join(
        f"{name} ({n} rows, N_eff {_effective(data, data.dataset == name):.0f})"
        for name, n in zip(names.tolist(), counts.tolist(), strict=True)
    )
    splits = ", ".join(
        f"{split} {int((data.split == split).sum())} rows with N_eff {_effective(data, data.split == split):.0f}"
        for split in ("train", "validation")
    )
    lost = data.provenance.get("negative_weight_fraction", 0.0)
    more = f"; negative weights, {lost:.2%} of all, are left out" if lost > 0 else ""
    return f"{listed}: {splits}{more}"


def _effective(data: Skim, rows: Bools) -> float:
    return n_effective(np.maximum(data.weight[rows], 0.0))
