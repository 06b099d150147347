"""Displays show what stands in the files: the objects of an event, the constituents and splittings of its jets, its matrix."""

from __future__ import annotations

import io
import math
import shutil

import awkward as ak
import numpy as np
import pytest
import uproot
from test_event_lists import entry, run, search
from toys import DATA, REAL, copy_events, damage, open_events

from coffea_ad.cli.main import main
from coffea_ad.errors import BadFile, ConfigError, MissingBranch, UnknownName
from coffea_ad.event_lists.opened import Place, listed_places, number_of_events, open_event, parsed_id, places_of
from coffea_ad.features import compute
from coffea_ad.features.naive import substructure as naive
from coffea_ad.features.rmm import RMMOptions, cell_names
from coffea_ad.plotting.displays import VIEWS, content_of, draw_event, jets_of, rmm_of
from coffea_ad.plotting.displays.contents import KINDS, Content, EventObject, Missing, Particles
from coffea_ad.plotting.displays.event_eta_phi import draw_eta_phi, images_of
from coffea_ad.plotting.displays.jet_view import draw_jet
from coffea_ad.plotting.displays.labels import Labels
from coffea_ad.plotting.displays.lund import draw_lund
from coffea_ad.plotting.displays.rmm_map import draw_rmm
from coffea_ad.plotting.displays.transverse import draw_transverse, flow

SVJ, QCD, PFNANO, TTBAR = (DATA / f"{name}.root" for name in ("svj_v15", "qcd_v15", "svj_pfnano", "ttbar_v15"))
FATJET, JET, _, MUON, *_ = KINDS
IDS = ("run", "luminosityBlock", "event")
drawn = pytest.mark.plot


def event(path, number, **metadata):
    return open_event(Place(str(path), number), metadata)


def branches(path, number, *names):
    """The values of an event's branches, as uproot reads them."""
    with uproot.open(path) as file:
        return [file["Events"][n].array(library="np", entry_start=number, entry_stop=number + 1)[0] for n in names]


def constituents(path, number, jet):
    """pT, η, φ, mass and type of the constituents of a fat jet, row by row; PFNano's with their PUPPI weights."""
    link, table, index = (
        ("FatJetPFCand", "PFCand", "pfCandIdx") if "v15" in path.name else ("FatJetPFCands", "PFCands", "pFCandsIdx")
    )
    of, rows = branches(path, number, f"{link}_jetIdx", f"{link}_{index}")
    columns = branches(path, number, *(f"{table}_{f}" for f in ("pt", "eta", "phi", "mass", "pdgId")))
    weight = branches(path, number, f"{table}_puppiWeight")[0] if table == "PFCands" else np.ones(len(columns[0]))
    out = []
    for j, row in zip(of, rows, strict=True):
        pt, eta, phi, mass, kind = (column[row] for column in columns)
        if j == jet and pt * weight[row] > 0:
            out.append(
                (float(pt) * float(weight[row]), float(eta), float(phi), float(mass) * float(weight[row]), int(kind))
            )
    return out


@pytest.fixture
def ax():
    pytest.importorskip("mplhep")
    from matplotlib.figure import Figure

    return Figure().subplots()


# which events


def test_an_event_is_the_same_by_its_ids_and_by_its_entry():
    for number in (0, 7, 149):
        ids = tuple(int(value) for value in branches(SVJ, number, *IDS))
        (place,) = places_of([str(QCD), str(SVJ)], ids)
        assert place == Place(str(SVJ), number)
        opened = open_event(place)
        assert (opened.entry.to_list(), content_of(opened).event, content_of(opened).entry) == ([number], ids, number)


def test_the_places_of_a_list_are_where_its_events_are(tmp_path):
    results = run({"svj": entry(SVJ)}, tmp_path / "r")
    top = results.event_lists["svj"]["met"]
    for i, place in enumerate(listed_places(top)):
        missing = content_of(open_event(place, {"dataset": "svj"})).missing
        assert missing.name == "PuppiMET"
        assert missing.pt // 20 == top["met"][i]


