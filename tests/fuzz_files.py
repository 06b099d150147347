"""NanoAOD files that are mutated: some mutations change nothing, some must be counted, some must be refused."""

from __future__ import annotations

import functools
import itertools

import awkward as ak
import numpy as np
import uproot
from toys import DATA

import coffea_ad as ad
from coffea_ad.errors import CoffeaADError, IncompleteRun, ProcessorFailed

EVENTS = 40
OPEN = ("met_min=null", "rt_min=null", "dphi_max=null", "jet_pt_min=100", "jet_scale=0")
READ = (
    *(f"FatJet_{f}" for f in ("pt", "eta", "phi", "mass", "msoftdrop")),
    *(f"PFCand_{f}" for f in ("pt", "eta", "phi", "mass")),
    *("FatJetPFCand_jetIdx", "FatJetPFCand_pfCandIdx", "PuppiMET_pt", "PuppiMET_phi", "genWeight"),
    *(f"Electron_{f}" for f in ("pt", "eta", "cutBased", "miniPFRelIso_all")),
    *(f"Muon_{f}" for f in ("pt", "eta", "looseId", "miniPFRelIso_all")),
    *("run", "luminosityBlock", "event"),
)
MORE = (
    *("HLT_PFHT1050", "Flag_goodVertices", "Flag_eeBadScFilter", "PV_npvs", "Jet_pt", "Jet_eta", "Jet_phi", "Jet_mass"),
    *(f"{lepton}_{f}" for lepton in ("Electron", "Muon") for f in ("phi", "mass", "charge")),
    *("FatJet_tau1", "FatJet_nConstituents", "PFCand_pdgId"),
)
FLOATS = tuple(b for b in READ if b.endswith(("_pt", "_eta", "_phi", "_mass", "_all", "msoftdrop")))
SELECTED = ("FatJet_pt", "FatJet_eta", "FatJet_phi", "FatJet_mass", "PuppiMET_pt", "PuppiMET_phi")
"""Branches whose undefined values take an event out, or its leading jets."""


@functools.cache
def columns():
    """The branches of the first events, as a file without common counters has them."""
    with uproot.open(DATA / "svj_v15.root") as file:
        tree = file["Events"]
        return {name: tree[name].array()[:EVENTS] for name in (*READ, *MORE)}


def collection(branch):
    return branch.split("_")[0]


def jagged(array):
    return array.ndim > 1


def counters(branches):
    """Counters of all collections, from their first branches."""
    out = {}
    for name, array in branches.items():
        if jagged(array):
            out.setdefault(f"n{collection(name)}", ak.values_astype(ak.num(array), np.int32))
    return out


def write(path, branches, *, counted=None, tree="Events", rntuple=False, baskets=1, compression=None, runs=True):
    """Write a file; `counted` replaces counters."""
    every = {**branches, **counters(branches), **(counted or {})}
    every = {k: v if jagged(v) else ak.to_numpy(v) for k, v in every.items()}
    n = len(every["event"]) if "event" in every else len(next(iter(every.values())))
    with uproot.recreate(path, compression=compression or uproot.ZLIB(1)) as file:
        if rntuple:
            new = file.mkrntuple(tree, {k: ak.Array(v) for k, v in every.items()})
            assert new is not None
        else:
            types = {k: v.dtype if isinstance(v, np.ndarray) else ak.type(v).content for k, v in every.items()}
            new = file.mktree(tree, types)
            edges = np.linspace(0, n, min(baskets, max(n, 1)) + 1).astype(int)
            for start, stop in itertools.pairwise(edges):
                new.extend({k: v[start:stop] for k, v in every.items()})
        if runs and "genWeight" in branches:
            weight = ak.to_numpy(columns()["genWeight"])
            facts = {"genEventCount": np.array([n]), "genEventSumw": np.array([float(n)])}
            assert (weight == 1).all()
            file.mktree("Runs", {k: v.dtype for k, v in facts.items()}).extend(facts)
    return path


def search(paths, *, tree="Events", chunksize=100, preflight=False, overrides=(), metadata=None):
    """Run the search with a model; what failed is raised."""
    fileset = {"svj": {"files": {str(p): tree for p in paths}, "metadata": metadata or {"is_mc": True, "xsec": 1.0}}}
    report = ad.run(
        fileset, "semivisible_jets", model=DATA / "wnae.onnx", overrides=[*OPEN, *overrides], config="none",
        executor="iterative", progress=False, preflight=preflight, chunksize=chunksize,
    )  # fmt: skip
    return summary(report)


