"""Event-level features of few columns: the table of trigger objects, and the dijet of resonance searches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from coffea_ad.errors import unknown_text
from coffea_ad.features.base import Column, Feature, Names, NonNegative, Number, Options, Positive, at_once
from coffea_ad.features.energy_flow import GRAPHS, graph_label
from coffea_ad.features.kitchen_sink import KITCHEN_SINK, kitchen_sink
from coffea_ad.features.object_options import Cuts, ObjectOptions, object_branches
from coffea_ad.features.objects import select_objects
from coffea_ad.features.substructure import Axes, Conventions, substructure
from coffea_ad.kinematics import delta_phi, pair_mass
from coffea_ad.nanoaod.columns import require
from coffea_ad.nanoaod.constituents import constituent_branches
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.typing import Bools, Float32s, Float64s, Ints

__all__ = [
    "DIJET",
    "EVENT_OBJECTS",
    "DijetOptions",
    "EventObjectOptions",
    "dijet_values",
    "jet_shapes",
    "leading_pairs",
]

_SLOTS = (10, 0, 4, 4, 0)  # light and b jets as one
_TABLE = ((3, 1, 2), (2, 5, 3), (0, 9, 4))  # kind, first row, type: electrons, muons, jets; missing momentum is row 0
_COLUMNS = (
    "pt", "eta", "phi", "sin_phi", "cos_phi", "type", "is_met", "is_electron", "is_muon", "is_jet", "mask",
)  # fmt: skip


class EventObjectOptions(ObjectOptions):
    """The trigger-like selection — cuts on pT and η only, nothing cleaned — and what a row holds.

    Attributes
    ----------
    columns : tuple of str
        Of pt, eta, phi, sin_phi, cos_phi, type (1 MET, 2 electron, 3 muon, 4 jet), is_…, mask.
    scaling : "talk", "common" or "none"
        φ/π and η over the acceptance of its kind; φ/π and η/4 for all, as the authors' code does; or neither. pT stays.
    leading_lepton_pt_min : float, GeV
        Events without an electron or muon above are undefined; 0: all events count.
    """

    jet_pt_min: NonNegative = 15.0
    jet_eta_max: Annotated[float, Field(strict=True, gt=0, le=10)] = 4.0
    muon_pt_min: NonNegative = 3.0
    muon_eta_max: Annotated[float, Field(strict=True, gt=0, le=10)] = 2.1
    electron_pt_min: NonNegative = 3.0
    electron_eta_max: Annotated[float, Field(strict=True, gt=0, le=10)] = 3.0
    muon_cuts: Cuts = ()
    electron_cuts: Cuts = ()
    cleaning: NonNegative = 0.0
    met_min: NonNegative = 0.0
    columns: Annotated[Names, Field(description=f"of {', '.join(_COLUMNS)}")] = ("pt", "eta", "phi", "type")
    scaling: Literal["talk", "common", "none"] = "talk"
    leading_lepton_pt_min: NonNegative = 23.0

    @field_validator("columns")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in _COLUMNS:
                raise ValueError(unknown_text("column", name, _COLUMNS))
        if not names or len(set(names)) != len(names):
            raise ValueError("name each column once")
        return names


def _event_objects(objects: Objects, options: EventObjectOptions) -> Float32s:
    selected = select_objects(objects, options, _SLOTS)
    n, rows = len(objects), 1 + 4 + 4 + 10
    pt, eta, phi, kind = (np.zeros((n, rows)) for _ in range(4))
    pt[:, 0], phi[:, 0], kind[:, 0] = selected.met, np.where(selected.met > 0, selected.met_phi, 0.0), selected.met > 0
    acceptance = np.ones(rows)
    for which, first, number in _TABLE:
        of_kind = selected.kind == which
        place = selected.event[of_kind], first + selected.rank[of_kind]
        pt[place], eta[place], phi[place], kind[place] = (
            selected.pt[of_kind], selected.eta[of_kind], selected.phi[of_kind], number,
        )  # fmt: skip
        name = {2: "electron", 3: "muon", 4: "jet"}[number]
        acceptance[first : first + (10 if number == 4 else 4)] = getattr(options, f"{name}_eta_max")
    filled = kind > 0
    angle = np.where(np.isfinite(phi), phi, 0.0)  # an event with an angle that is not finite is undefined below
    scale = {"talk": acceptance, "common": np.full(rows, 4.0), "none": np.ones(rows)}[options.scaling]
    of = {
        "pt": pt,
        "eta": eta / scale,
        "phi": phi if options.scaling == "none" else phi / np.pi,
        # An object at φ = 0 has a cosine of 1; only an empty slot has none.
        "sin_phi": np.where(filled, np.sin(angle), 0.0),
        "cos_phi": np.where(filled, np.cos(angle), 0.0),
        "type": kind,
        "is_met": kind == 1,
        "is_electron": kind == 2,
        "is_muon": kind == 3,
        "is_jet": kind == 4,
        "mask": filled,
    }
    table = np.stack([of[name].astype(np.float32) for name in options.columns], axis=-1)
    leading_lepton_pt = selected.leading_pt("electron", "muon")
    table[~selected.valid | (leading_lepton_pt < options.leading_lepton_pt_min)] = np.nan
    return table


def _event_object_columns(options: EventObjectOptions) -> tuple[Column, ...]:
    scaled = {} if options.scaling != "none" else {"phi": "rad"}
    return tuple(Column(name, {"pt": "GeV", **scaled}.get(name, "")) for name in options.columns)


EVENT_OBJECTS = Feature(
    name="event_objects",
    version=1,
    level="event",
    columns=_event_object_columns,
    reads=lambda _, options: (object_branches(options, _SLOTS),),
    rows=at_once(_event_objects),
    options=EventObjectOptions,
    shape=lambda options: (19, len(options.columns)),
    sparse=True,
    convention=(
        "19 rows: missing momentum, 4 electrons, 4 muons, 10 jets, each by falling pT; type 1 MET, 2 electron, 3 muon, 4 jet; "
        "η over the acceptance of its kind and φ/π (scaling); empty rows are 0; events without a lepton above "
        "leading_lepton_pt_min are undefined."
    ),
    reference="arXiv:2301.04660, arXiv:2107.02157",
)

_SETS: dict[str, tuple[tuple[float, tuple[str, ...]], ...]] = {
    "baseline": ((1.0, ("tau21",)),),
    "extended1": ((1.0, ("tau21", "tau32", "tau43", "tau54")),),
    "extended2": ((1.0, tuple(f"tau{n}" for n in range(1, 6))),),
    "extended3": tuple((beta, tuple(f"tau{n}" for n in range(1, 10))) for beta in (0.5, 1.0, 2.0)),
}


class DijetOptions(Options):
    """Which jets, which inputs.

    Attributes
    ----------
    jets : str
        Collection of fat jets; the two of highest pT, ordered by mass.
    jet_pt_min, jet_eta_max : float, GeV
        Events without two such jets are undefined.
    inputs : "baseline", "extended1", "extended2", "extended3" or "kitchen_sink"
        Of the resonance searches: m_J1, Δm_J and τ21 of both; or ratios to τ54; or τ1 … τ5; or τ1 … τ9 at β = ½, 1, 2; or
        these with energy flow polynomials of up to four edges, masses of the constituents' sum before and after soft drop,
        number of constituents and pTD, 51 of each jet.
    delta_r : bool
        ΔR_JJ as one more input; it is correlated with m_JJ and makes background look like a bump.
    source : "constituents" or "stored"
        N-subjettiness computed here or NanoAOD's own, which goes up to τ4.
    axes, R0 : str, float
        Of N-subjettiness that is computed, as in `Conventions`.
    mass : "mass" or "msoftdrop"
        Of the jets.
    epsilon : float
        τ21 = τ2 / (τ1 + ε).
    delta_eta_max : float, optional
        Events whose two jets are further apart in η are undefined.
    shift : float
        m_J1 and Δm_J plus this part of m_JJ: a stress test of methods that must not sculpt.
    """

    jets: str = "FatJet"
    jet_pt_min: NonNegative = 200.0
    jet_eta_max: NonNegative = 2.5
    inputs: Literal["baseline", "extended1", "extended2", "extended3", "kitchen_sink"] = "baseline"
    delta_r: Annotated[bool, Field(strict=True)] = False
    source: Literal["constituents", "stored"] = "constituents"
    axes: Axes = "OnePass_KT"
    R0: Positive = 0.8
    mass: Literal["mass", "msoftdrop"] = "mass"
    epsilon: NonNegative = 1e-5
    delta_eta_max: NonNegative | None = None
    shift: Number = 0.0

    @model_validator(mode="after")
    def _stored(self) -> DijetOptions:
        if self.source == "stored" and self.inputs != "baseline":
            raise ValueError(f"inputs={self.inputs} needs source=constituents: NanoAOD stores no tau5")
        return self


def _shape_columns(options: DijetOptions) -> list[Column]:
    """Return the columns of both jets between the masses and ΔR_JJ."""
    if options.inputs == "kitchen_sink":
        return [
            Column(
                f"{name}_j{jet}",
                "GeV" if name in ("mass", "msoftdrop") else "",
                f"EFP {graph_label(name)} of $J_{jet}$" if name in GRAPHS else "",
            )
            for jet in (1, 2)
            for name in KITCHEN_SINK
        ]
    return [
        Column(f"{name}_j{jet}" if len(_SETS[options.inputs]) == 1 else f"{name}_beta{beta:g}_j{jet}")
        for jet in (1, 2)
        for beta, group in _SETS[options.inputs]
        for name in group
    ]


def _dijet_columns(options: DijetOptions) -> tuple[Column, ...]:
    masses = (
        Column("mjj", "GeV", "$m_{JJ}$"),
        Column("mj1", "GeV", "$m_{J1}$"),
        Column("delta_mj", "GeV", r"$\Delta m_J$"),
    )
    return (*masses, *_shape_columns(options), *([Column("delta_r")] if options.delta_r else []))


def _dijet_reads(_: str, options: DijetOptions) -> tuple[tuple[str, ...], ...]:
    fields = dict.fromkeys(("pt", "eta", "phi", "mass", options.mass))
    jet_branches = tuple(f"{options.jets}_{f}" for f in fields)
    if options.source == "stored":
        return ((*jet_branches, f"{options.jets}_tau1", f"{options.jets}_tau2"),)
    return tuple((*jet_branches, *branches) for branches in constituent_branches(options.jets))


def jet_shapes(
    offsets: Ints, pt: Float64s, eta: Float64s, phi: Float64s, mass: Float64s, options: DijetOptions
) -> Float64s:
    """Compute the substructure that the dijet asks for from the constituents of many jets, (n_jets, inputs)."""
    if options.inputs == "kitchen_sink":
        return kitchen_sink(offsets, pt, eta, phi, mass, Conventions(axes=options.axes, R0=options.R0))
    columns = []
    for beta, group in _SETS[options.inputs]:
        taus = sorted({int(d) for name in group for d in name.removeprefix("tau")})
        conventions = Conventions(axes=options.axes, R0=options.R0, tau_beta=beta)
        values = substructure([f"tau{n}" for n in taus], offsets, pt, eta, phi, mass, conventions=conventions)
        tau = dict(zip(taus, values.T, strict=True))
        for name in group:
            wanted = [tau[int(d)] for d in name.removeprefix("tau")]
            columns.append(wanted[0] / (wanted[1] + options.epsilon) if len(wanted) > 1 else wanted[0])
    return np.stack(columns, axis=1)


def leading_pairs(counts: Ints, pt: Float64s, eta: Float64s, options: DijetOptions) -> tuple[Bools, Ints]:
    """Return which events have two jets that pass, and the places of those, (events with two, 2), by falling pT.

    counts : (n_events,), how many of the flat jets each event has.
    """
    event = np.repeat(np.arange(len(counts)), counts)
    good = np.flatnonzero((pt > options.jet_pt_min) & (np.abs(eta) < options.jet_eta_max))
    good = good[np.lexsort((-pt[good], event[good]))]
    number = np.bincount(event[good], minlength=len(counts))
    two = number >= 2
    two[event[~np.isfinite(pt + eta)]] = False  # whether that jet is one of the two cannot be said
    first = (np.cumsum(number) - number)[two]
    place = good[np.stack([first, first + 1], axis=1)]
    if options.delta_eta_max is not None:
        near = np.abs(eta[place[:, 0]] - eta[place[:, 1]]) < options.delta_eta_max
        two[two], place = near, place[near]
    return two, place


def dijet_values(
    pt: Float64s,
    eta: Float64s,
    phi: Float64s,
    mass: Float64s,
    jet_mass: Float64s,
    shapes: Float64s,
    options: DijetOptions,
) -> Float64s:
    """Compute the columns of `dijet` from two jets of each event, (n, columns), GeV.

    pt, eta, phi, mass, jet_mass : (n, 2); `jet_mass` is what jets are ordered by. shapes : (n, 2, inputs).
    """
    mjj = pair_mass(pt, eta, phi, mass)
    jet_mass = np.maximum(jet_mass, 0)
    order = np.argsort(jet_mass, axis=1, kind="stable")
    jet_mass = np.take_along_axis(jet_mass, order, axis=1)
    shapes = np.take_along_axis(shapes, order[:, :, None], axis=1)
    shift = options.shift * mjj
    columns: list[Any] = [
        mjj,
        jet_mass[:, 0] + shift,
        jet_mass[:, 1] - jet_mass[:, 0] + shift,
        *shapes.reshape(len(jet_mass), 2 * shapes.shape[2]).T,
    ]
    if options.delta_r:
        columns.append(np.hypot(eta[:, 0] - eta[:, 1], delta_phi(phi[:, 0], phi[:, 1])))
    return np.stack(columns, axis=1)


def _shapes(jets: Objects, place: Ints, options: DijetOptions) -> Float64s:
    """Return the substructure of some of the jets, (len(place), inputs)."""
    if options.source == "stored":
        over, under = (jets.field(f).astype(np.float64)[place] for f in ("tau2", "tau1"))
        return np.asarray(over / (under + options.epsilon))[:, None]
    c = jets.at(place).constituents
    return jet_shapes(c.offsets, c.pt, c.eta, c.phi, c.mass, options)


def _dijet(objects: Objects, options: DijetOptions) -> Float32s:
    require(objects.array, options.jets, dict.fromkeys(("pt", "eta", "phi", "mass", options.mass)))
    jets = Objects.of(objects.array, options.jets)
    two, place = leading_pairs(
        jets.counts, jets.field("pt").astype(np.float64), jets.field("eta").astype(np.float64), options
    )
    pt, eta, phi, mass, jet_mass = (
        jets.field(f).astype(np.float64)[place] for f in ("pt", "eta", "phi", "mass", options.mass)
    )
    shapes = _shapes(jets, place.ravel(), options)
    shapes = shapes.reshape(len(place), 2, shapes.shape[1])
    out = np.full((len(two), len(_dijet_columns(options))), np.nan, np.float32)
    out[two] = dijet_values(pt, eta, phi, mass, jet_mass, shapes, options)
    return out


DIJET = Feature(
    name="dijet",
    version=1,
    level="event",
    columns=_dijet_columns,
    reads=_dijet_reads,
    rows=at_once(_dijet),
    options=DijetOptions,
    convention=(
        "of the two jets of highest pT, J1 has the smaller mass: m_JJ, m_J1, Δm_J = m_J2 − m_J1, then N-subjettiness of J1 and "
        "of J2 (ratios: τ_N / (τ_N−1 + ε)), in the kitchen sink also energy flow polynomials (θ in (y, φ), β = 1, sums over all "
        "constituents for each vertex), mass, soft-drop mass, multiplicity and pTD; then ΔR_JJ in (η, φ); GeV, where the papers have TeV; events without two jets are "
        "undefined."
    ),
    reference="arXiv:2101.08320, arXiv:2109.00546, arXiv:2309.13111, arXiv:1712.07124, arXiv:2604.20965",
)
