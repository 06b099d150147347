"""Background reweighted to the signal's spectrum of a spectator such as pT."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.typing import Float64s

__all__ = ["Matching", "match_spectrum"]


class Matching:
    """Bins of a spectator in which background is brought to the signal's content, for any weights.

    Parameters
    ----------
    background, signal : (n,)
        The spectator.
    bins : int
        Each holds as many signal rows as the others.

    Examples
    --------
    >>> matching = Matching(np.array([1.0, 1.0, 3.0]), np.array([1.0, 3.0]), bins=2)
    >>> matching.weights(np.ones(3), np.ones(2))
    (array([0.5, 0.5, 1. ]), array([1., 1.]))
    """

    def __init__(self, background: npt.NDArray[Any], signal: npt.NDArray[Any], bins: int = 20) -> None:
        edges = np.quantile(np.asarray(signal, np.float64), np.linspace(0, 1, bins + 1))
        edges[-1] = np.nextafter(edges[-1], np.inf)
        self.bins = bins
        slot = np.digitize(background, edges) - 1
        self.inside = (slot >= 0) & (slot < bins)
        self.background = np.clip(slot, 0, bins - 1)
        self.signal = np.clip(np.digitize(signal, edges) - 1, 0, bins - 1)

    def weights(self, w_background: Float64s, w_signal: Float64s) -> tuple[Float64s, Float64s]:
        """Return the weights that give both samples the signal's spectrum; 0 where one of them has nothing.

        Negative weights are subtracted: a bin in which they leave nothing is empty.
        """
        target = np.bincount(self.signal, w_signal, self.bins)
        content = np.bincount(self.background, np.where(self.inside, w_background, 0.0), self.bins)
        covered = (content > 0) & (target > 0)
        ratio = np.divide(target, content, out=np.zeros(self.bins), where=covered)
        matched = np.where(self.inside, w_background * ratio[self.background], 0.0)
        return matched, np.where(covered[self.signal], w_signal, 0.0)


def match_spectrum(
    background: npt.NDArray[Any], signal: npt.NDArray[Any], w_background: Float64s, w_signal: Float64s, bins: int = 20
) -> tuple[Float64s, Float64s]:
    """Return weights of background and signal that give both the signal's spectrum of a spectator such as pT.

    pT alone separates most signals from QCD: a score is worth what it does beyond that. Where there is no background,
    the signal is taken out too.

    Parameters
    ----------
    background, signal : (n,)
        The spectator.
    w_background, w_signal : (n,)
    bins : int
        Each holds as many signal rows as the others.

    Examples
    --------
    >>> pt = np.array([1.0, 1.0, 3.0])
    >>> match_spectrum(pt, np.array([1.0, 3.0]), np.ones(3), np.ones(2), bins=2)[0]
    array([0.5, 0.5, 1. ])
    """
    return Matching(background, signal, bins).weights(w_background, w_signal)