@pytest.mark.parametrize("text", ["1:2", "1:2:3:4", "a:1:2", "1:-2:3", "1:2:", "٣:1:1"])
def test_what_is_no_event_is_said(text):
    with pytest.raises(ConfigError, match="write run:lumi:event"):
        parsed_id(text)


def test_events_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no event 11:1:999: .*svj_v15.root has 150 events of runs 11 to 11"):
        places_of([str(SVJ)], (11, 1, 999))
    with pytest.raises(ConfigError, match="has 150 events: there is no entry 150"):
        event(SVJ, 150)
    with pytest.raises(BadFile, match=r"gone.root: there is no such file"):
        event(tmp_path / "gone.root", 0)
    with pytest.raises(BadFile, match="there is no tree 'Event'"):
        number_of_events(str(SVJ), "Event")
    with pytest.raises(BadFile, match="its UUID is another one"):
        open_event(Place(str(SVJ), 0, uuid="of another"))
    (tmp_path / "text.root").write_text("no events" * 99)
    with pytest.raises(BadFile, match=r"text.root: this is not a ROOT file"):
        number_of_events(str(tmp_path / "text.root"))
    few = copy_events(SVJ, tmp_path / "few.root", stop=3, drop=("luminosityBlock", "PFCand", "FatJetPFCand", "GenPart"))
    with pytest.raises(MissingBranch, match=r"branches are missing: luminosityBlock"):
        places_of([str(few)], (11, 1, 1))


def test_a_damaged_branch_is_named(tmp_path):
    path = shutil.copy(SVJ, tmp_path / "damaged.root")
    damage(path, "Jet_eta")
    with pytest.raises(BadFile, match=r"damaged.root: .*branch Jet_eta cannot be read"):
        content_of(event(path, 7))


# what is in them


@pytest.mark.parametrize("path", [SVJ, PFNANO, TTBAR], ids=lambda p: p.stem)
def test_objects_are_those_of_the_file(path):
    for number in range(4, 8):
        content = content_of(event(path, number))
        for collection, least in {"FatJet": 0, "Jet": 30}.items():
            pt, eta, phi, mass = branches(path, number, *(f"{collection}_{f}" for f in ("pt", "eta", "phi", "mass")))
            want = sorted(
                ((p, e, f, m) for p, e, f, m in zip(pt, eta, phi, mass, strict=True) if p >= least), reverse=True
            )
            assert [(o.pt, o.eta, o.phi, o.mass) for o in content.of(collection)] == want
        pt, good = branches(path, number, "Muon_pt", "Muon_mediumId")
        assert [o.pt for o in content.of("Muon")] == sorted(pt[(pt >= 10) & (good != 0)], reverse=True)
        assert (content.missing.pt, content.missing.phi) == tuple(branches(path, number, "PuppiMET_pt", "PuppiMET_phi"))
        assert content.notes == ()


def test_photons_that_are_electrons_are_not_drawn(tmp_path):
    def electrons(columns):
        photons = columns["Photon"]
        photons["pt"], photons["mvaID_WP90"] = ak.full_like(photons["pt"], 50), ak.ones_like(photons["mvaID_WP90"])
        columns["Photon"] = photons
        same = {
            "pt": photons["pt"],
            "eta": photons["eta"] + 0.1,
            "phi": photons["phi"] + 0.1,
            "mvaIso_WP90": photons["mvaID_WP90"],
        }
        columns["Electron"] = ak.zip(same)[ak.local_index(photons["pt"]) == 0]  # of the first photon of each event

    path = copy_events(
        TTBAR,
        tmp_path / "photons.root",
        drop=("PFCand", "nPFCand", "FatJetPFCand", "nFatJetPFCand", "GenPart"),
        change=electrons,
    )
    counts = ak.num(open_events(path).Photon["pt"]).to_list()
    for number in [counts.index(n) for n in {0, 1, max(counts)}]:
        content = content_of(event(path, number))
        assert len(content.of("Electron")) == min(counts[number], 1)
        phi, eta = (branches(path, number, f"Photon_{f}")[0] for f in ("phi", "eta"))
        near = [
            math.hypot(e - eta[0] - 0.1, math.remainder(p - phi[0] - 0.1, 2 * math.pi)) < 0.3
            for e, p in zip(eta, phi, strict=True)
        ]
        assert len(content.of("Photon")) == len(near) - sum(near)