def summary(report):
    """What must not change: yields, sums, and the histograms of kinematics."""
    out = report.outputs["svj"]
    kinematics = {n: out["histograms"][n].project(n).values(flow=True) for n in ("mt", "mjj", "met", "ht", "msoftdrop")}
    cells = out["histograms"]["mt"].project("cell").values()
    return {
        "selected": [step["events"] for step in out["cutflow"].values()],
        "sumw": report.datasets["svj"]["sumw"],
        "events": report.datasets["svj"]["events"],
        "cells": cells.tolist(),
        "undefined": out["undefined"],
        "unscored": out["unscored"],
        "kinematics": {k: v.tolist() for k, v in kinematics.items()},
    }


@functools.cache
def reference(folder):
    """The result of the file as it is."""
    return search([write(folder / "reference.root", columns())])


def changed(branch, places, value):
    """One branch with another value at some places."""
    array = columns()[branch]
    flat = np.array(ak.to_numpy(ak.flatten(array)) if jagged(array) else ak.to_numpy(array))
    flat[places] = value
    return ak.unflatten(flat, ak.num(array)) if jagged(array) else ak.Array(flat)


def size(branch):
    array = columns()[branch]
    return int(ak.count(array))


def event_of(branch, places):
    array = columns()[branch]
    event = np.repeat(np.arange(EVENTS), ak.to_numpy(ak.num(array))) if jagged(array) else np.arange(EVENTS)
    return np.unique(event[places])


# mutations that change nothing: (branches, options of write, options of search)


def wider(rng):
    """Floating-point branches in double precision."""
    some = rng.choice(FLOATS, rng.integers(1, 6), replace=False)
    return {**columns(), **{b: ak.values_astype(columns()[b], np.float64) for b in some}}, {}, {}


def other_integers(rng):
    """Integers of another width or sign."""
    names = ("FatJetPFCand_jetIdx", "FatJetPFCand_pfCandIdx", "Electron_cutBased", "run", "luminosityBlock", "event")
    some = rng.choice(names, rng.integers(1, 4), replace=False)
    types = (np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)
    out = dict(columns())
    for branch in some:
        fitting = [t for t in types if ak.max(out[branch]) <= np.iinfo(t).max]
        out[branch] = ak.values_astype(out[branch], fitting[rng.integers(len(fitting))])
    return out, {}, {}


def other_flags(rng):
    """Booleans as integers, and more filters asked for."""
    types = (np.uint8, np.int8, np.int32, np.uint32, np.float32)
    out = dict(columns())
    for branch in ("Flag_goodVertices", "Flag_eeBadScFilter", "Muon_looseId", "HLT_PFHT1050"):
        if rng.random() < 0.6:
            out[branch] = ak.values_astype(out[branch], types[rng.integers(len(types))])
    return out, {}, {"overrides": ["met_filters=[Flag_goodVertices]"]} if ak.all(columns()["Flag_goodVertices"]) else {}


def fewer_branches(rng):
    """Without some branches that nobody reads."""
    gone = set(rng.choice(MORE, rng.integers(1, len(MORE)), replace=False))
    return {k: v for k, v in columns().items() if k not in gone}, {}, {}


def more_branches(rng):
    """With branches of odd names that nobody reads."""
    names = (
        "FatJet_extra",
        "nothing",
        "PFCand_puppi",
        "L1_x",
        "FatJet_",
        "nFoo",
        "PFCandX_pt",
        "FatJetPFCandX_pt",
        "x_y_z",
    )
    out = dict(columns())
    for name in rng.choice(names, rng.integers(1, 5), replace=False):
        like = (
            columns()["FatJet_pt"]
            if name.startswith("FatJet_")
            else columns()["PFCand_pt" if "PFCand_" in name else "genWeight"]
        )
        out[str(name)] = like * 0 + float(rng.normal())
    return out, {}, {}


def another_order_of_branches(rng):
    names = list(columns())
    return {names[i]: columns()[names[i]] for i in rng.permutation(len(names))}, {}, {}


def another_layout(rng):
    """Baskets, codecs and the size of chunks."""
    codecs = (uproot.ZLIB(4), uproot.LZMA(1), uproot.LZ4(1), uproot.ZSTD(5), uproot.ZLIB(0))
    wrote = {"baskets": int(rng.integers(1, 7)), "compression": codecs[rng.integers(len(codecs))]}
    return dict(columns()), wrote, {"chunksize": int(rng.integers(3, 45)), "preflight": bool(rng.random() < 0.3)}


