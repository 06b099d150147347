"""What readers of public benchmark files give: blocks of events with their datasets, weights and features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import SkimError
from coffea_ad.features.spec import FeatureConfig
from coffea_ad.typing import Float64s

__all__ = ["Block", "Reader", "labelled"]


@dataclass(frozen=True)
class Block:
    """Some events of a file, in its order.

    Attributes
    ----------
    dataset : (n,) str
        Where each event belongs; "" for the dataset that is named after the file.
    weight : (n,) float64
    columns : {name: array}
        Columns of a skim, as `coffea_ad.skims.writing.feature_columns` makes them.
    """

    dataset: npt.NDArray[np.str_]
    weight: Float64s
    columns: Mapping[str, Any]


class Reader(Protocol):
    """Reads a file of one format.

    `address` is how the file is called in messages, `stop` how many events are read at most.
    """

    def __call__(self, path: Path, address: str, config: FeatureConfig, stop: int | None) -> Iterator[Block]:
        """Yield its blocks."""


def labelled(address: str, label: npt.NDArray[Any] | None, n: int) -> npt.NDArray[np.str_]:
    """Return `background` for label 0 and `signal` for 1, (n,); without labels "".

    Raises
    ------
    SkimError
        A label is something else.
    """
    if label is None:
        return np.full(n, "", np.str_)
    wrong = label[(label != 0) & (label != 1)]
    if len(wrong) > 0:
        raise SkimError(f"{address}: its labels must be 0 for background or 1 for signal, but one is {wrong[0]:g}")
    return np.where(label == 1, "signal", "background")
