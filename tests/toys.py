"""Places and toys that tests share."""

from __future__ import annotations

import itertools
from pathlib import Path

import awkward as ak
import numpy as np
import uproot
from coffea.nanoevents import NanoEventsFactory

import coffea_ad as ad
from coffea_ad.features.spec import feature_spec
from coffea_ad.skims.skim import Skim

HERE = Path(__file__).parent
DATA = HERE / "data"
REAL = HERE.parent.parent / "shared" / "data" / "nanoaod"


def open_events(path, schema=ad.NanoAODSchema, **kwargs):
    return NanoEventsFactory.from_root(f"{path}:Events", schemaclass=schema, **kwargs).events()


def listed(values):
    """Nested lists of scores; None where there is no score, which equals itself, and NaN does not."""
    return ak.to_list(ak.nan_to_none(values))


def toy_jets(rng, n_jets=20, largest=40):
    """Constituents of toy jets with one to three prongs, flat."""
    counts = rng.integers(1, largest, n_jets)
    jet = np.repeat(np.arange(n_jets), counts)
    n = len(jet)
    prong = rng.integers(0, 3, n)
    center = rng.normal(0, 0.3, (2, n_jets, 3))
    eta = center[0, jet, prong] + rng.normal(0, 0.1, n) + rng.normal(0, 1, n_jets)[jet]
    phi = center[1, jet, prong] + rng.normal(0, 0.1, n) + rng.uniform(-np.pi, np.pi, n_jets)[jet]
    phi = (phi + np.pi) % (2 * np.pi) - np.pi
    mass = np.where(rng.random(n) < 0.6, 0.13957, 0.0)
    return np.r_[0, np.cumsum(counts)], rng.exponential(10, n) + 0.5, eta, phi, mass


def bare_events(path, n):
    """A file of n events with their ids and nothing else."""
    ids = {"run": np.uint32, "luminosityBlock": np.uint32, "event": np.uint64}
    columns = {k: np.arange(1, n + 1).astype(t) for k, t in ids.items()}
    with uproot.recreate(path) as new:
        new.mktree("Events", {k: v.dtype for k, v in columns.items()}).extend(columns)


def assert_identical(one, two):
    """Equal axes, equal unweighted counts, and sums of w and w² within 1e-9."""
    assert one.keys() == two.keys()
    for dataset, observables in one.items():
        for name, h in observables.items():
            other = two[dataset][name]
            assert list(h.axes) == list(other.axes)
            for view in ("values", "variances"):
                a, b = getattr(h, view)(flow=True), getattr(other, view)(flow=True)
                assert np.all(np.abs(a - b) <= 1e-9 * max(np.abs(a).sum(), 1e-300)), (dataset, name)


def damage(path, branch, basket=0):
    """Flip bits in the compressed content of one basket."""
    with uproot.open(path) as file:
        found = file["Events"][branch]
        start, size = (int(found.member(m)[basket]) for m in ("fBasketSeek", "fBasketBytes"))
    data = bytearray(path.read_bytes())
    for i in range(start + size // 2, start + size - 4, 7):
        data[i] ^= 0x5A
    path.write_bytes(data)


def copy_events(source, path, *, stop=None, drop=(), runs=False, compression=None, change=None, baskets=1):
    """The first events of a file, without the branches that begin with `drop`, with or without its Runs tree.

    `change` gets the columns before they are written; every branch gets so many baskets.
    """
    with uproot.open(source) as old, uproot.recreate(path, compression=compression or uproot.ZLIB(1)) as new:
        tree = old["Events"]
        names = [k for k in tree.keys() if not k.startswith(drop)]
        jagged = {b[1:] for b in names if b[0] == "n" and any(k.startswith(b[1:] + "_") for k in names)}
        columns = {
            n: ak.zip({k[len(n) + 1 :]: tree[k].array()[:stop] for k in names if k.startswith(n + "_")}) for n in jagged
        }
        flat = [k for k in names if k[1:] not in (*jagged, "GenPart") and k.split("_")[0] not in jagged]
        columns |= {k: tree[k].array(library="np")[:stop] for k in flat}
        if change is not None:
            change(columns)
        types = {k: v.dtype if isinstance(v, np.ndarray) else ak.type(v).content for k, v in columns.items()}
        tree = new.mktree("Events", types)
        edges = np.linspace(0, len(columns["event"] if "event" in columns else columns["run"]), baskets + 1).astype(int)
        for start, end in itertools.pairwise(edges):
            tree.extend({k: v[start:end] for k, v in columns.items()})
        if runs:
            sums = old["Runs"].arrays(library="np")
            new.mktree("Runs", {k: v.dtype for k, v in sums.items()}).extend(sums)
    return path


def toy_skim(seed=0, n=3000):
    """Eight correlated columns with long tails, an atom at zero, and weights."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8)) @ rng.normal(size=(8, 8))
    x[:, 5] = np.maximum(np.exp(x[:, 5]) - 0.5, 0)
    split = rng.choice(["train", "validation", "test"], n)
    provenance = {"files": {}, "flavours": ["NanoAOD v15"], "selection": {}, "n_effective": float(n)}
    weight = rng.exponential(size=n) + 0.1
    spec = feature_spec("jet_substructure")
    return Skim(x.astype(np.float32), weight, np.full(n, "toy"), split, {}, spec, provenance)