def another_tree(rng):
    name = ("events", "nano/Events", "Ereignisse", "Events_1")[rng.integers(4)]
    return dict(columns()), {"tree": name, "runs": "/" not in name}, {"tree": name}


def rntuple(rng):
    """As ROOT's successor of trees, branches side by side."""
    return dict(columns()), {"rntuple": True}, {"chunksize": int(rng.integers(5, 45))}


def another_order_of_candidates(rng):
    """Candidates of every event shuffled, with the links that lead to them, and links shuffled too."""
    out = dict(columns())
    counts = ak.to_numpy(ak.num(out["PFCand_pt"]))
    starts = np.r_[0, np.cumsum(counts)]
    order = np.concatenate([starts[i] + rng.permutation(n) for i, n in enumerate(counts)])
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    for branch in [b for b in out if b.startswith("PFCand_")]:
        out[branch] = ak.unflatten(ak.to_numpy(ak.flatten(out[branch]))[order], counts)
    links = ak.num(out["FatJetPFCand_pfCandIdx"])
    first = np.repeat(starts[:-1], links)
    place = back[ak.to_numpy(ak.flatten(out["FatJetPFCand_pfCandIdx"])) + first] - first
    out["FatJetPFCand_pfCandIdx"] = ak.unflatten(place.astype(np.int32), links)
    shuffle = ak.argsort(ak.unflatten(rng.random(len(place)), links))
    for branch in ("FatJetPFCand_jetIdx", "FatJetPFCand_pfCandIdx"):
        out[branch] = out[branch][shuffle]
    return out, {}, {}


def another_order_of_jets(rng):
    """Jets of every event shuffled, with the links that lead to them."""
    out = dict(columns())
    counts = ak.num(out["FatJet_pt"])
    order = ak.argsort(ak.unflatten(rng.random(int(ak.sum(counts))), counts))
    back = ak.argsort(order)
    for branch in [b for b in out if b.startswith("FatJet_")]:
        out[branch] = out[branch][order]
    out["FatJetPFCand_jetIdx"] = ak.values_astype(back[out["FatJetPFCand_jetIdx"]], np.int32)
    return out, {}, {}


def another_order_of_events(rng):
    order = rng.permutation(EVENTS)
    return {k: v[order] for k, v in columns().items()}, {}, {"chunksize": int(rng.integers(5, 45))}


def nan_where_nothing_is_read(rng):
    """Undefined numbers behind the leading jets, and in branches that nobody reads."""
    branch = ("FatJet_pt", "FatJet_eta", "FatJet_phi", "FatJet_mass", "FatJet_msoftdrop")[rng.integers(5)]
    third = np.flatnonzero(ak.to_numpy(ak.flatten(ak.local_index(columns()[branch]))) >= 2)
    places = rng.choice(third, min(len(third), int(rng.integers(1, 6))), replace=False)
    return {**columns(), branch: changed(branch, places, rng.choice([np.nan, np.inf, -np.inf]))}, {}, {}


SAME = (
    wider, other_integers, other_flags, fewer_branches, more_branches, another_order_of_branches, another_layout,
    another_tree, rntuple, another_order_of_candidates, another_order_of_jets, another_order_of_events,
    nan_where_nothing_is_read,
)  # fmt: skip


def same(rng, folder):
    """A mutation that changes nothing: every number is that of the file as it is."""
    mutation = SAME[rng.integers(len(SAME))]
    branches, wrote, asked = mutation(rng)
    got, expected = search([write(folder / "x.root", branches, **wrote)], **asked), reference(folder.parent)
    for key in (
        "events",
        "sumw",
        "selected",
        "cells",
        "unscored",
        *(() if "nan" in mutation.__name__ else ("undefined",)),
    ):
        assert got[key] == expected[key], (mutation.__name__, key, got[key], expected[key])
    for name, values in expected["kinematics"].items():
        assert np.allclose(got["kinematics"][name], values, atol=1e-9), (mutation.__name__, name)


def undefined(rng, folder):
    """NaN, infinities and wild numbers in what is read: other events stay, and what is lost is counted."""
    branch = FLOATS[rng.integers(len(FLOATS))]
    value = rng.choice([np.nan, np.inf, -np.inf, -1.0, 0.0, 1e30, -1e30, 1e-30, 3.4e38])
    places = rng.choice(size(branch), min(size(branch), int(rng.integers(1, 5))), replace=False)
    got = search([write(folder / "x.root", {**columns(), branch: changed(branch, places, value)})])
    expected, touched = reference(folder.parent), len(event_of(branch, places))
    where = (branch, float(value), places.tolist())
    assert got["events"] == EVENTS, where
    assert got["sumw"] == expected["sumw"], where
    lost = expected["selected"][-1] - got["selected"][-1]
    assert abs(lost) <= touched, where
    assert np.abs(np.subtract(got["cells"], expected["cells"])).max() <= touched, where
    if not np.isfinite(value) and branch in SELECTED and lost > 0:
        assert got["undefined"] >= lost, (where, lost, got["undefined"])
    if not np.isfinite(value) and branch.startswith("PFCand") and sum(got["cells"][:-1]) < sum(expected["cells"][:-1]):
        assert got["unscored"] > expected["unscored"], where


