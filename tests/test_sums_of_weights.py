"""Weights that cancel, that few events carry, and jets without a momentum: said, counted, never normalised to nothing."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from test_undefined import poison
from toys import DATA, copy_events

import coffea_ad as ad
from coffea_ad import cli
from coffea_ad.cli.results import plot_figures, show
from coffea_ad.errors import NotNormalisable, UnknownName
from coffea_ad.selection import leading_jets
from coffea_ad.weights import normalisation, weight_sums

SVJ = DATA / "svj_v15.root"
LOOSE = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9", "lepton_pt_min=1e4"]


def entry(*paths):
    return {"files": {str(p): "Events" for p in paths}, "metadata": {"is_mc": True, "xsec": 1.0}}


def search(fileset, output=None, **kwargs):
    settings = {"executor": "iterative", "progress": False, "config": "none", "overrides": LOOSE, **kwargs}
    return ad.run(fileset, "semivisible_jets", output=output, **settings)


def with_weights(path, make, stop=None):
    def change(columns):
        columns["genWeight"][:] = make(np.arange(len(columns["genWeight"])))

    return copy_events(SVJ, path, stop=stop, change=change)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    made = {
        "zero": lambda i: 0.0 * i,
        "cancel": lambda i: np.where(i % 2, 1.0, -1.0),
        "rounding": lambda i: np.where(i % 2, 0.1, -0.1) * (1 + 1e-16 * i),
        "one": lambda i: np.where(i == 3, 1e12, 1.0),
        "signed": lambda i: np.where(i % 20 < 10, 1.0, -0.95),
    }
    return {name: with_weights(folder / f"{name}.root", make) for name, make in made.items()}


def test_the_sums_of_a_chunk_add_up():
    one, two = np.array([1.0, -2.0]), np.array([0.5])
    assert weight_sums(np.r_[one, two]) == {k: weight_sums(one)[k] + weight_sums(two)[k] for k in weight_sums(one)}


def test_nothing_is_normalised_by_a_sum_of_zero():
    with pytest.raises(NotNormalisable, match="dataset tt: its weights sum to 0"):
        normalisation("tt", {"is_mc": True, "xsec": 1.0}, 0.0, 1.0)
    assert normalisation("met", {"is_mc": False}, 0.0, 1.0) == 1.0


@pytest.mark.parametrize("name", ["zero", "cancel", "rounding"])
def test_weights_that_cancel_end_the_run_with_a_sentence_and_keep_the_raw_histograms(files, name, tmp_path):
    with pytest.raises(NotNormalisable, match="dataset bad: the weights of all events sum to 0") as caught:
        search({"bad": entry(files[name]), "svj": entry(SVJ)}, tmp_path)
    assert caught.value.report.complete
    assert "bad: the weights of its 150 events sum to 0" in "\n".join(caught.value.report.notes)
    results = ad.load_results(tmp_path)
    plain = results.histograms["svj"]["mt"].sum(flow=True)
    raw = results.histograms["bad"]["mt"].sum(flow=True)
    assert raw.variance == pytest.approx({"zero": 0, "cancel": 1, "rounding": 0.01}[name] * plain.variance)
    with pytest.raises(NotNormalisable, match="dataset bad"):
        results.scaled("bad", "mt")
    assert results.scaled("svj", "mt").sum(flow=True).value == pytest.approx(1000 / 150 * plain.value)
    assert set(results.not_normalisable) == {"bad"}


@pytest.mark.plot
def test_figures_and_merging_leave_out_what_cannot_be_normalised(files, tmp_path, capsys):
    for name, kind in (("a", "cancel"), ("b", "zero")):
        with pytest.raises(NotNormalisable):
            search({f"bad_{kind}": entry(files[kind]), f"svj_{name}": entry(SVJ)}, tmp_path / name)
    assert cli.main(["merge", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "ab")]) == 0
    results = ad.load_results(tmp_path / "ab")
    assert set(results.not_normalisable) == {"bad_cancel", "bad_zero"}
    assert plot_figures(tmp_path / "ab") == 6  # five observables and the cutflow
    assert (tmp_path / "ab" / "figures" / "mt_inclusive.png").stat().st_size > 5000


def test_weights_that_add_up_to_zero_only_when_merged_are_noticed(files, tmp_path):
    plus, minus = (with_weights(tmp_path / f"{s:+d}.root", lambda i, s=s: s + 0.0 * i) for s in (1, -1))
    for name, path in (("a", plus), ("b", minus)):
        search({"svj": entry(path)}, tmp_path / name)
    merged = ad.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "ab")
    with pytest.raises(NotNormalisable):
        merged.norm("svj")


def test_effective_numbers_are_in_report_and_table(files, tmp_path, capsys):
    report = search({"one": entry(files["one"]), "signed": entry(files["signed"]), "svj": entry(SVJ)}, tmp_path)
    numbers = {d: e["n_effective"] for d, e in report.datasets.items()}
    assert numbers["svj"] == pytest.approx(150)
    assert numbers["one"] == pytest.approx(1, abs=1e-6)
    w = np.where(np.arange(150) % 20 < 10, 1.0, -0.95)
    assert numbers["signed"] == pytest.approx(w.sum() ** 2 / (w**2).sum())
    assert ad.load_results(tmp_path).report["datasets"]["one"]["n_effective"] == numbers["one"]
    notes = "\n".join(report.notes)
    assert "one: few events carry its sum of weights: 150 events are worth 1 of equal weight" in notes
    assert not any(f"svj: {what}" in notes for what in ("few", "most", "the weights"))
    show(report, None)
    assert "N_eff" in capsys.readouterr().out


def test_chunks_do_not_matter_for_the_effective_number(files):
    whole, parts = (search({"x": entry(files["signed"])}, chunksize=n) for n in (1000, 40))
    assert whole.datasets["x"]["n_effective"] == pytest.approx(parts.datasets["x"]["n_effective"], rel=1e-12)


def test_a_skim_of_weights_that_cancel_is_no_good_skim(files, tmp_path):
    with pytest.raises(NotNormalisable, match="dataset bad"):
        ad.run({"bad": entry(files["cancel"])}, "skim_jets", executor="iterative", output=tmp_path, progress=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_jets_without_a_momentum_do_not_lead(value):
    pt = ak.Array([[500.0, 400.0, value], [value, 400.0, 300.0], [500.0, value], [value], [], [300.0, 400.0]])
    leading, undefined = leading_jets(ak.zip({"pt": pt, "place": ak.local_index(pt)}))
    assert leading["place"].to_list() == [[0, 1], [1, 2], [0, 1], [0], [], [1, 0]]
    assert undefined.tolist() == [False, True, True, True, False, False]


@pytest.mark.parametrize("branch", ["FatJet_pt", "FatJet_eta"])
@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_events_that_fall_out_by_an_undefined_jet_are_counted(branch, value, tmp_path):
    counts = ak.to_numpy(ak.num(_events(SVJ)["FatJet_pt"]))
    many = np.flatnonzero(counts >= 3)[:4]
    first = np.r_[0, np.cumsum(counts)[:-1]]
    copy_events(SVJ, tmp_path / "lead.root", change=lambda c: poison(c, branch, first[many] + 1, value))
    copy_events(SVJ, tmp_path / "third.root", change=lambda c: poison(c, branch, first[many] + 2, value))
    plain, lead, third = (search({"svj": entry(p)}, tmp_path / p.stem) for p in (SVJ, tmp_path / "lead.root", tmp_path / "third.root"))  # fmt: skip
    undefined = [r.datasets["svj"]["undefined"] for r in (plain, lead, third)]
    # a third jet without pT costs no event, and is counted
    assert undefined == [0, len(many), len(many) if branch == "FatJet_pt" else 0]
    assert any("svj: 4 events or values with NaN or infinite numbers" in note for note in lead.notes)
    steps = [r.datasets["svj"]["cutflow"]["two jets"]["events"] for r in (plain, lead, third)]
    assert steps[0] == steps[2]
    assert 0 < steps[0] - steps[1] <= len(many)


@pytest.mark.parametrize("recipe", ["skim_jets", "skim_events"])
def test_skims_count_them_too(recipe, tmp_path):
    copy_events(
        SVJ, tmp_path / "x.root", change=lambda c: poison(c, "Jet_pt" if "ev" in recipe else "FatJet_pt", [0], np.nan)
    )
    report = ad.run(
        {"svj": entry(tmp_path / "x.root")}, recipe, executor="iterative", output=tmp_path / "s", progress=False
    )
    assert report.datasets["svj"]["undefined"] == 1


def test_wrong_names_are_answered_with_the_nearest(tmp_path):
    search({"svj": entry(SVJ)}, tmp_path)
    results = ad.load_results(tmp_path)
    with pytest.raises(UnknownName, match="unknown dataset 'svjj'; did you mean 'svj'"):
        results.scaled("svjj", "mt")
    with pytest.raises(UnknownName, match="unknown histogram of svj 'mtt'; did you mean 'mt'"):
        results.scaled("svj", "mtt")


def test_results_and_reports_are_printed_in_one_line(tmp_path):
    report = search({"svj": entry(SVJ)}, tmp_path)
    assert repr(report) == "<RunReport of semivisible_jets: 150 events of 1 datasets (svj), complete>"
    assert repr(ad.load_results(tmp_path)) == "<Results of semivisible_jets: 5 histograms of 1 datasets (svj)>"


def _events(path):
    import uproot

    with uproot.open(path) as file:
        return file["Events"].arrays(["FatJet_pt"])
