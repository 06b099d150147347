"""From PF-like candidates to NanoAOD objects: jets, subjets, leptons, photons, taus, MET, b-tags, triggers."""

from __future__ import annotations

import math
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
from numba import njit

from coffea_ad.features.grooming import subjets as soft_drop_subjets
from coffea_ad.features.substructure import substructure
from coffea_ad.kinematics import delta_phi
from coffea_ad.simulation.detector import Candidates
from coffea_ad.typing import Bools, Float64s, Ints

__all__ = ["Table", "b_tag_score", "fat_jets", "gen_particles", "jets", "leptons", "photons", "taus", "triggers"]

Table = dict[str, npt.NDArray[Any]]
"""Columns of a flat collection, "event" among them."""


def _offsets(event: Ints, n_events: int) -> Ints:
    return np.concatenate([[0], np.cumsum(np.bincount(event, minlength=n_events))])


def _cylindrical(
    px: Float64s, py: Float64s, pz: Float64s, e: Float64s
) -> tuple[Float64s, Float64s, Float64s, Float64s]:
    pt = np.hypot(px, py)
    eta = np.arcsinh(pz / np.maximum(pt, 1e-12))
    return pt, eta, np.arctan2(py, px), np.sqrt(np.maximum(0, (e + pz) * (e - pz) - pt * pt))


def _cluster(c: Candidates, n_events: int, radius: float, pt_min: float) -> tuple[Table, Ints]:
    """anti-kT jets, ordered by event and pT, and for every candidate the row of its jet or −1."""
    import fastjet

    px, py, pz = c.pt * np.cos(c.phi), c.pt * np.sin(c.phi), c.pt * np.sinh(c.eta)
    e = np.sqrt(px**2 + py**2 + pz**2 + c.mass**2)
    counts = np.bincount(c.event, minlength=n_events)
    filled = np.flatnonzero(counts)
    p4 = ak.zip({"px": px, "py": py, "pz": pz, "E": e}, with_name="Momentum4D")
    sequence = fastjet.ClusterSequence(
        ak.unflatten(p4, counts[filled]), fastjet.JetDefinition(fastjet.antikt_algorithm, radius)
    )
    jets = sequence.inclusive_jets(pt_min)
    members = sequence.constituent_index(pt_min)
    n_jets = ak.to_numpy(ak.num(jets))
    flat = ak.flatten(jets)
    pt, eta, phi, mass = _cylindrical(*(ak.to_numpy(flat[k]).astype(np.float64) for k in ("px", "py", "pz", "E")))
    event = np.repeat(filled, n_jets)
    order = np.lexsort((-pt, event))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))

    owner = np.full(len(c), -1, np.int64)
    first = _offsets(c.event, n_events)[:-1]
    sizes = ak.to_numpy(ak.flatten(ak.num(members, axis=2)))
    local = ak.to_numpy(ak.flatten(members, axis=None)).astype(np.int64)
    jet = np.repeat(np.arange(len(sizes)), sizes)
    owner[local + first[event][jet]] = rank[jet]
    table = {"event": event, "pt": pt, "eta": eta, "phi": phi, "mass": mass}
    return {k: v[order] for k, v in table.items()}, owner


def _delta_r(eta1: Float64s, phi1: Float64s, eta2: Float64s, phi2: Float64s) -> Float64s:
    return np.asarray(np.hypot(eta1 - eta2, delta_phi(phi1, phi2)))


def _flavour(jet: Table, hadrons: Table, n_events: int, radius: float) -> Ints:
    """5 or 4 if a B or D hadron lies within the jet, else 0."""
    out = np.zeros(len(jet["pt"]), np.int64)
    first = _offsets(hadrons["event"], n_events)
    counts = np.diff(first)[jet["event"]]
    pair_jet = np.repeat(np.arange(len(out)), counts)
    within = np.arange(len(pair_jet)) - np.repeat(np.cumsum(counts) - counts, counts)
    pair_hadron = first[jet["event"]][pair_jet] + within
    near = (
        _delta_r(jet["eta"][pair_jet], jet["phi"][pair_jet], hadrons["eta"][pair_hadron], hadrons["phi"][pair_hadron])
        < radius
    )
    np.maximum.at(out, pair_jet[near], hadrons["flavour"][pair_hadron[near]])
    return out


