"""Datacards of combine and tables of HEPData: what is read again is what was written."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import uproot
import yaml

from coffea_ad.errors import ConfigError
from coffea_ad.search.channels import Channel, Sample
from coffea_ad.search.exports import LimitTable, SpectrumTable, datacard, write_datacard, write_hepdata

# the validator of HEPData leaves the tables open
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

EDGES = [1000.0, 1200.0, 1500.0, 2000.0]


def channels():
    b, s = np.array([200.0, 100.0, 40.0]), np.array([2.0, 15.0, 8.0])
    lumi = {"lumi": (0.984, 1.016)}
    qcd = Sample(b, 0.02 * b, variations={"jes": (1.1 * b, 0.95 * b)}, norm={"xsec": (0.9, 1.2), **lumi})
    tt = Sample(0.1 * b, 0.01 * b, norm={"jes": (0.97, 1.03), **lumi})
    svj = Sample(s, 0.3 * s, signal=True, norm=lumi)
    sr = Channel("sr", EDGES, [213.0, 117.0, 41.0], {"qcd": qcd, "tt": tt, "svj": svj}, "GeV", "m_T")
    cr = Channel(
        "cr", EDGES[:3], [900, 510], {"qcd": Sample([880, 530], [9, 5], norm=lumi), "tt": Sample([0, 0], [0, 0])}
    )
    return [sr, cr]


def parsed(text):
    """The lines of a card: numbers, observations by channel, and a column for each process of a channel."""
    lines = [line.split() for line in text.splitlines() if not line.startswith("-")]
    card = {"systematics": {}, "shapes": [], "stats": {}}
    rows = []
    for words in lines:
        if words[0] in ("imax", "jmax", "kmax"):
            card[words[0]] = int(words[1])
        elif words[0] == "shapes":
            card["shapes"].append(words[1:])
        elif words[0] == "observation":
            card["observation"] = dict(zip(rows.pop()[1:], map(float, words[1:]), strict=True))
        elif words[0] in ("bin", "process", "rate"):
            rows.append(words)
        elif words[1] in ("lnN", "shape"):
            card["systematics"][words[0]] = (words[1], words[2:])
        elif words[1] == "autoMCStats":
            card["stats"][words[0]] = words[2:]
        else:
            raise AssertionError(words)
    (_, *bins), (_, *names), (_, *numbers), (_, *rates) = rows
    card["columns"] = list(zip(bins, names, map(int, numbers), map(float, rates), strict=True))
    return card


def test_a_datacard_holds_the_numbers_of_the_channels():
    text, _ = datacard(channels())
    card = parsed(text)
    assert (card["imax"], card["jmax"], card["kmax"]) == (2, 2, 3)
    assert card["observation"] == {"sr": 371, "cr": 1410}
    assert sorted(card["columns"]) == sorted(
        [("sr", "svj", 0, 25.0), ("sr", "qcd", 1, 340.0), ("sr", "tt", 2, 34.0), ("cr", "qcd", 1, 1410.0)]
    )
    at = [column[:2] for column in card["columns"]]
    lines = {source: (kind, dict(zip(at, words, strict=True))) for source, (kind, words) in card["systematics"].items()}
    sr = {name: ("sr", name) for name in ("svj", "qcd", "tt")}
    everywhere = {**dict.fromkeys(sr.values(), "0.984/1.016"), ("cr", "qcd"): "0.984/1.016"}
    assert lines["lumi"] == ("lnN", everywhere)
    assert lines["xsec"] == ("lnN", {sr["svj"]: "-", sr["qcd"]: "0.9/1.2", sr["tt"]: "-", ("cr", "qcd"): "-"})
    assert lines["jes"] == ("shape", {sr["svj"]: "-", sr["qcd"]: "1", sr["tt"]: "1", ("cr", "qcd"): "-"})
    assert card["stats"] == {"sr": ["10", "1"], "cr": ["10", "1"]}
    assert card["shapes"] == [
        ["*", c, "shapes.root", f"{c}/$PROCESS", f"{c}/$PROCESS_$SYSTEMATIC"] for c in ("sr", "cr")
    ]


def test_shapes_keep_contents_and_sums_of_squared_weights(tmp_path):
    both = channels()
    assert [p.rpartition("/")[2] for p in write_datacard(both, tmp_path, name="card")] == ["shapes.root", "card.txt"]
    with uproot.open(tmp_path / "shapes.root") as file:
        for channel in both:
            assert file[f"{channel.name}/data_obs"].values() == pytest.approx(channel.observed)
            for name, sample in channel.samples.items():
                if sample.nominal.sum():
                    h = file[f"{channel.name}/{name}"]
                    assert h.values() == pytest.approx(sample.nominal)
                    assert h.variances() == pytest.approx(sample.variance)
                    assert h.axis().edges() == pytest.approx(channel.edges)
        sr = both[0].samples
        assert file["sr/qcd_jesUp"].values() == pytest.approx(1.1 * sr["qcd"].nominal)
        assert file["sr/qcd_jesUp"].variances() == pytest.approx(1.1**2 * sr["qcd"].variance)
        assert file["sr/qcd_jesDown"].values() == pytest.approx(0.95 * sr["qcd"].nominal)
        assert file["sr/tt_jesUp"].values() == pytest.approx(
            1.03 * sr["tt"].nominal
        )  # of number, and of shape elsewhere
        assert file["sr/tt_jesDown"].values() == pytest.approx(0.97 * sr["tt"].nominal)
        assert not [key for key in file.keys(cycle=False) if key == "cr/tt" or "xsec" in key or "lumi" in key]
    card = parsed((tmp_path / "card.txt").read_text())
    paths = {f"{c}/{n}" for c, n, _, _ in card["columns"]}
    with uproot.open(tmp_path / "shapes.root") as file:
        assert paths <= set(file.keys(cycle=False))  # every process that the card names has its shape


def test_the_workspace_and_the_datacard_have_the_same_bins():
    """A bin of −0.3 is refused by both, and a floor raises it in both."""
    sr, cr = channels()
    wrong = replace(sr, samples={**sr.samples, "qcd": replace(sr.samples["qcd"], nominal=[200.0, -0.3, 40.0])})
    with pytest.raises(ConfigError, match=r"channel sr, sample qcd, bin 1200 to 1500 GeV: -0\.3 events"):
        datacard([wrong, cr])


def test_names_that_collide_are_refused():
    sr, _ = channels()
    twice = {**sr.samples, "qcd_jesUp": Sample([1, 1, 1], [1, 1, 1])}
    with pytest.raises(ConfigError, match="two histograms would be sr/qcd_jesUp"):
        datacard([replace(sr, samples=twice)])
    other = replace(sr, name="b", samples={**sr.samples, "tt": replace(sr.samples["tt"], signal=True)})
    with pytest.raises(ConfigError, match="sample tt is signal in one channel and background in another"):
        datacard([sr, other])


hepdata = pytest.importorskip("hepdata_lib", reason="not installed: the extra `search`", exc_type=ImportError)


def limits(**changes):
    mass, expected = [1500.0, 2000.0, 2500.0], np.array([0.1, 0.05, 0.02])
    bands = {s: (expected * (1 - 0.3 * s), expected * (1 + 0.5 * s)) for s in (1, 2)}
    settings = {"observed": [0.12, 0.04, 0.02], "expected": expected, "bands": bands, "mass_name": "m_Z'", **changes}
    return LimitTable("Limits", "Limits on the cross section.", mass, **settings)


def errors_of(value):
    """{label: (down, up)} of a value of HEPData."""
    out = {}
    for error in value.get("errors", []):
        if "symerror" in error:
            out[error["label"]] = (-error["symerror"], error["symerror"])
        else:
            out[error["label"]] = (error["asymerror"]["minus"], error["asymerror"]["plus"])
    return out


def test_a_hepdata_folder_is_valid_and_holds_the_numbers(tmp_path):
    from hepdata_validator.full_submission_validator import FullSubmissionValidator

    sr, _ = channels()
    tables = [SpectrumTable("Spectrum of sr", "Transverse mass.", sr), limits()]
    written = write_hepdata(tables, tmp_path / "hepdata", comment="A search.")
    assert sorted(p.rpartition("/")[2] for p in written) == ["limits.yaml", "spectrum_of_sr.yaml", "submission.yaml"]
    assert FullSubmissionValidator().validate(directory=str(tmp_path / "hepdata"))
    about, *entries = yaml.safe_load_all((tmp_path / "hepdata" / "submission.yaml").read_text())
    assert about["comment"] == "A search."
    assert [e["data_file"] for e in entries] == ["spectrum_of_sr.yaml", "limits.yaml"]

    table = yaml.safe_load((tmp_path / "hepdata" / "spectrum_of_sr.yaml").read_text())
    (axis,) = table["independent_variables"]
    assert [(v["low"], v["high"]) for v in axis["values"]] == list(pairwise(EDGES))
    assert axis["header"] == {"name": "m_T", "units": "GeV"}
    columns = {v["header"]["name"]: v["values"] for v in table["dependent_variables"]}
    assert [v["value"] for v in columns["Observed"]] == [213, 117, 41]
    assert [v["value"] for v in columns["Expected background"]] == pytest.approx(sr.expected())
    first = errors_of(columns["Expected background"][0])
    assert first["stat"] == pytest.approx((-np.sqrt(6), np.sqrt(6)))
    assert first["jes"] == pytest.approx((-10 - 0.6, 20 + 0.6))
    assert first["xsec"] == pytest.approx((-20, 40))
    assert [v["value"] for v in columns["svj"]] == [2, 15, 8]

    table = yaml.safe_load((tmp_path / "hepdata" / "limits.yaml").read_text())
    observed, expected = table["dependent_variables"]
    assert [v["value"] for v in observed["values"]] == [0.12, 0.04, 0.02]
    assert errors_of(expected["values"][1])["1 s.d."] == pytest.approx((-0.015, 0.025))
    assert errors_of(expected["values"][1])["2 s.d."] == pytest.approx((-0.03, 0.05))


def test_blinded_tables_have_no_observation(tmp_path):
    sr, _ = channels()
    write_hepdata([SpectrumTable("s", "s", sr, observed=False), limits(observed=None)], tmp_path)
    for name, columns in (("s", ["Expected background", "svj"]), ("limits", 1)):
        table = yaml.safe_load((tmp_path / f"{name}.yaml").read_text())["dependent_variables"]
        headers = [v["header"]["name"] for v in table]
        assert headers == columns or len(headers) == columns
        assert not any("Observed" in header for header in headers)


def test_large_counts_keep_their_last_digit(tmp_path):
    sr, _ = channels()
    write_hepdata([SpectrumTable("s", "s", replace(sr, observed=[1234567, 1, 2]))], tmp_path)
    assert "value: 1234567" in (tmp_path / "s.yaml").read_text()


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ([], "no tables"),
        ([limits(), limits()], "table 'Limits': a name of its own"),
        ([replace(limits(), name="a/b")], "table 'a/b'"),
        ([limits(expected=[0.1, np.nan, 0.2])], "expected must be as many finite numbers"),
        ([limits(observed=[0.1])], "observed must be as many finite numbers"),
    ],
)
def test_tables_that_are_none_are_refused(tables, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        write_hepdata(tables, tmp_path)
    assert not list(tmp_path.iterdir())
