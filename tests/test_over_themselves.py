"""A model is not replaced by what is made from it, whatever is said and however its path is spelled."""

from __future__ import annotations

import shutil

import pytest
from toys import DATA

from coffea_ad import cli
from coffea_ad.errors import ConfigError
from coffea_ad.outputs import check_file


@pytest.fixture
def model(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.onnx").symlink_to(tmp_path / "m.onnx")
    (tmp_path / "card.yaml").write_text("name: x")
    return shutil.copy(DATA / "wnae.onnx", tmp_path / "m.onnx")


VERBS = {
    "attach": ["card", "attach", "{}", "card.yaml"],
    "regions": ["regions", "{}", "--from", "results", "--efficiency", "0.1"],
    "quantise": ["quantise", "{}", "--calibration", "skims"],
    "fold": ["quantise", "{}", "--fuse-linear"],
    "combine": ["combine", "{}", str(DATA / "ae_stored.onnx")],
}


@pytest.mark.parametrize("verb", [*list(VERBS)[:-1], pytest.param("combine", marks=pytest.mark.torch)])
@pytest.mark.parametrize("spelling", ["m.onnx", "./sub/../m.onnx", "link.onnx"])
def test_no_verb_replaces_the_model_that_it_reads(verb, spelling, model, monkeypatch, capsys):
    monkeypatch.chdir(model.parent)
    before = model.read_bytes()
    words = [word.format(model) for word in VERBS[verb]]
    assert cli.main([*words, "-o", spelling, "--force"]) == 1
    error = capsys.readouterr().err
    assert f"{spelling}: this is {model}, from which it would be made; write to another file" in error
    assert error.count("\n") == 1
    assert model.read_bytes() == before


def test_addresses_are_compared_as_they_are(tmp_path):
    check_file("memory://a/new.onnx", read=["memory://a/old.onnx", tmp_path / "new.onnx"])
    with pytest.raises(ConfigError, match="this is memory://a/m.onnx, from which it would be made"):
        check_file("memory://a/m.onnx", force=True, read=["memory://a/m.onnx"])
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(ConfigError, match="from which it would be made"):
        check_file(tmp_path / "m.onnx", force=True, read=[f"file://{tmp_path}/m.onnx"])
