"""Cards that say the same in other words, verdicts on what has no epochs, words between those of `card attach`."""

from __future__ import annotations

import pytest

from coffea_ad.cli.main import _parse
from coffea_ad.features.spec import feature_spec
from coffea_ad.scoring.card import read_card


@pytest.mark.torch
def test_models_go_together_whether_or_not_their_cards_spell_out_defaults(model_file):
    from coffea_ad.modelfiles.combine import _computed

    old = read_card(model_file.read_bytes())
    (spec,) = old.inputs
    (feature,) = spec.features
    assert set(feature.options) < set(feature_spec(feature.name).options)  # made before options were added
    new = spec.model_copy(update={"features": (feature_spec(feature.name),)})
    assert _computed(old.model_copy(update={"inputs": (new,)})) == _computed(old)
    other = spec.model_copy(update={"features": (feature_spec(feature.name, {"beta": 1.0}),)})
    assert _computed(old.model_copy(update={"inputs": (other,)})) != _computed(old)


@pytest.mark.torch
def test_what_is_fitted_once_is_not_blamed_for_its_epochs():
    from coffea_ad import nn
    from coffea_ad.nn.training.verdict import _trained

    assert not _trained([nn.PCA(8, components=4, transform=nn.preprocessing("standard", [str(i) for i in range(8)]))])
    assert _trained([nn.AE.svj(nn.preprocessing("standard", [str(i) for i in range(8)]))])


def test_options_may_stand_between_the_words_of_card_attach():
    args = _parse(["card", "attach", "m.onnx", "--force", "card.yaml"])
    assert args.words == ["attach", "m.onnx", "card.yaml"]
    assert args.force


def test_only_run_is_told_how_to_give_several_models(capsys):
    with pytest.raises(SystemExit):
        _parse(["quantise", "m.onnx", "--background", "skims/"])
    assert "--model" not in capsys.readouterr().err