@pytest.mark.parametrize("path", [SVJ, PFNANO], ids=lambda p: p.stem)
def test_constituents_are_those_that_the_links_lead_to(path):
    kinds = {211: "charged hadrons", 130: "neutral hadrons", 22: "photons", 11: "electrons", 13: "muons"}
    for number in (3, 7):
        opened = event(path, number)
        content = content_of(opened)
        jets = jets_of(opened, content, number=9)
        assert content.with_particles == ("AK8 jet",)
        assert len(content.particles) == sum(len(jet.particles) for jet in jets) > 20
        for jet in jets:
            want = constituents(path, number, jet.jet.index)
            for name, column in zip(("pt", "eta", "phi", "mass"), zip(*want, strict=True), strict=False):
                np.testing.assert_allclose(getattr(jet.particles, name), column, rtol=1e-6)
            assert jet.particles.kind.tolist() == [kinds.get(abs(row[4]), "charged hadrons") for row in want]


def test_without_types_the_charge_tells_and_without_it_nothing_does(tmp_path):
    plain = content_of(
        event(copy_events(PFNANO, tmp_path / "charge.root", stop=9, drop=("PFCands_pdgId", "GenPart")), 7)
    ).particles
    full = content_of(event(PFNANO, 7)).particles
    assert np.array_equal(plain.kind == "neutral", np.isin(full.kind, ("neutral hadrons", "photons")))
    assert set(plain.kind) == {"charged", "neutral"}
    drop = ("PFCands_pdgId", "PFCands_charge", "GenPart")
    bare = content_of(event(copy_events(PFNANO, tmp_path / "bare.root", stop=9, drop=drop), 7)).particles
    assert set(bare.kind) == {"constituents"}
    assert np.array_equal(bare.pt, full.pt)


@pytest.fixture(scope="module")
def without_constituents(tmp_path_factory):
    """As NanoAOD before v15: jets and subjets, and no constituents."""
    return copy_events(
        SVJ,
        tmp_path_factory.mktemp("plain") / "plain.root",
        drop=("PFCand", "nPFCand", "FatJetPFCand", "nFatJetPFCand", "GenPart"),
    )


def test_without_constituents_there_are_jets_with_the_stored_subjets(without_constituents):
    opened = event(without_constituents, 7)
    content = content_of(opened)
    assert content.notes == ("no constituents of jets in this file",)
    assert len(content.particles) == 0
    assert [o.pt for o in content.of("FatJet")] == [o.pt for o in content_of(event(SVJ, 7)).of("FatJet")]
    for jet in jets_of(opened, content):
        assert jet.particles is None
        pt, one, two = branches(SVJ, 7, "SubJet_pt", "FatJet_subJetIdx1", "FatJet_subJetIdx2")
        places = [column[jet.jet.index] for column in (one, two)]
        assert [part.pt for part in jet.subjets] == sorted((pt[i] for i in places if i >= 0), reverse=True)


def test_constituents_of_two_collections_are_drawn_once(tmp_path):
    """Jets of both radii link to the same candidates in PFNano."""

    def with_links_of_small_jets(columns):
        columns["JetPFCands"] = columns["FatJetPFCands"]

    path = copy_events(PFNANO, tmp_path / "both.root", stop=9, drop="GenPart", change=with_links_of_small_jets)
    both, one = (content_of(event(p, 7)) for p in (path, PFNANO))
    assert both.with_particles == ("AK8 jet", "AK4 jet")
    assert sorted(both.particles.pt) == sorted(one.particles.pt)


# subjets and splittings


