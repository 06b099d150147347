"""The table of features: what it says of itself, features of other packages, the command that shows it."""

from __future__ import annotations

import numpy as np
import pytest

import coffea_ad as ad
from coffea_ad import cli
from coffea_ad.errors import BadFeature, CardMismatch, ConfigError, UnknownName
from coffea_ad.features import FEATURES
from coffea_ad.features.spec import FeatureSpec, feature_spec

PLUGIN = """
import numpy as np
from coffea_ad.features import Column, Feature, Options, at_once

class MetOptions(Options):
    scale: float = 1.0

met = Feature(
    name="my_met", version=3, level="event", columns=lambda _: (Column("met", "GeV"),),
    reads=lambda collection, options: (("PuppiMET_pt",),),
    rows=at_once(lambda objects, options: np.asarray(objects.array.PuppiMET["pt"], np.float32)[:, None] * options.scale),
    options=MetOptions, convention="PUPPI MET times scale", reference="",
)
not_a_feature = 1
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """An installed package that announces features: a good one, two bad ones, and one that has a name of ours."""
    (tmp_path / "my_package.py").write_text(PLUGIN)
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[coffea_ad.features]\nmy_met = my_package:met\nmy_number = my_package:not_a_feature\n"
        "my_gone = my_package:gone\nrmm = my_package:met\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    FEATURES.pop("my_met", None)


def test_features_of_other_packages_are_found_by_name(plugin, svj):
    values, counts = ad.features.compute("my_met", svj, scale=2.0)
    np.testing.assert_allclose(values[:, 0], 2 * np.asarray(svj.PuppiMET["pt"]), rtol=1e-6)
    assert counts.tolist() == [1] * len(svj)
    assert ad.features.get("my_met").key({"scale": 2.0}) == "my_met[scale=2.0]"
    feature_spec("my_met", {"scale": 2.0}).check()


def test_what_another_package_announces_but_cannot_give_is_named(plugin):
    with pytest.raises(BadFeature, match="feature 'my_number' of my-package .* is not a coffea_ad.features.Feature"):
        ad.features.get("my_number")
    with pytest.raises(BadFeature, match="feature 'my_gone' of my-package .* cannot be loaded: AttributeError"):
        ad.features.get("my_gone")
    with pytest.raises(UnknownName, match="did you mean 'my_met'"):
        ad.features.get("my_mat")


def test_features_of_ours_cannot_be_replaced(plugin):
    assert "rmm" not in ad.features.plugins()
    assert ad.features.get("rmm").level == "event"
    assert ad.features.get("rmm").version == 1


def test_the_command_lists_all_features_and_says_what_is_broken(plugin, capsys):
    assert cli.main(["features"]) == 0
    out = capsys.readouterr().out
    for name in (*FEATURES, "my_met"):
        assert name in out
    assert "note: feature 'my_gone' of my-package" in out
    assert "50 × 3" in out


@pytest.mark.parametrize("name", list(FEATURES))
def test_the_command_shows_each_feature_in_full(name, capsys):
    assert cli.main(["features", name]) == 0
    out = capsys.readouterr().out
    feature = FEATURES[name]
    options = feature.resolve({})
    for option in feature.options.model_fields:
        assert option in out
    for branch in feature.reads("FatJet", options)[0]:
        assert branch in out
    assert f"version {feature.version}" in out
    for word in (feature.level, feature.columns(options)[0].name, feature.reference.split(",", maxsplit=1)[0]):
        assert word in out


def test_wrong_options_on_the_command_line_are_one_sentence(capsys):
    assert cli.main(["features", "dijet", "inputs=extended1", "source=stored"]) == 1
    assert "inputs=extended1 needs source=constituents" in capsys.readouterr().err
    assert cli.main(["features", "rmm", "sqrts=13000"]) == 1
    assert "unknown option 'sqrts'; did you mean 'sqrt_s'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(FEATURES))
def test_every_feature_declares_shape_columns_and_a_stable_key(name):
    feature = FEATURES[name]
    options = feature.resolve({})
    columns = feature.columns(options)
    assert len({c.name for c in columns}) == len(columns)
    shape = feature.row_shape(options)
    assert all(n > 0 for n in shape)
    assert shape[-1] == len(columns) or len(columns) == 1
    assert feature.key({}) == name
    assert feature.resolve(options.model_dump(mode="json")) == options  # what a card stores means the same
    feature_spec(name).check()


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        (
            "jet_substructure",
            {"beta": 1, "observables": ["d2", "tau21"]},
            "jet_substructure[beta=1.0,observables=d2+tau21]",
        ),
        ("rmm", {"preset": "T5N10"}, "rmm[preset=T5N10]"),
        ("jet_constituents", {"n": 20, "columns": ["pt", "mask"]}, "jet_constituents[columns=pt+mask,n=20]"),
    ],
)
def test_options_stand_in_the_key(name, options, key):
    assert ad.features.get(name).key(options) == key


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("jet_substructure", {"observables": ["tau21", "d3"]}, "unknown observable 'd3'"),
        ("jet_substructure", {"observables": ["tau21", "tau21"]}, "name each observable once"),
        ("jet_substructure", {"observables": []}, "name each observable once"),
        ("jet_substructure", {"source": "stored", "observables": ["efp1"]}, "unknown observable 'efp1'"),
        ("jet_substructure", {"observables": ["lambda_1"]}, "write it as lambda_1_0.5"),
        ("jet_substructure", {"axes": "OnePass_CA"}, "option axes is 'OnePass_CA': Input should be"),
        ("jet_images", {"pixels": 1}, "option pixels is 1: "),
        ("jet_images", {"rotate": "yes"}, "option rotate is 'yes': "),
        ("rmm", {"slots": [1, 2, 3]}, "option slots"),
        ("rmm", {"sqrt_s": float("nan")}, "option sqrt_s is nan"),
        ("rmm", {"jet_eta_max": 20.0}, "option jet_eta_max is 20.0"),
    ],
)
def test_wrong_options_are_named(name, options, text):
    with pytest.raises(ConfigError) as caught:
        ad.features.get(name).resolve(options)
    assert text in str(caught.value)
    assert str(caught.value).startswith(f"{name}: ")


def test_a_card_with_another_shape_or_version_is_refused():
    spec = feature_spec("jet_constituents", {"n": 20})
    assert spec.row_shape == (20, 3)
    spec.check()
    with pytest.raises(CardMismatch, match=r"have the shape \(10, 3\), but the feature's \(20, 3\)"):
        spec.model_copy(update={"shape": (10, 3)}).check()
    with pytest.raises(CardMismatch, match="asks for jet_constituents version 2"):
        spec.model_copy(update={"version": 2}).check()


def test_cards_from_before_an_option_was_added_mean_its_default():
    old = FeatureSpec(
        name="jet_substructure", version=1, options={"source": "constituents", "beta": 0.5, "R0": 0.8, "z_cut": 0.1},
        columns=tuple(feature_spec("jet_substructure").columns),
    )  # fmt: skip
    old.check()
    assert old.key == "jet_substructure"


def test_stored_observables_are_the_branches_or_ratios_of_them(svj):
    values, _ = ad.features.compute(
        "jet_substructure", svj, source="stored", observables=["tau21", "tau3", "msoftdrop"]
    )
    tau1, tau2, tau3 = (np.concatenate([np.asarray(j) for j in svj.FatJet[k]]) for k in ("tau1", "tau2", "tau3"))
    np.testing.assert_allclose(values[:, 0], tau2 / tau1, rtol=1e-6)
    np.testing.assert_array_equal(values[:, 1], tau3)
    reads = ad.features.get("jet_substructure").reads
    options = ad.features.get("jet_substructure").resolve({"source": "stored", "observables": ["tau21"]})
    assert reads("FatJet", options) == (("FatJet_tau2", "FatJet_tau1"),)


def test_what_a_feature_gives_is_checked(monkeypatch, svj):
    """Of another package, it may give doubles or too few rows: that has to be said before a network sees them."""
    from coffea_ad.features import Column, Feature

    for values, text in (
        (np.zeros((150, 1)), "float64 of shape (150, 1)"),
        (np.zeros((149, 1), np.float32), "float32 of shape (149, 1)"),
        (np.zeros(150, np.float32), "float32 of shape (150,)"),
    ):
        bad = Feature(
            name="bad", version=1, level="event", columns=lambda _: (Column("x"),), reads=lambda *_: ((),),
            rows=lambda *_, v=values: lambda *_: v, convention="toy", reference="",
        )  # fmt: skip
        monkeypatch.setitem(FEATURES, "bad", bad)
        with pytest.raises(BadFeature) as caught:
            ad.features.compute("bad", svj)
        assert f"feature bad gives {text}, but should give float32 of shape (150, 1)" in str(caught.value)


def test_blocks_are_checked_as_compute_is(svj):
    for size in (0, -1):
        with pytest.raises(ConfigError, match="cannot be made"):
            list(ad.features.blocks("rmm", svj, size=size))
    with pytest.raises(ad.errors.MissingIndex, match=r"events\[3:4\]"):
        list(ad.features.blocks("rmm", svj[3]))
    assert list(ad.features.blocks("jet_substructure", svj[:0], collection="Other")) == []


def test_one_name_alone_will_do_for_a_list():
    assert ad.features.get("jet_substructure").resolve({"observables": "tau21"}).names == ("tau21",)


def test_differences_between_cards_and_features_are_short():
    spec = feature_spec("rmm")
    with pytest.raises(CardMismatch) as caught:
        spec.model_copy(update={"options": {**spec.options, "preset": "T5N10"}}).check()
    assert len(str(caught.value)) < 700


def test_skims_are_of_one_level(svj):
    from coffea_ad.features.spec import FeatureConfig
    from coffea_ad.skims.writing import feature_reads

    with pytest.raises(ConfigError, match="rmm is a feature of the event level, but the rows of this skim are jets"):
        feature_reads([FeatureConfig(name="rmm")], "jet")
