"""Events that all have one number, of private samples: what goes by it says so, and nothing is smeared, divided or dropped by it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_corrections import JEC, energy_file, enrich
from test_duplicates import GENERATED, SVJ, Met
from test_folds import graph, toy_card
from toys import copy_events, open_events

import coffea_ad as ad
from coffea_ad import cli
from coffea_ad.errors import BadFile, CoffeaADError, ConfigError
from coffea_ad.scoring.card import write_card
from coffea_ad.splits import lack_numbers, numbers

N = 40
ALL = rf"alike.root: all {N} events have the same run, luminosityBlock and event, by which "


def alike(columns):
    enrich(columns)
    for name in ("run", "luminosityBlock", "event"):
        columns[name] = np.ones_like(columns[name])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    return {
        "mc": copy_events(SVJ, folder / "alike.root", stop=N, change=alike),
        "data": copy_events(
            SVJ, folder / "data_alike.root", stop=N, change=alike, drop=(*GENERATED, "PSWeight", "LHE")
        ),
        "right": copy_events(SVJ, folder / "right.root", stop=N, change=enrich),
    }


def fileset(path, *, mc=True):
    return {"svj": {"files": {str(path): "Events"}, "metadata": {"is_mc": mc, **({"xsec": 1.0} if mc else {})}}}


@pytest.mark.parametrize("recipe", ["skim_jets", "skim_events"])
def test_a_skim_names_the_file(files, recipe, tmp_path):
    with pytest.raises(CoffeaADError, match=ALL + "training and validation rows are told apart") as caught:
        ad.run(fileset(files["mc"]), recipe, executor="iterative", progress=False, output=tmp_path / "skim")
    assert "\n" not in str(caught.value)


def test_smearing_names_the_file(files, tmp_path):
    energies = json.dumps({"file": str(energy_file(tmp_path)), **JEC})
    words = ["semivisible_jets", "--fileset", str(tmp_path / "f.json"), "-e", "iterative", "--lumi", "1", "-o",
             str(tmp_path / "out"), f"corrections.jec={energies}"]  # fmt: skip
    (tmp_path / "f.json").write_text(json.dumps(fileset(files["mc"])))
    with pytest.raises(CoffeaADError, match=ALL + "jets are smeared at random; give the events numbers of their own"):
        ad.run(
            fileset(files["mc"]), words[0], overrides=words[-1:], executor="iterative", progress=False, config="none"
        )
    assert cli.main(["run", *words]) == 1


def test_folds_name_the_file(files):
    tagger = ad.Tagger(write_card(graph(), toy_card()))
    right = open_events(files["right"], metadata={"dataset": "svj", "filename": "right.root"})
    assert len(set(np.concatenate(tagger(right.FatJet)["ad_score"].to_list()))) > 1
    with pytest.raises(BadFile, match=ALL + "the folds of folded are told apart"):
        tagger(open_events(files["mc"], metadata={"dataset": "svj", "filename": "alike.root"}).FatJet)


@pytest.mark.parametrize("kind", ["mc", "data"])
def test_a_run_that_does_not_go_by_numbers_is_right_and_says_so(files, kind):
    settings = {"executor": "iterative", "progress": False, "lumi": 1.0}
    got, right = (ad.run(fileset(files[k], mc=kind == "mc"), Met(), **settings) for k in (kind, "right"))
    one, two = (r.outputs["svj"]["histograms"]["met"].values().tolist() for r in (got, right))
    assert one == two
    sentence = (
        "all events of a chunk have the same run, luminosityBlock and event, by which repeated events, folds and smearing "
        "tell them apart: svj"
    )
    assert sentence in got.notes
    assert sentence not in right.notes


def test_nothing_is_dropped_by_one_number(files):
    with pytest.raises(ConfigError, match=rf"data_alike.root: {N} events have the same run, luminosityBlock and event, and "
                       "--duplicates drop would leave out all but one"):  # fmt: skip
        ad.run(fileset(files["data"], mc=False), Met(), executor="iterative", progress=False, duplicates="drop")


def test_a_few_events_may_be_the_same():
    few = {name: np.ones(9) for name in ("run", "luminosityBlock", "event")}
    assert [n.tolist() for n in numbers(few, "…")] == [[1.0] * 9] * 3
    assert not lack_numbers(np.zeros(0))
    with pytest.raises(BadFile, match="^all 10 events"):
        numbers({name: np.ones(10) for name in few}, "…")
