"""Method: what every way to find a resonance answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from coffea_ad.errors import SkimError, unknown_text
from coffea_ad.nanoaod.columns import EVENT_ID
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
    metrics : dict
        What `fit` found out, for the card.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[Need, ...]] = ("sidebands",)
    reference: ClassVar[str]

    def __init__(self, settings: Settings, window: Window, folder: Path, seed: int = 1) -> None:
        self.settings, self.window, self.folder, self.seed = settings, window, Path(folder), seed
        self.metrics: dict[str, Any] = {}

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
        self.sidebands, self.signal_region = sidebands, signal_region
        self.simulation, self.background, self.signal = simulation, background, signal
        self.masses = self.mass(signal_region.splits("train", "validation"))
        return self.learn()

    @abstractmethod
    def learn(self) -> Scorable:
        """Learn from what `fit` was given."""

    @abstractmethod
    def rows(self, n: int | None, seed: int, splits: tuple[str, ...]) -> Skim:
        """Return rows as the background of the signal region has them, in random order.

        Parameters
        ----------
        n : int, optional
            At most so many; None: all there are, or `oversampling` times the signal region's, where they are generated.
        seed : int
        splits : tuple of str
            Of the rows that they are made of, so that those to learn from are no others' template. Generated rows are
            new ones each time, and train or validate.
        """

    def template(self, n: int, seed: int) -> Skim:
        """Return at most n rows that the background of the signal region would have, which `fit` has not seen.

        Raises
        ------
        SkimError
            There are no rows that they could be made of.
        """
        return self.rows(n, seed, ("test",))

    def sideband_template(self, seed: int) -> Skim | None:  # noqa: ARG002
        """Return rows made as the template is, but for the sidebands, to be compared with their "test" rows; None if there are none."""
        return None

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

    def required(self, name: Need) -> Skim:
        """Return the rows of a role, or refuse to go on without them."""
        skim: Skim | None = getattr(self, name)
        if skim is None or not len(skim.weight):
            raise SkimError(f"the method {self.name} needs {name}: name its datasets")
        return skim

    def inside(self, skim: Skim) -> Skim:
        """Return the rows of the signal region."""
        return skim.select(self.window.in_signal_region(self.mass(skim)))

    def some(self, skim: Skim, n: int | None, seed: int, splits: tuple[str, ...]) -> Skim:
        """Return rows of some splits in random order, at most n."""
        rows = skim.splits(*splits)
        return rows.select(np.random.default_rng(seed).permutation(len(rows.weight))[:n])

    def at(self, rows: Skim, mass: Float64s, x: Float32s | None = None) -> Skim:
        """Return rows with other masses, (n,), and other numbers, (n, columns), if these are given."""
        values = np.array(rows.x[:] if x is None else x, np.float32)
        spectators = dict(rows.spectators)
        if self.window.mass in rows.columns:
            values[:, rows.columns.index(self.window.mass)] = mass
        if self.window.mass in spectators:
            spectators[self.window.mass] = mass.astype(spectators[self.window.mass].dtype)
        out = replace(rows, x=values, spectators=spectators)
        return out.select(np.asarray(np.isfinite(values).all(axis=1)))

    def generated(self, x: Float32s, mass: Float64s, seed: int) -> Skim:
        """Return generated rows, (n, columns), at masses, (n,); three of four train, the others validate."""
        like = self.signal_region
        others = {k: np.zeros(len(x), v.dtype) for k, v in like.spectators.items() if k not in EVENT_ID}
        finite = np.isfinite(x).all(axis=1)
        some = {k: v[finite] for k, v in others.items()}
        rows = like.replaced(x[finite], dataset="template", spectators=some, seed=seed)
        split = np.where(np.random.default_rng(seed).random(len(rows.weight)) < _TRAIN, "train", "validation")
        return self.at(replace(rows, split=split), mass[finite])


_TRAIN = 0.75