def b_tag_score(flavour: Ints, rng: np.random.Generator) -> Float64s:
    """Draw b-tag scores of jets: normal in ln(s / (1 − s)), of our own making, and not on the scale of any real tagger.

    Parameters
    ----------
    flavour : (n,) int64
        5 for b jets, 4 for c jets.
    rng : numpy.random.Generator

    Returns
    -------
    (n,) float64
        In (0, 1). Working points of `coffea_ad.nanoaod.campaigns`: 0.2789 keeps 77 % of b, 18 % of c, 1 % of light jets.

    Examples
    --------
    >>> float((b_tag_score(np.full(100_000, 5), np.random.default_rng(1)) > 0.2789).mean().round(2))
    0.77
    """
    mean = np.select([flavour == 5, flavour == 4], [0.8, -2.3], -4.3)
    width = np.select([flavour == 5, flavour == 4], [2.4, 1.5], 1.44)
    return np.asarray(1 / (1 + np.exp(-(mean + width * rng.standard_normal(len(flavour))))))


def jets(c: Candidates, n_events: int, hadrons: Table, rng: np.random.Generator) -> Table:
    """AK4 jets with pT > 15 GeV, with `b_tag_score`."""
    table, owner = _cluster(c, n_events, 0.4, 15.0)
    n = len(table["pt"])
    flavour = _flavour(table, hadrons, n_events, 0.4)
    table["hadronFlavour"] = flavour
    table["btag"] = b_tag_score(flavour, rng)
    table["nConstituents"] = np.bincount(owner[owner >= 0], minlength=n)
    return table


def fat_jets(c: Candidates, n_events: int, hadrons: Table) -> tuple[Table, Table, Ints]:
    """AK8 jets with pT > 150 GeV, their soft-drop subjets, and for every candidate the row of its jet or −1."""
    table, owner = _cluster(c, n_events, 0.8, 150.0)
    n = len(table["pt"])
    members = np.flatnonzero(owner >= 0)
    members = members[np.argsort(owner[members], kind="stable")]
    offsets = np.r_[0, np.cumsum(np.bincount(owner[members], minlength=n))]
    pt, eta, phi, mass = (a[members] for a in (c.pt, c.eta, c.phi, c.mass))
    names = ("msoftdrop", "tau1", "tau2", "tau3", "tau4")
    table.update(zip(names, substructure(names, offsets, pt, eta, phi, mass).T, strict=True))
    table["nConstituents"] = np.diff(offsets)
    table["hadronFlavour"] = _flavour(table, hadrons, n_events, 0.8)

    prongs = soft_drop_subjets(offsets, pt, eta, phi, mass).reshape(-1, 4)
    real = prongs[:, 3] > 0
    pt, eta, phi, mass = _cylindrical(*prongs[real].T)
    subjets = {"event": np.repeat(table["event"], 2)[real], "pt": pt, "eta": eta, "phi": phi, "mass": mass}
    first = _offsets(subjets["event"], n_events)[:-1]
    position = np.where(real, np.cumsum(real) - 1 - first[np.repeat(table["event"], 2)], -1).reshape(-1, 2)
    table["subJetIdx1"], table["subJetIdx2"] = position[:, 0], position[:, 1]
    return table, subjets, owner


@njit(cache=True)
def _isolation(
    first: Ints, event: Ints, row: Ints, pt: Float64s, eta: Float64s, phi: Float64s, cone: Float64s
) -> Float64s:
    """Σ pT of the other candidates within the cone, over the candidate's own pT."""
    out = np.zeros(len(row))
    for k in range(len(row)):
        i = row[k]
        for j in range(first[event[k]], first[event[k] + 1]):
            if j == i:
                continue
            dphi = abs(phi[i] - phi[j])
            if dphi > math.pi:
                dphi = 2 * math.pi - dphi
            deta = eta[i] - eta[j]
            if deta * deta + dphi * dphi < cone[k] * cone[k]:
                out[k] += pt[j]
        out[k] /= pt[i]
    return out