def exclusive_kt(rows, left):
    """Which constituents end in the same protojet: the smallest of all d_ij is merged again and again, four-vectors added."""
    jets = []
    for i, (pt, eta, phi, *_) in enumerate(rows):
        jets.append(([i], np.array([pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta), pt * math.cosh(eta)])))

    def distance(a, b):
        places = []
        for p in (a, b):
            m2 = max(p[3] ** 2 - p[0] ** 2 - p[1] ** 2 - p[2] ** 2, 0)
            places.append((math.asinh(p[2] / math.sqrt(p[0] ** 2 + p[1] ** 2 + m2)), math.atan2(p[1], p[0])))
        turn = abs(places[0][1] - places[1][1])
        turn = min(turn, 2 * math.pi - turn)
        return min(a[0] ** 2 + a[1] ** 2, b[0] ** 2 + b[1] ** 2) * ((places[0][0] - places[1][0]) ** 2 + turn**2)

    while len(jets) > left:
        pairs = [(distance(jets[i][1], jets[j][1]), i, j) for i in range(len(jets)) for j in range(i)]
        _, i, j = min(pairs)
        merged = (jets[i][0] + jets[j][0], jets[i][1] + jets[j][1])
        jets = [jet for k, jet in enumerate(jets) if k not in (i, j)] + [merged]
    return {frozenset(members) for members, _ in jets}


@pytest.mark.parametrize(("path", "number"), [(SVJ, 7), (PFNANO, 3)], ids=["svj_v15", "svj_pfnano"])
def test_subjets_and_splittings_are_those_of_slow_twins(path, number):
    opened = event(path, number)
    for jet in jets_of(opened, content_of(opened), subjets=3):
        rows = constituents(path, number, jet.jet.index)
        assert {frozenset(np.flatnonzero(jet.label == k).tolist()) for k in range(3)} == exclusive_kt(rows, 3)
        assert [part.pt for part in jet.subjets] == sorted((part.pt for part in jet.subjets), reverse=True)
        for k, part in enumerate(jet.subjets):
            inside = [row for row, label in zip(rows, jet.label, strict=True) if label == k]
            px, py = (sum(pt * turn(phi) for pt, _, phi, *_ in inside) for turn in (math.cos, math.sin))
            assert part.pt == pytest.approx(math.hypot(px, py), rel=1e-6)
        pt, eta, phi, mass, _ = zip(*rows, strict=True)
        counts, plane = naive.lund_plane([0, len(rows)], pt, eta, phi, mass)
        assert len(jet.splittings) == counts[0] > 5
        np.testing.assert_allclose(jet.splittings, plane, rtol=1e-4, atol=1e-5)


def test_a_jet_has_no_more_subjets_than_constituents():
    opened = event(SVJ, 7)
    (first,) = jets_of(opened, content_of(opened), number=1, subjets=500)
    assert len(first.subjets) == len(first.particles)


def test_an_event_without_jets_is_named(tmp_path):
    def none(columns):
        for name in ("FatJet", "Jet"):
            columns[name] = columns[name][columns[name]["pt"] < 0]

    path = copy_events(
        SVJ,
        tmp_path / "none.root",
        stop=2,
        drop=("PFCand", "nPFCand", "FatJetPFCand", "nFatJetPFCand", "GenPart"),
        change=none,
    )
    opened = event(path, 1)
    with pytest.raises(ConfigError, match=r"none.root: entry 1 has no jets"):
        jets_of(opened, content_of(opened))


# the matrix


def test_the_map_has_the_numbers_of_the_matrix_by_their_names():
    options = RMMOptions(slots=(10, 10, 5, 5, 5), drop_masses=False)
    events = open_events(TTBAR)
    rows, _ = compute("rmm", events, slots=(10, 10, 5, 5, 5), drop_masses=False)
    names = cell_names(options)
    for number in (5, 20):
        content = rmm_of(event(TTBAR, number))
        cells = dict(zip(names, rows[number].tolist(), strict=True))
        short = [slot.replace("MET", "met").replace("μ", "mu").replace("γ", "g") for slot in content.slots]
        for (i, j), value in np.ndenumerate(content.values):
            a, b = short[i], short[j]
            if i == j:
                ways = (a, f"et({a})", f"det({a})")
            else:
                ways = (f"mt({b})",) if i == 0 else (f"hl({a})",) if j == 0 else (f"m({a},{b})", f"h({a},{b})")
            assert value == next(cells.pop(way) for way in ways if way in cells)
        assert not any(cells.values())  # what is left out is empty
        assert (content.size, content.sqrt_s) == (36, branches(TTBAR, number, "simulation_sqrt_s")[0])