def refused(rng, folder, sentence, paths=None, **asked):
    """Run, and look at what is said."""
    try:
        search(paths or [folder / "x.root"], **asked)
    except ProcessorFailed:
        raise
    except CoffeaADError as error:
        text = str(error)
        assert any(word in text for word in sentence), text
        return
    raise AssertionError(f"taken without a word, but should be refused for {' or '.join(sentence)}")


def missing_branch(rng, folder):
    """Without a branch that is read."""
    branch = READ[rng.integers(len(READ))]
    kept = {k: v for k, v in columns().items() if k != branch}
    write(folder / "x.root", kept)
    refused(rng, folder, [branch], preflight=bool(rng.random() < 0.5))


def wrong_link(rng, folder):
    """Links that point outside their events."""
    branch = ("FatJetPFCand_jetIdx", "FatJetPFCand_pfCandIdx")[rng.integers(2)]
    places = rng.choice(size(branch), 3, replace=False)
    value = int(rng.choice([-1, -7, 1000, 2**31 - 1, -(2**31)]))
    write(folder / "x.root", {**columns(), branch: changed(branch, places, value)})
    refused(rng, folder, ["FatJetPFCand"], preflight=bool(rng.random() < 0.5))


def other_length(rng, folder):
    """One branch of a collection, or its counter, of other lengths than the others."""
    branch = [b for b in READ if jagged(columns()[b]) and size(b) > 5][rng.integers(17)]
    array, counted = columns()[branch], {}
    event = int(rng.choice(np.flatnonzero(ak.to_numpy(ak.num(array)) > 0)))
    if rng.random() < 0.5:
        lists = ak.to_list(array)
        lists[event] = lists[event][:-1] if rng.random() < 0.5 else [*lists[event], lists[event][0]]
        mutated = {**columns(), branch: ak.values_astype(ak.Array(lists), ak.to_numpy(ak.flatten(array)).dtype)}
        counted = {k: v for k, v in counters(columns()).items() if k == f"n{collection(branch)}"}
    else:
        mutated = dict(columns())
        numbers = np.array(counters(columns())[f"n{collection(branch)}"])
        numbers[event] += int(rng.choice([-1, 1, 255, -256, 2**30]))
        counted = {f"n{collection(branch)}": ak.Array(numbers)}
    write(folder / "x.root", mutated, counted=counted, rntuple=bool(rng.random() < 0.3))
    refused(rng, folder, [collection(branch)], preflight=bool(rng.random() < 0.3))


def damaged(rng, folder):
    """Bytes of a file cut or flipped: the right result, another number of what was damaged, or one sentence."""
    path = write(folder / "x.root", columns(), baskets=3)
    data = bytearray(path.read_bytes())
    if rng.random() < 0.4:
        data = data[: int(rng.integers(0, len(data)))]
    else:
        for i in rng.integers(0, len(data), int(rng.integers(1, 20))):
            data[i] ^= int(rng.integers(1, 256))
    path.write_bytes(data)
    try:
        search([path], preflight=bool(rng.random() < 0.3))
    except (IncompleteRun, CoffeaADError) as error:
        assert str(path) in str(error) or "svj" in str(error), str(error)
        if isinstance(error, ProcessorFailed):
            raise


def two_files(rng, folder):
    """The events in two files, one of them perhaps empty."""
    cut = int(rng.choice([0, 1, 17, EVENTS - 1, EVENTS]))
    parts = (slice(0, cut), slice(cut, None))
    paths = [write(folder / f"{i}.root", {k: v[p] for k, v in columns().items()}) for i, p in enumerate(parts)]
    got, expected = search(paths, preflight=bool(rng.random() < 0.5)), reference(folder.parent)
    assert got == expected


KINDS = {
    "same": (same, 8),
    "undefined": (undefined, 5),
    "missing branch": (missing_branch, 2),
    "wrong link": (wrong_link, 2),
    "other length": (other_length, 3),
    "damaged file": (damaged, 3),
    "two files": (two_files, 1),
}