def leptons(c: Candidates, n_events: int, code: int) -> Table:
    """Electrons (code 11) or muons (13) with pT > 5 GeV and their isolation."""
    row = np.flatnonzero((np.abs(c.pdgid) == code) & (c.pt > 5.0) & (np.abs(c.eta) < 2.5))
    row = row[np.lexsort((-c.pt[row], c.event[row]))]
    first, event, pt = _offsets(c.event, n_events), c.event[row], c.pt[row]
    fixed = np.full(len(row), 0.4 if code == 13 else 0.3)
    mini = np.clip(10.0 / pt, 0.05, 0.2)
    return {
        "event": event,
        "pt": pt,
        "eta": c.eta[row],
        "phi": c.phi[row],
        "mass": c.mass[row],
        "charge": c.charge[row],
        "pdgId": c.pdgid[row],
        "relIso": _isolation(first, event, row, c.pt, c.eta, c.phi, fixed),
        "miniPFRelIso_all": _isolation(first, event, row, c.pt, c.eta, c.phi, mini),
    }


def photons(c: Candidates, n_events: int) -> Table:
    """Isolated photons with pT > 15 GeV."""
    row = np.flatnonzero((c.pdgid == 22) & (c.pt > 15.0) & (np.abs(c.eta) < 2.5))
    row = row[np.lexsort((-c.pt[row], c.event[row]))]
    isolation = _isolation(_offsets(c.event, n_events), c.event[row], row, c.pt, c.eta, c.phi, np.full(len(row), 0.3))
    keep = isolation < 0.3
    row = row[keep]
    return {
        "event": c.event[row],
        "pt": c.pt[row],
        "eta": c.eta[row],
        "phi": c.phi[row],
        "pfRelIso03_all": isolation[keep],
    }


def taus(generated: Table, jet: Table, rng: np.random.Generator) -> Table:
    """Hadronic taus: 65 % of the true ones, 8 % resolution, and 1.5 % of the jets as fakes."""
    real = (generated["pt"] > 18) & (np.abs(generated["eta"]) < 2.3) & (rng.random(len(generated["pt"])) < 0.65)
    smeared = generated["pt"] * np.maximum(0.2, 1 + 0.08 * rng.standard_normal(len(real)))
    fake = (jet["pt"] > 20) & (np.abs(jet["eta"]) < 2.3) & (rng.random(len(jet["pt"])) < 0.015)
    sign = rng.choice((-1, 1), len(fake))
    columns = {
        "event": np.r_[generated["event"][real], jet["event"][fake]],
        "pt": np.r_[smeared[real], jet["pt"][fake]],
        "charge": np.r_[generated["charge"][real], sign[fake]],
        "genPartFlav": np.r_[np.full(real.sum(), 5), np.zeros(fake.sum(), np.int64)],
        **{k: np.r_[generated[k][real], jet[k][fake]] for k in ("eta", "phi", "mass")},
    }
    order = np.lexsort((-columns["pt"], columns["event"]))
    return {k: v[order] for k, v in columns.items()}


def triggers(ht: Float64s, fat_pt: Float64s, met: Float64s, muon_pt: Float64s, rng: np.random.Generator) -> Table:
    """Trigger bits with error-function turn-ons, from H_T, leading AK8 and isolated-muon pT, and MET without muons."""
    from scipy.special import erf

    def bit(value: Float64s, threshold: float, width: float) -> Bools:
        probability = 0.5 * (1 + erf((value - threshold) / (math.sqrt(2) * width)))
        return np.asarray(rng.random(len(value)) < 0.99 * probability)

    return {
        "HLT_PFHT1050": bit(ht, 1080, 60),
        "HLT_AK8PFJet500": bit(fat_pt, 520, 25),
        "HLT_PFMETNoMu120_PFMHTNoMu120_IDTight": bit(met, 160, 35),
        "HLT_IsoMu24": bit(muon_pt, 24, 1),
    }


_STORED = (6, 23, 24, 25, 34, 51, 53, 4900023, 4900101, 4900111, 4900113, 4900211, 4900213)


@njit(cache=True)
def _walk(first: Ints, event: Ints, pdgid: Ints, mother: Ints, d1: Ints, d2: Ints, stored: Bools) -> Any:
    """For every particle: first and last of its copies, from a hadron or τ or not, and its nearest kept ancestor or −1."""
    n = len(pdgid)
    is_first, is_last, prompt = np.ones(n, np.bool_), np.ones(n, np.bool_), np.ones(n, np.bool_)
    ancestor = np.full(n, -1, np.int64)
    for i in range(n):
        base = first[event[i]]
        if d1[i] > 0:
            for d in range(d1[i], max(d1[i], d2[i]) + 1):
                if pdgid[base + d] == pdgid[i]:
                    is_last[i] = False
        if mother[i] > 0 and pdgid[base + mother[i]] == pdgid[i]:
            is_first[i] = False
        up = mother[i]
        while up > 0:
            code = abs(pdgid[base + up])
            if (100 < code < 1_000_000 and code != 2212) or (code == 15 and code != abs(pdgid[i])):
                prompt[i] = False
            if stored[base + up] and ancestor[i] < 0:
                ancestor[i] = base + up
            up = mother[base + up]
    return is_first, is_last, prompt, ancestor