def test_what_the_matrix_does_not_know_is_said(without_constituents, tmp_path):
    path = copy_events(without_constituents, tmp_path / "bare.root", stop=9, drop="simulation")
    with pytest.raises(ConfigError, match="is not known"):
        rmm_of(event(path, 7))
    known = rmm_of(event(path, 7, campaign="2024"))
    assert known.sqrt_s == 13600


# the pictures


def toy(objects=(), missing=None, particles=None):
    none = np.zeros(0)
    return Content(
        (1, 2, 3),
        "a.root",
        0,
        "",
        tuple(objects),
        missing,
        particles or Particles(none, none, none, none, none),
        (),
        (),
    )


@pytest.mark.parametrize(("phi", "turns"), [(0.0, 1), (2.5, 2), (-2.5, 2), (math.pi, 2), (2.3, 1)])
def test_a_circle_over_the_edge_is_drawn_twice(phi, turns):
    images = images_of(phi, 0.8)
    assert len(images) == turns
    angles = phi + 0.799 * np.sin(np.linspace(0, 2 * np.pi, 100))
    for angle in np.arctan2(np.sin(angles), np.cos(angles)):  # every point of it is inside one of the two
        assert min(abs(angle - image) for image in images) <= 0.8


@drawn
def test_the_view_of_an_event_has_its_objects_at_their_places(ax):
    from matplotlib.patches import Circle

    jets = [
        EventObject(FATJET, 0, 450.4, 0.5, 3.0, 80.0),
        EventObject(JET, 0, 60.0, -1.0, 0.2, 8.0),
        EventObject(MUON, 0, 31.0, 1.5, -1.0, 0.1),
    ]
    particles = Particles(
        *np.array([[100.0, 50.0, 1.0], [0.4, 0.6, -4.0], [3.1, -3.1, 0.0], [0.1, 0.1, 0.0]]),
        np.array(["photons", "muons", "muons"], object),
    )
    draw_eta_phi(ax, toy(jets, Missing("PuppiMET", 99.6, 1.2), particles))
    circles = [p for p in ax.patches if isinstance(p, Circle)]
    assert [(c.center, c.radius) for c in circles] == [
        ((0.5, 3.0), 0.8),
        ((0.5, 3.0 - 2 * np.pi), 0.8),
        ((-1.0, pytest.approx(0.2)), 0.4),
    ]
    assert {t.get_text() for t in ax.texts} == {"J 450", "j 60", "μ 31", "MET 100"}
    points = {c.get_label(): c for c in ax.collections}
    assert points["photons"].get_offsets().tolist() == [[0.4, 3.1]]
    assert sorted(points["muons"].get_offsets().tolist()) == [[-4.0, 0.0], [0.6, pytest.approx(-3.1)]]
    largest, half = points["photons"].get_sizes()[0], points["muons"].get_sizes()[0]
    assert largest == pytest.approx(2 * half)
    assert [line.get_ydata() for line in ax.lines if line.get_linestyle() == "--"] == [[1.2, 1.2]]
    assert ax.get_xlim()[1] == -ax.get_xlim()[0] >= 4.0
    for text in ax.texts:  # labels are inside
        assert abs(text.get_position()[1]) < np.pi


@drawn
def test_labels_do_not_cover_each_other(ax):
    labels = Labels(ax, 3.2, np.pi, inches=6.0)
    for _ in range(4):
        labels.put("J 450", [(0, 0.8, 0, 1), (0, -0.8, 0, -1), (0.8, 0, 1, 0), (-0.8, 0, -1, 0)])
    places = {text.get_position() for text in ax.texts}
    assert len(places) == 4


