"""Views: what an encoder is shown of a set, by augmentations with names."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.nn.self_supervised import event_augmentations, jet_augmentations
from coffea_ad.nn.self_supervised.augmentations import Augmentation, chain, one_of

__all__ = ["Views"]

_LEVELS = {
    ("pt", "deta", "dphi"): ("jets", jet_augmentations.AUGMENTATIONS),
    ("pt", "eta", "phi", "type"): ("events", event_augmentations.AUGMENTATIONS),
}


class Views:
    """Positive views, which must not change a representation, and anomalous ones, which must.

    Parameters
    ----------
    columns : sequence of str
        What a slot holds: pt, deta, dphi first for the constituents of a jet; pt, eta, phi, type for the objects of an event.
    positive : sequence of str
        Augmentations that are applied one after another.
    anomalous : sequence of str
        Augmentations one of which is drawn for every row, all with the same probability; then come the positive ones.
    options : {augmentation: {keyword: value}}

    Raises
    ------
    ConfigError
        The columns are in another order, an augmentation is not one of jets or of events, or has no such option.

    Examples
    --------
    >>> views = Views(["pt", "deta", "dphi"], ["rotation"], ["drop"], {"drop": {"probability": 0.5}})
    >>> views.anomalous(torch.ones(2, 9, 3), torch.Generator().manual_seed(1)).shape
    torch.Size([2, 9, 3])
    """

    def __init__(
        self, columns: Sequence[str], positive: Sequence[str], anomalous: Sequence[str], options: Mapping[str, Any]
    ) -> None:
        level, table = next((v for k, v in _LEVELS.items() if tuple(columns[: len(k)]) == k), ("", {}))
        if not level:
            known = " or ".join(", ".join(first) for first in _LEVELS)
            raise ConfigError(f"augmentations need the columns {known} first, but they are {', '.join(columns)}")
        unused = sorted(set(options) - {*positive, *anomalous})
        if unused:
            raise ConfigError(f"there are options of {', '.join(unused)}, which is no augmentation of this training")
        make = functools.partial(_augmentation, level, table, options)
        self._positive = chain(*(make(name) for name in positive))
        self._anomalous = one_of([make(name) for name in anomalous]) if anomalous else None

    def positive(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return another view of rows, (n, slots, columns), occupied slots first where an augmentation sorts them."""
        view: Tensor = self._positive(x, x[:, :, 0] > 0, generator)[0]
        return view

    def anomalous(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return an anomalous view of rows, (n, slots, columns)."""
        assert self._anomalous is not None
        view: Tensor = self._positive(*self._anomalous(x, x[:, :, 0] > 0, generator), generator)[0]
        return view


def _augmentation(level: str, table: Mapping[str, Augmentation], options: Mapping[str, Any], name: str) -> Augmentation:
    if name not in table:
        raise ConfigError(unknown_text(f"augmentation of {level}", name, table))
    known = list(inspect.signature(table[name]).parameters)[3:]
    for key in options.get(name, {}):
        if key not in known:
            raise ConfigError(f"{name}: " + unknown_text("option", key, known))
    return functools.partial(table[name], **options.get(name, {}))
