"""The most anomalous rows of a skim."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.explaining.explanations import Rows, only_input
from coffea_ad.nanoaod.columns import EVENT_ID, event_text
from coffea_ad.scoring.members import member_of
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.skims.background import model_rows, spectator
from coffea_ad.skims.files import skim_files

__all__ = ["skimmed_rows"]

_BLOCK = 4096


def skimmed_rows(scorer: OnnxScorer, folder: str | Path, *, n: int = 10, datasets: Sequence[str] = ()) -> Rows:
    """Return the rows of a skim with the highest scores, highest first.

    Parameters
    ----------
    scorer : OnnxScorer
    folder : path
        A skim.
    n : int
        So many rows.
    datasets : sequence of str
        All of the skim by default.

    Raises
    ------
    ConfigError, SkimError, UnknownName
        The skim does not hold the model's inputs or these datasets, or no row has a score.
    """
    card = scorer.card
    only_input(card)
    if n < 1:
        raise ConfigError(f"-n is {n}, but must be at least 1")
    skim = model_rows(card, folder, list(datasets) or sorted(skim_files(folder)))
    members = (
        member_of(card, lambda name: spectator(card, skim, name, folder)) if card.members > 1 or card.validity else None
    )
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(skim.x), _BLOCK)]
    score = np.concatenate(
        [np.asarray(scorer(np.asarray(skim.x[b], np.float32), None if members is None else members[b])) for b in blocks]
    )
    order = np.argsort(-np.where(np.isfinite(score), score, -np.inf), kind="stable")
    order = order[np.isfinite(score[order])][:n]
    if not len(order):
        raise SkimError(f"{folder}: none of {len(score)} rows has a score by {card.name}")
    best = skim.select(order)
    jets = best.spectators.get("objectIdx")
    return Rows(
        np.asarray(best.x[:], np.float32),
        None if members is None else members[order],
        tuple(map(event_text, zip(*(best.spectators[name] for name in EVENT_ID), strict=True))),
        tuple(best.dataset.tolist()),
        tuple([None] * len(order) if jets is None or card.level == "event" else [int(j) for j in jets]),
    )
