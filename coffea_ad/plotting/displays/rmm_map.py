"""The rapidity-mass matrix of one event, without the slots that are empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.features.object_options import KINDS, parsed_cut
from coffea_ad.features.objects import select_objects
from coffea_ad.features.rmm import RMMOptions, at_energy, matrix, rmm_rows
from coffea_ad.nanoaod.columns import where
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.plotting.displays.contents import readable

__all__ = ["RMMContent", "draw_rmm", "rmm_of", "usual_options"]

_SYMBOLS = dict(zip(KINDS, ("j", "b", "μ", "e", "γ"), strict=True))
_WRITTEN = 12  # slots up to which the numbers are written into the cells
_LEAST = 1e-3
_CELLS = (
    "diagonal: MET and the first of a kind $E_T$ / √s, others their asymmetry of $E_T$\n"
    "above it: masses / √s, with MET $m_T$ / √s\n"
    "below it: C (cosh(Δy / 2) − 1), below MET C (cosh y − 1)"
)


@dataclass(frozen=True)
class RMMContent:
    """The matrix of one event.

    Attributes
    ----------
    slots : tuple of str
        MET, then the objects of the event, such as "j1", "b1", "μ1".
    values : (n, n) float32
        Their cells, as `coffea_ad.features.rmm` has them.
    size : int
        Of the whole matrix.
    sqrt_s : float, GeV
    """

    slots: tuple[str, ...]
    values: npt.NDArray[np.float32]
    size: int
    sqrt_s: float


def usual_options(events: Any) -> RMMOptions:
    """Return the options of the whole "ATLAS" matrix, masses included, with what a file has: its missing momentum, identification, photons."""
    have = {name: events.layout[name].fields for name in ("Electron", "Photon") if name in ak.fields(events)}
    met = next((name for name in ("PuppiMET", "PFMET", "MET") if name in ak.fields(events)), "PuppiMET")
    electron = next(
        (c for c in ("mvaIso_WP90", "mvaFall17V2Iso_WP90", "cutBased>=3") if parsed_cut(c)[0] in have.get("Electron", ())), "mvaIso_WP90"
    )  # fmt: skip
    slots = (10, 10, 5, 5, 5 if "Photon" in have else 0)
    return RMMOptions.model_validate({"slots": slots, "drop_masses": False, "met": met, "electron_cuts": (electron,)})


def rmm_of(events: Any, options: RMMOptions | None = None) -> RMMContent:
    """Compute the matrix of an event.

    Parameters
    ----------
    events : (1,) NanoEvents
    options : RMMOptions, optional
        Such as a model has them; by default `usual_options`.

    Raises
    ------
    MissingBranch
    ConfigError
        The campaign, which decides on b jets and √s, is not known, or a number of the event is not finite.
    BadFile
        A branch cannot be read.

    Examples
    --------
    >>> from coffea_ad.event_lists.opened import Place, open_event
    >>> content = rmm_of(open_event(Place(str(svj_file), 7)))
    >>> content.slots, content.values.shape
    (('MET', 'j1', 'j2', 'j3', 'b1', 'b2'), (6, 6))
    """
    with readable(events):
        options = at_energy(Objects.events(events), options or usual_options(events))
        selected = select_objects(Objects.events(events), options, options.shape)
        full = matrix(rmm_rows(selected, 0, 1, options), options)[0]
    if not np.isfinite(full).all():
        raise ConfigError(
            f"{where(events)}a number of this event is not finite, and its rapidity-mass matrix is undefined"
        )
    first = np.r_[1, 1 + np.cumsum(options.shape)]
    rows, slots = [0], ["MET"]
    for k, kind in enumerate(KINDS):
        count = int(selected.n(kind)[0])
        rows += range(first[k], first[k] + count)
        slots += [f"{_SYMBOLS[kind]}{i + 1}" for i in range(count)]
    return RMMContent(tuple(slots), full[np.ix_(rows, rows)], len(full), float(options.sqrt_s or 0))


def draw_rmm(ax: Any, content: RMMContent) -> None:
    """Draw the cells on a logarithmic scale; cells of 0 are white."""
    from matplotlib.colors import LogNorm

    values, n = content.values, len(content.slots)
    shown = np.ma.masked_less_equal(values, 0)
    mesh = ax.imshow(shown, norm=LogNorm(_LEAST, max(float(values.max()), 1.0)), cmap="cividis", interpolation="none")
    figure = ax.get_figure()
    figure.colorbar(mesh, ax=ax, extend="min", label=f"cell (√s = {content.sqrt_s / 1000:g} TeV)", shrink=0.85)
    if n <= _WRITTEN:
        for (i, j), value in np.ndenumerate(values):
            if value > 0:
                dark = mesh.norm(max(value, _LEAST)) < 0.55
                ax.text(
                    j,
                    i,
                    f"{value:.2g}",
                    ha="center",
                    va="center",
                    fontsize=9 if n > 8 else 11,
                    color="white" if dark else "black",
                )
    kinds = [slot.rstrip("0123456789") for slot in content.slots]
    for i in range(1, n):
        if kinds[i] != kinds[i - 1]:
            ax.axhline(i - 0.5, color="black", linewidth=1.5)
            ax.axvline(i - 0.5, color="black", linewidth=1.5)
    ax.set_xticks(range(n), content.slots, fontsize=12 if n <= 16 else 9)
    ax.set_yticks(range(n), content.slots, fontsize=12 if n <= 16 else 9)
    ax.tick_params(which="both", length=0, top=False, right=False, labeltop=True, labelbottom=False)
    ax.minorticks_off()
    ax.set_xlabel(_CELLS, loc="left", fontsize=12)
