"""A model may take some of the columns that a skim holds; the card says which, and the tagger computes the same."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import coffea_ad as ad
from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.features.spec import feature_spec
from coffea_ad.features.substructure import WNAE_INPUTS
from coffea_ad.skims.files import SKIM_KEY
from coffea_ad.skims.reading import load_skim


@pytest.fixture(scope="module")
def skim(tmp_path_factory, svj_file):
    out = tmp_path_factory.mktemp("skims")
    fileset = {"svj": {"files": {str(svj_file): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    ad.run(fileset, "skim_jets", executor="iterative", output=out)
    return out


def test_a_plus_adds_to_the_usual_observables():
    options = ad.features.get("jet_substructure").resolve({"observables": ["+multiplicity"]})
    assert options.names == (*WNAE_INPUTS, "multiplicity")
    stored = ad.features.get("jet_substructure").resolve({"source": "stored", "observables": ["+tau21"]})
    assert stored.names == ("tau1", "tau2", "tau3", "tau4", "msoftdrop", "mass", "tau21")
    with pytest.raises(ConfigError, match="name each observable once"):
        ad.features.get("jet_substructure").resolve({"observables": ["+tau2"]})


def test_a_skim_holds_the_number_of_constituents_beside_the_usual_inputs(skim):
    usual = load_skim(skim, "jet_substructure")
    nine = load_skim(skim, "jet_substructure", {"observables": ["+multiplicity"]})
    assert usual.x.shape[1] == 8
    assert nine.x.shape[1] == 9
    np.testing.assert_array_equal(nine.x[:, :8], usual.x)
    np.testing.assert_array_equal(nine.x[:, 8], nine.spectators["multiplicity"])
    assert len(np.unique(nine.x[:, 8])) > 10


def test_columns_come_in_the_order_that_was_asked_for(skim):
    usual = load_skim(skim, "jet_substructure")
    some = load_skim(skim, "jet_substructure", {"observables": ["tau3", "sigma1"]})
    assert [c.name for c in some.feature.columns] == ["tau3", "sigma1"]
    np.testing.assert_array_equal(some.x, usual.x[:, [7, 0]])


def test_a_column_that_the_skim_lacks_is_named(skim):
    with pytest.raises(SkimError, match=r"jet_substructure has no column d2, girth; skim again"):
        load_skim(skim, "jet_substructure", {"observables": ["d2", "tau3", "girth"]})
    with pytest.raises(SkimError, match=r"unknown feature 'jet_substructure\[beta=1.0\]'"):
        load_skim(skim, "jet_substructure", {"beta": 1.0})


def test_columns_of_other_conventions_are_never_taken(skim, tmp_path):
    """Observables that were stored under a name of their own, as skims once did, are found; other conventions are not."""
    (source,) = skim.rglob("*.parquet")
    table = pq.read_table(source)
    metadata = json.loads(table.schema.metadata[SKIM_KEY])
    described = metadata["features"].pop("jet_substructure")
    key = "jet_substructure[observables=" + "+".join(described["columns"]) + "]"

    def copy(options):
        metadata["features"] = {key: {**described, "options": options}}
        out = tmp_path / f"beta{options['beta']}"
        names = [n.replace("jet_substructure.", f"{key}.") for n in table.column_names]
        other = table.rename_columns(names).replace_schema_metadata({SKIM_KEY: json.dumps(metadata)})
        path = out / source.relative_to(skim)
        path.parent.mkdir(parents=True)
        pq.write_table(other, path)
        (out / "manifest.json").write_text((skim / "manifest.json").read_text())
        return out

    old = load_skim(copy(described["options"]), "jet_substructure", {"observables": ["tau2"]})
    np.testing.assert_array_equal(old.x, load_skim(skim, "jet_substructure", {"observables": ["tau2"]}).x)
    with pytest.raises(SkimError, match="unknown feature"):
        load_skim(copy({**described["options"], "beta": 1.0}), "jet_substructure", {"observables": ["tau2"]})


def test_one_feature_cannot_be_stored_twice_with_other_columns(svj_file, tmp_path):
    fileset = {"svj": {"files": {str(svj_file): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    twice = "features=[{name: jet_substructure}, {name: jet_substructure, options: {observables: [d2]}}]"
    with pytest.raises(ConfigError, match="jet_substructure is asked for twice"):
        ad.run(fileset, "skim_jets", executor="iterative", output=tmp_path, overrides=[twice])


def test_the_card_names_the_columns_and_the_tagger_makes_them(skim, svj):
    spec = feature_spec("jet_substructure", {"observables": ["tau3", "multiplicity"]})
    spec.check()
    values, _ = ad.features.compute("jet_substructure", svj, **spec.options)
    rows = load_skim(skim, spec.name, spec.options).x
    stored = {tuple(row) for row in values.tolist()}
    assert all(tuple(row) in stored for row in rows.tolist())
