"""Which member of a model scores a row: that of its window, and of these the one that never saw the row's event."""

from __future__ import annotations

import numpy as np

from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.scoring.card import ModelCard
from coffea_ad.scoring.domains import Column
from coffea_ad.typing import Ints

__all__ = ["join", "member_of"]


def member_of(card: ModelCard, column: Column) -> Ints | None:
    """Return the member that scores each row.

    window · k + fold, with k folds: the window from the spectators (0 without windows), the fold from a hash of run,
    luminosity block and event (0 without folds).

    Parameters
    ----------
    card : ModelCard
    column : callable
        Gives a column by its name, (n,): spectators, and `run`, `luminosityBlock` and `event` where there are folds.

    Returns
    -------
    (n,) int64, or None
        −1 for a row without a score: outside of the card's domain, or of all its windows, or with an undefined spectator.
        None if the model has one member that scores all rows.

    Examples
    --------
    >>> card = ModelCard.model_validate({
    ...     "name": "toy", "method": "AE", "domain": [{"spectator": "mjj", "low": 3300, "high": 3700}],
    ...     "inputs": [{"features": [{"name": "f", "version": 1, "columns": [{"name": "x"}]}]}],
    ... })
    >>> member_of(card, {"mjj": np.array([3000.0, 3500.0])}.__getitem__)
    array([-1,  0])
    """
    window = card.window_of(column)
    folds = None
    if card.folds is not None:
        folds = card.folds.of({name: np.asarray(column(name)) for name in EVENT_ID})
    return join(card, window, folds)


def join(card: ModelCard, window: Ints | None, fold: Ints | None) -> Ints | None:
    """Return the member of rows of which window and fold are known; a part that the card has not is None."""
    if window is None or fold is None:
        return window if fold is None else fold
    assert card.folds is not None
    return np.where(window < 0, -1, window * card.folds.k + fold)
