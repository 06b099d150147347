"""Which function, how many parameters, and from where on: decided by the spectrum, and said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from coffea_ad.errors import FitFailed
from coffea_ad.search.families import FAMILIES, design
from coffea_ad.search.fits import BINS_TO_SPARE, Fit, deviance, fit, require_fittable
from coffea_ad.search.minimising import first_guess, fit_many
from coffea_ad.search.ordering import ALPHA, Orders, select_orders
from coffea_ad.search.spectra import Spectrum
from coffea_ad.typing import Float64s

__all__ = ["Background", "fit_background", "goodness", "orders_of", "select_order", "select_range"]

_TOYS = 400  # of the goodness of a fit
_HARDLY = 0.01  # p-value of a fit that is taken where none is better


class Goodness(NamedTuple):
    """How often a true function fits worse.

    Attributes
    ----------
    p_value, error : float
    toys, failed : int
        Pseudo-experiments that were fitted, and that could not be.
    """

    p_value: float
    error: float
    toys: int
    failed: int


@dataclass(frozen=True, repr=False)
class Background:
    """The function that describes a spectrum, and how it was selected.

    Attributes
    ----------
    fit : Fit
    goodness : Goodness
    f_tests : {number of parameters: p-value of one more}
    said : tuple of str
        How the range was selected.
    doubts : tuple of str
        That the function does not describe the spectrum.
    """

    fit: Fit
    goodness: Goodness
    f_tests: dict[int, float]
    said: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def select_order(
    spectrum: Spectrum, family: str, sqrt_s: float, *, orders: tuple[int, int] | None = None, mask: Float64s | None = None,
    alpha: float = ALPHA, exclude: float = np.inf,
) -> tuple[Fit, dict[int, float]]:  # fmt: skip
    """Add parameters until one more does not improve a fit, by `ordering.select_orders`.

    Parameters
    ----------
    spectrum : Spectrum
    family : str
    sqrt_s : float, GeV
    orders : (lowest, highest), optional
        By default 3, or the lowest of the family, to its highest.
    mask : (n,) float64, optional
    alpha : float
    exclude : float
        Local significance from which the window of the largest excess (at most a quarter of the bins) does not count: a signal would
        otherwise be described by parameters of the background.

    Returns
    -------
    fit : Fit
    tests : {n: p-value of n + 1 parameters against n}

    Raises
    ------
    FitFailed
        Not even the lowest order can be fitted.
    """
    low, _ = _orders(family, orders)
    require_fittable(spectrum, low, mask)
    several = orders_of(spectrum, family, sqrt_s, orders=orders, alpha=alpha, exclude=exclude)
    selected = select_orders(spectrum.counts, several, scale=spectrum.scale, mask=mask)
    seen = None if (selected.mask == 1).all() else selected.mask[0]
    tests = {low + k: float(p) for k, p in enumerate(selected.tests[0]) if np.isfinite(p)}
    for order in range(low + int(selected.place[0]), low, -1):
        try:
            return fit(spectrum, family, order, sqrt_s, mask=seen), tests
        except FitFailed:  # more parameters than the spectrum can tell
            continue
    return fit(spectrum, family, low, sqrt_s, mask=seen), tests


def orders_of(
    spectrum: Spectrum, family: str, sqrt_s: float, *, orders: tuple[int, int] | None = None, alpha: float = ALPHA, exclude: float = np.inf,
) -> Orders:  # fmt: skip
    """Return the functions of a family that a spectrum has bins enough for, with parameters to start from.

    Parameters
    ----------
    spectrum, family, sqrt_s, orders, alpha, exclude
        As for `select_order`.
    """
    low, high = _orders(family, orders)
    most = max(min(high, len(spectrum.counts) - BINS_TO_SPARE), low)
    functions = tuple(design(family, order, spectrum.edges, sqrt_s) for order in range(low, most + 1))
    return Orders(functions, tuple(first_guess(spectrum.counts, f) for f in functions), alpha, exclude)


def _orders(family: str, orders: tuple[int, int] | None) -> tuple[int, int]:
    return orders or (max(3, FAMILIES[family].orders[0]), FAMILIES[family].orders[1])


def goodness(fitted: Fit, *, toys: int = _TOYS, seed: int = 1) -> Goodness:
    """Return how often pseudo-experiments of the fitted function have a larger deviance, each fitted like the spectrum.

    Parameters
    ----------
    fitted : Fit
        Without a signal.
    toys, seed : int
    """
    expected, scale, mask = fitted.expected, fitted.spectrum.scale, fitted.mask
    counts = np.random.default_rng([seed, 7]).poisson(expected / scale, (toys, len(expected))) * scale
    again = fit_many(counts, fitted.function, fitted.theta, scale=scale, mask=mask)
    nu = fitted.function.expected(again.theta)
    each = deviance(counts, nu, scale, mask)[again.valid]
    p = (1 + int((each >= fitted.deviance - 1e-9).sum())) / (len(each) + 1)
    return Goodness(p, float(np.sqrt(p * (1 - p) / max(len(each), 1))), len(each), int((~again.valid).sum()))


def select_range(
    spectrum: Spectrum,
    family: str,
    sqrt_s: float,
    *,
    orders: tuple[int, int] | None = None,
    minimum: float = ALPHA,
    exclude: float = np.inf,
    seed: int = 1,
) -> Background:
    """Return the fit of the longest range that the family describes: it begins as low as the goodness of the fit allows.

    Where no range has the asked p-value, the best one above 0.01 is taken, and said.

    The lowest begin is where the spectrum starts to fall, its fullest bin by events per GeV. A range does not begin with a window that is left out as an
    excess.

    Parameters
    ----------
    spectrum : Spectrum
    family : str
    sqrt_s : float, GeV
    orders : (lowest, highest), optional
    minimum : float
        Of the p-value.
    exclude : float
        As for `select_order`.
    seed : int

    Raises
    ------
    FitFailed
        No range that holds half of the events from the fullest bin on is described.
    """
    density = spectrum.counts / spectrum.widths
    first = int(np.argmax(density))
    above = np.cumsum(spectrum.counts[::-1])[::-1]
    order = (orders or (max(3, FAMILIES[family].orders[0]), 0))[0]
    reason, best = f"{int(np.count_nonzero(spectrum.counts))} bins have events", None
    for begin in _begins(first, len(density)):
        if above[begin] < above[first] / 2 and begin > first + 3:
            break
        part = spectrum.between(spectrum.edges[begin], spectrum.edges[-1])
        if (part.counts > 0).sum() < order + 1:
            break
        try:
            background = _described(part, family, sqrt_s, orders, exclude, seed)
        except FitFailed as error:
            reason = str(error).removeprefix(f"spectrum {spectrum.name}: ")
            continue
        if not background.fit.mask[
            0
        ]:  # the spectrum has not begun to fall as the function does, and nothing below tells the background
            reason = f"it begins with an excess at {part.edges[0]:g} GeV"
            continue
        if background.goodness.p_value > minimum:
            at = f"{part.name}: fitted from {part.edges[0]:g} GeV, the lowest begin with a p-value above {minimum:g} ({background.goodness.p_value:.2f})"
            return Background(background.fit, background.goodness, background.f_tests, (at,))
        if best is None or background.goodness.p_value > best.goodness.p_value:
            best = background
            reason = f"the best p-value is {best.goodness.p_value:.2g} from {part.edges[0]:g} GeV"
    if best is not None and best.goodness.p_value > _HARDLY:  # of good spectra some are in the tail everywhere
        doubt = f"{spectrum.name}: no range has a p-value above {minimum:g}; {reason}, and the fit there is taken"
        return Background(best.fit, best.goodness, best.f_tests, (), (doubt,))
    raise FitFailed(
        f"spectrum {spectrum.name}: {family} describes no range of it that holds half of its falling part ({reason})"
    )


def _begins(first: int, n: int) -> Sequence[int]:
    """Return the bins at which a range may begin: each, and further apart the farther they are."""
    out, step = [first], 1.0
    while out[-1] + int(step) < n - 4:
        out.append(out[-1] + int(step))
        step *= 1.2
    return out


def _described(
    spectrum: Spectrum, family: str, sqrt_s: float, orders: tuple[int, int] | None, exclude: float, seed: int
) -> Background:
    best, tests = select_order(spectrum, family, sqrt_s, orders=orders, exclude=exclude)
    return Background(best, goodness(best, seed=seed), tests, ())


def fit_background(
    spectrum: Spectrum, family: str, sqrt_s: float, *, orders: tuple[int, int] | None = None,
    interval: tuple[float, float] | None = None, minimum: float = ALPHA, exclude: float = np.inf, seed: int = 1,
) -> Background:  # fmt: skip
    """Fit the background of a spectrum: in the range that is asked for, or in the longest that is described.

    Parameters
    ----------
    spectrum : Spectrum
    family : str
    sqrt_s : float, GeV
    orders : (lowest, highest), optional
    interval : (low, high), GeV, optional
    minimum : float
        p-value of a range; of one that is asked for a worse one is said only.
    exclude : float
        As for `select_order`.
    seed : int

    Raises
    ------
    FitFailed
    """
    top = float(spectrum.edges[spectrum.edges <= sqrt_s * (1 + 1e-9)][-1]) if spectrum.edges[0] < sqrt_s else sqrt_s
    usable = spectrum.between(float(spectrum.edges[spectrum.edges > 0][0]), top)
    if not usable.counts.sum() > 0:
        raise FitFailed(
            f"spectrum {spectrum.name}: it has no events between {usable.edges[0]:g} and {usable.edges[-1]:g} GeV"
        )
    if interval is None:
        return select_range(usable, family, sqrt_s, orders=orders, minimum=minimum, exclude=exclude, seed=seed)
    background = _described(usable.between(*interval), family, sqrt_s, orders, exclude, seed)
    p = background.goodness.p_value
    said = (
        f"{spectrum.name}: the fit has a p-value of {p:.2g}; {family} does not describe it from {interval[0]:g} GeV on",
    )
    return Background(background.fit, background.goodness, background.f_tests, (), said if p < minimum else ())
