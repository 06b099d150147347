"""Channels, and the pyhf workspaces of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from coffea_ad.errors import ConfigError
from coffea_ad.search.channels import Channel, Sample, check, floored, workspace

pyhf = pytest.importorskip("pyhf", reason="not installed: the extra `search`", exc_type=ImportError)

pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver:DeprecationWarning")  # by pyhf 0.7

EDGES = [1000, 1200, 1500, 2000]


def channel(strength=0.0, name="sr"):
    b, s = np.array([200.0, 100.0, 40.0]), np.array([2.0, 15.0, 8.0])
    qcd = Sample(b, 0.01 * b, variations={"jes": (1.1 * b, 0.9 * b)}, norm={"xsec": (0.9, 1.1), "lumi": (0.984, 1.016)})
    svj = Sample(s, 0.01 * s, signal=True, norm={"lumi": (0.984, 1.016)})
    return Channel(name, EDGES, b + strength * s, {"qcd": qcd, "svj": svj}, "GeV", "m_T")


def changed(of, sample="qcd", **numbers):
    return replace(of, samples={**of.samples, sample: replace(of.samples[sample], **numbers)})


def fitted(spec):
    pyhf.set_backend("numpy", "minuit")
    ws = pyhf.Workspace(spec)
    model = ws.model()
    best = pyhf.infer.mle.fit(ws.data(model), model)
    return float(best[model.config.poi_index]), model


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_a_fit_of_the_workspace_gives_the_strength(strength):
    spec = json.loads(json.dumps(workspace([channel(strength), channel(strength, "cr")])))
    pyhf.schema.validate(spec, "workspace.json")
    best, model = fitted(spec)
    assert best == pytest.approx(strength, abs=0.01)
    assert set(model.config.par_map) == {"mu", "jes", "xsec", "lumi", "staterror_sr", "staterror_cr"}


def test_sources_move_the_expectation_by_their_factors():
    _, model = fitted(workspace([channel()], poi="strength"))
    pars = np.array(model.config.suggested_init())
    pars[model.config.par_slice("strength")] = 0.0
    b = np.array([200.0, 100.0, 40.0])
    assert model.expected_actualdata(pars) == pytest.approx(b)
    for source, factor in {"jes": 1.1, "xsec": 1.1, "lumi": 1.016}.items():
        up = pars.copy()
        up[model.config.par_slice(source)] = 1.016 if source == "lumi" else 1.0
        assert model.expected_actualdata(up) == pytest.approx(b * factor)


def test_statistics_are_the_errors_of_all_samples():
    model = pyhf.Workspace(workspace([channel()])).model()
    b, s = np.array([200.0, 100.0, 40.0]), np.array([2.0, 15.0, 8.0])
    sigmas = model.config.param_set("staterror_sr").sigmas
    assert sigmas == pytest.approx(np.sqrt(0.01 * (b + s)) / (b + s))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda c: changed(c, nominal=[200, -0.3, 40]), "channel sr, sample qcd, bin 1200 to 1500 GeV: -0.3 events"),
        (lambda c: changed(c, variance=[1, 1, -1]), "sample qcd variance, bin 1500 to 2000 GeV: -1 is below 0"),
        (lambda c: changed(c, variations={"jes": ([1, 1, 1], [1, 1, -2])}), "qcd jes down, bin 1500 to 2000 GeV: -2"),
        (
            lambda c: changed(c, nominal=[200, 0, 40]),
            "bin 1200 to 1500 GeV: 100 events are observed, and no background",
        ),
        (lambda c: changed(c, norm={"xsec": (0.0, 2.0)}), "sample qcd, xsec: the factors"),
        (lambda c: changed(c, norm={"lumi": (0.9, 1.1)}), "different errors of the luminosity"),
        (lambda c: changed(c, "svj", signal=False), "no sample is a signal"),
        (lambda c: replace(c, observed=[1, -1, 1]), "bin 1200 to 1500 GeV: -1 observed"),
    ],
)
def test_what_a_fit_would_go_wrong_with_is_named(wrong, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        workspace([wrong(channel())])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"edges": [1, 1, 2, 3]}, "edges"),
        ({"observed": [1, 2]}, "observed events must be 3 numbers"),
        ({"observed": [1, np.nan, 2]}, "bin 1200 to 1500 GeV: not finite"),
        ({"name": "s r"}, "'s r' is no name"),
        ({"samples": {}}, "no samples"),
    ],
)
def test_a_channel_that_is_none_is_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        replace(channel(), **wrong)


def test_a_source_is_of_shape_or_of_number():
    with pytest.raises(ConfigError, match="source jes is of shape and of number at once"):
        changed(channel(), norm={"jes": (0.9, 1.1)})


def test_a_floor_raises_bins_and_says_so(capsys):
    below = changed(channel(), nominal=[200, 0.0, -0.3])
    (raised,), notes = floored([below], 0.1)
    assert raised.expected() == pytest.approx([200, 0.1, 0.1])
    assert raised.samples["qcd"].variance == pytest.approx([2, 1 + 0.01, 0.4 + 0.01])
    assert any("bin 1500 to 2000 GeV: -0.3 events is below 0: taken as 0" in note for note in notes)
    assert sum("raised by 0.1" in note for note in notes) == 2
    spec = workspace([below], floor=0.1)
    pyhf.schema.validate(spec, "workspace.json")
    assert "sample qcd, bin 1200 to 1500 GeV: raised by 0.1" in capsys.readouterr().err
    check([raised])


def test_asimov_data_are_the_expected_background():
    assert np.array_equal(channel(3.0).asimov().observed, channel().expected())
