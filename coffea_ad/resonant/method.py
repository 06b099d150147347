"""Method: what every way to find a resonance answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from coffea_ad.errors import SkimError, unknown_text
from coffea_ad.nn.scorable import Scorable
from coffea_ad.resonant.settings import Settings
from coffea_ad.resonant.windows import Window, mass_of
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s, Float64s

__all__ = ["Method", "Need"]

Need = Literal["sidebands", "simulation", "background", "signal"]


class Method(ABC):
    """A way to score events of a signal region without knowing the signal.

    `fit` learns from the "train" and "validation" rows of the skims; `template` gives rows that the background of
    the signal region would have, which calibrate the score.

    Parameters
    ----------
    settings : Settings
    window : Window
    folder : path
        For checkpoints of what is trained.
    seed : int

    Attributes
    ----------
    name : str
        As in `METHODS` and on the card.
    needs : tuple of str
        "sidebands", "simulation" of the background, pure "background" of the signal region, or pure "signal" (references only).
    reference : str
    sampled : bool
        Whether the template is generated, so that any number of rows can be had; else its rows are those it is made of.
    metrics : dict
        What `fit` found out, for the card.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[Need, ...]] = ("sidebands",)
    reference: ClassVar[str]
    sampled: ClassVar[bool] = True

    def __init__(self, settings: Settings, window: Window, folder: Path, seed: int = 1) -> None:
        self.settings, self.window, self.folder, self.seed = settings, window, Path(folder), seed
        self.metrics: dict[str, Any] = {}

    @abstractmethod
    def fit(
        self, sidebands: Skim, signal_region: Skim, *, simulation: Skim | None = None, background: Skim | None = None,
        signal: Skim | None = None,
    ) -> Scorable:  # fmt: skip
        """Learn from data in the sidebands and in the signal region, and return what scores rows.

        Parameters
        ----------
        sidebands, signal_region : Skim
            With the splits of a fold: "test" rows are not looked at.
        simulation : Skim, optional
            Of the background, over sidebands and signal region.
        background, signal : Skim, optional
            Pure ones in the signal region, for references.

        Raises
        ------
        SkimError
            Something that the method needs is missing, or too small.
        """

    @abstractmethod
    def template(self, n: int, seed: int) -> Skim:
        """Return n rows that the background of the signal region would have, which `fit` has not seen.

        Raises
        ------
        SkimError
            There are fewer rows than that to choose from, or `fit` was not called.
        """

    def inputs(self, data: Skim) -> tuple[str, ...]:
        """Return the columns that are told apart: those of the settings, or all but the mass."""
        columns = data.columns
        for name in self.settings.inputs:
            if name not in columns:
                raise SkimError("inputs: " + unknown_text("column", name, columns))
        return self.settings.inputs or tuple(c for c in columns if c != self.window.mass)

    def mass(self, data: Skim) -> Float64s:
        """Return the resonant variable of rows, (n,)."""
        return mass_of(data, self.window.mass)

    def require(self, **skims: Skim | None) -> None:
        """Refuse to go on without what the method needs."""
        for name, skim in skims.items():
            if skim is None or not len(skim.weight):
                raise SkimError(f"the method {self.name} needs {name}: name its datasets")

    def rows_at(self, like: Skim, x: Float32s, mass: Float64s, dataset: str, seed: int) -> Skim:
        """Return generated rows, (n, columns), with their masses, (n,), in the column of the mass."""
        values = np.array(x, np.float32)
        columns = like.columns
        if self.window.mass in columns:
            values[:, columns.index(self.window.mass)] = mass
        spectators = {name: np.zeros(len(values), v.dtype) for name, v in like.spectators.items() if name not in _IDS}
        if self.window.mass in like.spectators:
            spectators[self.window.mass] = mass.astype(like.spectators[self.window.mass].dtype)
        finite = np.isfinite(values).all(axis=1)
        return like.replaced(
            values[finite], dataset=dataset, spectators={k: v[finite] for k, v in spectators.items()}, seed=seed
        )


_IDS = ("run", "luminosityBlock", "event")