@drawn
def test_momenta_across_the_beams_are_lengths_and_directions(ax):
    from matplotlib.patches import Wedge

    jets = [EventObject(FATJET, 0, 450.0, 0.5, 1.0, 80.0), EventObject(JET, 0, 20.0, -1.0, 0.2, 8.0)]
    particles = Particles(
        *np.array([[100.0, 50.0, 25.0], [0.4, 0.6, 0.1], [-np.pi, np.pi, 0.03], [0.1, 0.1, 0.0]]),
        np.array(["photons"] * 3, object),
    )
    draw_transverse(ax, toy(jets, Missing("PuppiMET", 99.6, -1.2), particles))
    wedges = [p for p in ax.patches if isinstance(p, Wedge)]
    assert [(w.r, w.theta1, w.theta2) for w in wedges] == [
        (o.pt, pytest.approx(math.degrees(o.phi - o.kind.radius)), pytest.approx(math.degrees(o.phi + o.kind.radius))) for o in jets
    ]  # fmt: skip
    arrow = next(t for t in ax.texts if t.get_text() == "")
    assert arrow.xy == pytest.approx((99.6 * math.cos(1.2), -99.6 * math.sin(1.2)))
    assert {t.get_text() for t in ax.texts} - {""} == {"J 450", "MET 100"}  # the soft jet has no number


def test_the_flow_of_constituents_is_their_sum_in_five_degrees():
    rng = np.random.default_rng(1)
    pt, phi = rng.exponential(10, 500), rng.uniform(-np.pi, np.pi, 500)
    phi[:2] = -np.pi, np.pi
    sums = flow(Particles(pt, phi, phi, pt, np.full(500, "photons", object)))
    assert sums.sum() == pytest.approx(pt.sum())
    for k in range(72):
        low, high = np.radians(-180 + 5 * k), np.radians(-175 + 5 * k)
        want = sum(p for p, f in zip(pt[2:], phi[2:], strict=True) if low <= f < high) + (pt[:2].sum() if k == 0 else 0)
        assert sums[k] == pytest.approx(want)


@drawn
def test_a_jet_is_drawn_about_its_axis_with_a_line_to_each_constituent(ax):
    opened = event(SVJ, 7)
    jet = jets_of(opened, content_of(opened))[0]
    draw_jet(ax, jet)
    points = np.concatenate([c.get_offsets() for c in ax.collections if c.get_label() in set(jet.particles.kind)])
    turn = np.arctan2(np.sin(jet.particles.phi - jet.jet.phi), np.cos(jet.particles.phi - jet.jet.phi))
    want = np.stack([jet.particles.eta - jet.jet.eta, turn], axis=1)
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(want, axis=0))
    lines = [segment for c in ax.collections if hasattr(c, "get_segments") for segment in c.get_segments()]
    assert len(lines) == len(jet.particles)
    assert {t.get_text() for t in ax.texts} == {f"{k + 1}: {part.pt:.0f} GeV" for k, part in enumerate(jet.subjets)}


@drawn
def test_the_lund_plane_has_a_point_for_each_splitting_at_its_coordinates(ax):
    opened = event(SVJ, 7)
    jet = jets_of(opened, content_of(opened))[0]
    draw_lund(ax, jet)
    (points,) = (c for c in ax.collections if len(c.get_offsets()))
    assert np.array_equal(points.get_offsets(), jet.splittings[:, :2])
    x, y = ax.lines[1].get_data()  # z = 1/2: kT = pT Δ / 2
    assert np.exp(y + x) == pytest.approx(jet.jet.pt / 2)
    assert np.all(jet.splittings[:, 0] > ax.get_xlim()[0])


@drawn
def test_the_map_is_labelled_by_its_slots_and_numbers(ax):
    content = rmm_of(event(TTBAR, 5))
    draw_rmm(ax, content)
    assert np.array_equal(ax.images[0].get_array(), content.values)
    assert tuple(t.get_text() for t in ax.get_xticklabels()) == content.slots
    assert [t.get_text() for t in ax.texts] == [f"{v:.2g}" for v in content.values.ravel() if v > 0]