def gen_particles(record: Any, n_events: int) -> tuple[Table, Table, Table]:
    """Return the generator particles to keep, heavy-flavour hadrons, and visible hadronic taus."""
    counts = ak.to_numpy(ak.num(record))
    event = np.repeat(np.arange(n_events), counts)
    first = np.r_[0, np.cumsum(counts)]
    flat = ak.flatten(record)
    pdgid, status, mother, d1, d2 = (
        ak.to_numpy(flat[k]).astype(np.int64) for k in ("id", "status", "mother1", "daughter1", "daughter2")
    )
    pt, eta, phi, mass = _cylindrical(*(ak.to_numpy(flat.p[k]) for k in ("px", "py", "pz", "e")))
    code = np.abs(pdgid)
    bottom = ((code // 100) % 10 == 5) | ((code // 1000) % 10 == 5)
    charm = ((code // 100) % 10 == 4) | ((code // 1000) % 10 == 4)
    heavy = (bottom | charm) & (code > 400) & (code < 10_000)

    hard = (np.abs(status) >= 21) & (np.abs(status) <= 29)
    lepton = np.isin(code, (11, 12, 13, 14, 15, 16)) & (pt > 3) & (status > 0)
    stored = (hard | lepton | np.isin(code, _STORED)) & (pt > 0)
    _, is_last, _, _ = _walk(first, event, pdgid, mother, d1, d2, stored)
    stored &= hard | is_last
    is_first, _, prompt, ancestor = _walk(first, event, pdgid, mother, d1, d2, stored)
    # HepMC status: 1 stable, 2 decayed hadron or lepton, Pythia's own for the rest
    hepmc = np.where(status > 0, 1, np.where((code > 100) & (code < 4_900_000) | (code == 15), 2, np.abs(status)))
    flags = prompt * 1 | hard * (1 << 7 | 1 << 8) | is_first * (1 << 12) | is_last * (1 << 13)
    rows = np.flatnonzero(stored)
    number = np.full(len(pdgid), -1, np.int64)
    number[rows] = np.arange(len(rows)) - _offsets(event[rows], n_events)[event[rows]]
    generated = {
        "event": event[rows],
        "pt": pt[rows],
        "eta": np.clip(eta[rows], -20, 20),
        "phi": phi[rows],
        "mass": mass[rows],
        "pdgId": pdgid[rows],
        "status": hepmc[rows],
        "statusFlags": flags[rows],
        "genPartIdxMother": np.where(ancestor[rows] >= 0, number[ancestor[rows]], -1),
    }
    flavoured = np.flatnonzero(heavy & (pt > 5))
    hadrons = {
        "event": event[flavoured],
        "eta": eta[flavoured],
        "phi": phi[flavoured],
        "flavour": np.where(bottom[flavoured], 5, 4),
    }
    return generated, hadrons, _visible_taus(flat, event, first, pdgid, d1, d2)


def _visible_taus(flat: Any, event: Ints, first: Ints, pdgid: Ints, d1: Ints, d2: Ints) -> Table:
    """p(τ) − p(ν_τ) of the taus that decay to hadrons."""
    p4 = np.stack([ak.to_numpy(flat.p[k]) for k in ("px", "py", "pz", "e")], axis=1)
    rows, vectors = [], []
    for i in np.flatnonzero((np.abs(pdgid) == 15) & (d1 > 0)):  # a handful per thousand events
        daughters = np.arange(first[event[i]] + d1[i], first[event[i]] + max(d1[i], d2[i]) + 1)
        codes = np.abs(pdgid[daughters])
        if 15 in codes or 11 in codes or 13 in codes or 16 not in codes:
            continue
        rows.append(i)
        vectors.append(p4[i] - p4[daughters[codes == 16]].sum(axis=0))
    pt, eta, phi, mass = _cylindrical(*np.reshape(vectors, (-1, 4)).T)
    index = np.array(rows, np.int64)
    return {"event": event[index], "pt": pt, "eta": eta, "phi": phi, "mass": mass, "charge": -np.sign(pdgid[index])}
