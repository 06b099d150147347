from __future__ import annotations

import json

import numpy as np
import pytest

import coffea_ad as ad
from coffea_ad.card import ModelCard, parse_card, read_card, write_card
from coffea_ad.errors import BadModel, CardMismatch, CoffeaADError
from coffea_ad.modelfile import CARD_KEY, read_texts, seal, verify, with_texts


@pytest.fixture(scope="module")
def model(request):
    return (request.config.rootpath / "tests" / "data" / "wnae.onnx").read_bytes()


def resealed(model, change):
    """The same network under an edited card, with a right digest: what a careless tool would write."""
    content = json.loads(read_texts(model)[CARD_KEY])
    change(content)
    return seal(model, json.dumps(content))


def test_a_sound_file_is_accepted_and_texts_round_trip(model):
    assert verify(model) == ad.OnnxScorer(model).digest
    changed = with_texts(model, {"note": "σ"})
    assert read_texts(changed)["note"] == "σ"
    assert with_texts(changed, {"note": "τ"}).count("τ".encode()) == 1


def test_no_single_bit_flip_is_accepted(model):
    rng = np.random.default_rng(5)
    for position in rng.integers(0, len(model), 300):
        broken = bytearray(model)
        broken[position] ^= 1 << int(rng.integers(8))
        with pytest.raises(CoffeaADError):
            ad.OnnxScorer(bytes(broken))


@pytest.mark.parametrize("keep", [0, 1, 10, 1000, 50_000, -100, -1])
def test_truncated_files_are_refused(model, keep):
    with pytest.raises(BadModel):
        ad.OnnxScorer(model[:keep])


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "not.onnx"
    path.write_text("hello")
    with pytest.raises(BadModel, match="not.onnx"):
        ad.OnnxScorer(path)
    with pytest.raises(BadModel, match="nowhere.onnx: cannot be read"):
        ad.OnnxScorer(tmp_path / "nowhere.onnx")


def test_a_plain_model_is_refused_with_the_way_out(model):
    plain = bytes(model)
    for key in (CARD_KEY, "coffea_ad.digest"):
        plain = plain.replace(key.encode(), b"x" * len(key))
    with pytest.raises(BadModel, match="card attach"):
        ad.OnnxScorer(plain)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c.update(schema_version=2), "schema version 2, this coffea-ad reads 1"),
        (lambda c: c.update(colour="red"), "colour"),
        (lambda c: c.pop("name"), "name"),
        (lambda c: c["regions"][0].update(thresholds=[]), "regions.0.thresholds"),
        (lambda c: c["calibration"]["score"].reverse(), "score falls"),
        (lambda c: c["regions"].reverse(), "loose to tight"),
    ],
    ids=["version", "unknown key", "missing key", "no threshold", "calibration", "order"],
)
def test_a_wrong_card_is_refused_by_the_name_of_its_key(model, change, match):
    with pytest.raises(BadModel, match=match):
        ad.OnnxScorer(resealed(model, change))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f["columns"].reverse(), "columns of jet_substructure are tau3, tau2"),
        (lambda f: f["columns"][0].update(name="girth"), "girth"),
        (lambda f: f["columns"].pop(), "columns"),
        (lambda f: f.update(version=2), "version 2, this coffea-ad computes version 1"),
        (lambda f: f.update(name="jet_substructures"), "did you mean 'jet_substructure'"),
        (lambda f: f["options"].update(sorce="stored"), "did you mean 'source'"),
    ],
    ids=["permuted", "renamed", "missing", "version", "unknown feature", "unknown option"],
)
def test_a_card_that_disagrees_with_the_feature_table_is_refused(model, change, match):
    edited = resealed(model, lambda c: change(c["inputs"][0]["features"][0]))
    with pytest.raises(CoffeaADError, match=match):
        ad.Tagger(edited)


def test_a_card_that_disagrees_with_its_graph_is_refused(model):
    edited = resealed(model, lambda c: c["inputs"][0].update(name="jets"))
    with pytest.raises(CardMismatch, match="not the graph's"):
        ad.OnnxScorer(edited).session  # noqa: B018
    edited = resealed(model, lambda c: c.update(output="energy"))
    with pytest.raises(CardMismatch, match="no output 'energy'"):
        ad.OnnxScorer(edited).session  # noqa: B018


def test_golden_rows_that_do_not_come_out_are_refused(model):
    edited = resealed(model, lambda c: c["golden"]["scores"].__setitem__(0, 99.0))
    with pytest.raises(BadModel, match="golden"):
        ad.OnnxScorer(edited).session  # noqa: B018


def test_foreign_operators_are_refused(model):
    # field 8 (opset_import) of the ModelProto: domain "evil", version 1
    foreign = model + b"\x42\x08\x0a\x04evil\x10\x01"
    with pytest.raises(BadModel, match="foreign domain: evil"):
        ad.OnnxScorer(write_card(foreign, read_card(model)))


def test_a_card_survives_json(model):
    card = read_card(model)
    assert parse_card(card.model_dump_json()) == card
    assert ModelCard.model_json_schema()["additionalProperties"] is False