@drawn
def test_every_view_is_written_to_a_path_and_into_memory(tmp_path, unarranged):
    opened = event(SVJ, 7, dataset="svj")
    assert set(VIEWS) == {"event", "transverse", "jet", "lund", "rmm"}
    for view in VIEWS:
        draw_event(opened, image := io.BytesIO(), view, scores={"ad_logp": 1.5})
        assert image.getvalue().startswith(b"\x89PNG")
    draw_event(opened, tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(UnknownName, match="unknown view 'lnd'; did you mean 'lund'"):
        draw_event(opened, tmp_path / "b.png", "lnd")
    assert not (tmp_path / "b.png").exists()


# the verb


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "r"
    run({"svj": entry(SVJ), "qcd": entry(QCD)}, folder)
    return folder


def display(*words):
    return main(["display", *map(str, words)])


def drawn_in(folder):
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


@drawn
def test_the_best_events_of_results_are_drawn_under_their_ids(results, tmp_path, capsys, unarranged, monkeypatch):
    from coffea_ad.plotting.displays import views

    titles = []
    monkeypatch.setattr(
        views, "title", lambda content, scores, _=(): titles.append((content.dataset, content.event, scores)) or ""
    )
    assert display(results, "-n", 2, "--datasets", "svj", "-o", tmp_path / "out", "--views", "event", "lund") == 0
    main(["events", str(results), "-n", "2", "--datasets", "svj", "--format", "json"])
    import json

    text = capsys.readouterr().out
    records = json.loads(text[text.index("[") :])
    ids = [tuple(r[name] for name in IDS) for r in records]
    assert drawn_in(tmp_path / "out") == sorted(
        f"svj_{a}_{b}_{c}_{view}.png" for a, b, c in ids for view in ("event", "lund")
    )
    assert titles == [("svj", i, {"met": r["met"]}) for i, r in zip(ids, records, strict=True) for _ in range(2)]
    before = {p: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    name = ":".join(map(str, ids[1]))
    assert display(results, "--event", name, "-o", tmp_path / "out", "--views", "event") == 1
    assert "exists already" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert display(results, "--event", name, "-o", tmp_path / "out", "--views", "event", "--force") == 0


@drawn
def test_events_of_files_are_drawn_by_ids_entries_or_as_the_first(tmp_path, capsys, unarranged):
    ids = [int(v) for v in branches(SVJ, 7, *IDS)]
    assert (
        display(
            SVJ, QCD, "--event", ":".join(map(str, ids)), "-o", tmp_path / "a", "--views", "event", "--format", "svg"
        )
        == 0
    )
    assert drawn_in(tmp_path / "a") == ["svj_v15_" + "_".join(map(str, ids)) + "_event.svg"]
    assert display(SVJ, "--entry", 7, 7, "-o", tmp_path / "b", "--views", "event") == 0
    assert drawn_in(tmp_path / "b") == ["svj_v15_" + "_".join(map(str, ids)) + "_event.png"]
    assert display(SVJ, "-n", 1, "-o", tmp_path / "c", "--views", "event") == 0
    first = "_".join(str(v) for v in branches(SVJ, 0, *IDS))
    assert drawn_in(tmp_path / "c") == [f"svj_v15_{first}_event.png"]
    copy = (
        shutil.copytree(DATA, tmp_path / "copy", ignore=lambda _, names: [n for n in names if n != SVJ.name]) / SVJ.name
    )
    assert display(SVJ, copy, "--event", ":".join(map(str, ids)), "-o", tmp_path / "d", "--views", "event") == 0
    assert len(drawn_in(tmp_path / "d")) == 2  # two events of the same numbers do not take each other's place


@drawn
def test_views_that_a_file_has_not_are_left_out_with_a_sentence(without_constituents, tmp_path, capsys, unarranged):
    assert display(without_constituents, "--entry", 7, "-o", tmp_path / "a") == 0
    said = capsys.readouterr().out
    assert "plain_11_1_8_lund is left out" in said
    assert "there are no constituents of AK8 jets" in said
    assert [name.rpartition("_")[2] for name in drawn_in(tmp_path / "a")] == [
        "event.png",
        "jet.png",
        "rmm.png",
        "transverse.png",
    ]
    bare = copy_events(without_constituents, tmp_path / "bare.root", stop=9, drop="simulation")
    assert display(bare, "--entry", 7, "-o", tmp_path / "b", "--views", "rmm") == 1
    shown = capsys.readouterr()
    assert "say --campaign" in shown.out
    assert "nothing was drawn" in shown.err
    assert display(bare, "--entry", 7, "-o", tmp_path / "b", "--views", "rmm", "--campaign", "2024") == 0


@pytest.mark.plot
@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["RESULTS", "-n", "0"], "-n is 0"),
        (["RESULTS", "--event", "1:2:3"], "1:2:3 is not in the lists of events"),
        (["RESULTS", "--event", "1:2:3", "--list", "met"], "1:2:3 is not in the list met"),
        (["RESULTS", "--event", "1:2"], "write run:lumi:event"),
        (["RESULTS", "--list", "mt"], "did you mean 'met'"),
        (["RESULTS", "--datasets", "svi"], "did you mean 'svj'"),
        (["RESULTS", "--entry", "1"], "--entry is for a file"),
        (["RESULTS", "FILE"], "give one results folder"),
        (["nothing"], "not a results folder"),
        (["FILE", "--event", "11:1:999"], "there is no event 11:1:999"),
        (["FILE", "--list", "met"], "--list is for results"),
        (["FILE", "FILE", "--entry", "1"], "--entry is for one file"),
        (["FILE", "--entry", "200"], "there is no entry 200"),
        (["FILE", "--campaign", "218"], "did you mean '2018'"),
        (["FILE", "--tree", "Event"], "there is no tree 'Event'"),
        (["gone.root"], "gone.root: there is no such file"),
    ],
)
def test_wrong_words_are_named_and_nothing_is_drawn(words, match, results, tmp_path, capsys):
    places = {"RESULTS": str(results), "FILE": str(SVJ)}
    assert display(*(places.get(w, w) for w in words), "-o", tmp_path / "out") == 1
    assert match in capsys.readouterr().err
    assert drawn_in(tmp_path / "out") == []


@pytest.mark.plot
def test_files_that_are_gone_or_others_are_named(tmp_path, capsys):
    path = shutil.copy(SVJ, tmp_path / "svj.root")
    run({"svj": entry(path)}, tmp_path / "r")
    shutil.copy(QCD, path)
    assert display(tmp_path / "r", "-o", tmp_path / "out") == 1
    assert "svj.root: this is not the file that the results were made of" in capsys.readouterr().err
    (tmp_path / "svj.root").unlink()
    assert display(tmp_path / "r", "-o", tmp_path / "out") == 1
    assert "svj.root: there is no such file" in capsys.readouterr().err


@pytest.mark.plot
def test_blinded_data_have_no_displays(tmp_path, capsys):
    search({"met": entry(SVJ, mc=False)}, tmp_path / "r", lumi=1.0)
    assert display(tmp_path / "r", "-o", tmp_path / "out") == 1
    assert "blinded data have none" in capsys.readouterr().err


# real files


@pytest.mark.real
@drawn
@pytest.mark.parametrize("name", ["nano_tt_v15", "nano_tt_v12", "pfnano", "nano_dy", "nano_dimuon", "nano_tree"])
def test_real_files_of_every_flavour_are_drawn(name, tmp_path, unarranged):
    path = REAL / f"{name}.root"
    flavours = {"nano_tt_v15": ("AK8 jet",), "pfnano": ("AK8 jet", "AK4 jet")}
    number = 3 if name == "pfnano" else 2
    opened = event(path, number, campaign="2018")
    content = content_of(opened)
    assert content.with_particles == flavours.get(name, ())
    assert content.event == tuple(int(v) for v in branches(path, number, *IDS))
    draw_event(opened, tmp_path / "event.png")
    draw_event(opened, tmp_path / "transverse.png", "transverse")
    if name == "pfnano":  # no candidate is drawn twice, though two jets have it
        places = list(zip(content.particles.eta, content.particles.phi, content.particles.pt, strict=True))
        assert len(places) == len(set(places))
        jet = jets_of(opened, content)[0]
        total = ak.sum(jet.particles.pt)
        assert total == pytest.approx(jet.jet.pt, rel=0.1)
