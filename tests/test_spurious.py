"""Signals that a function makes up: measured in simulation, said, and taken into limits."""

from __future__ import annotations

import json

import numpy as np
import pytest
from search_toys import EDGES, SQRT_S, falling, with_signal

from coffea_ad.errors import ConfigError
from coffea_ad.search.config import SearchConfig
from coffea_ad.search.limits import LimitTask, channel_of_task, limit_of_task
from coffea_ad.search.search import search
from coffea_ad.search.signals import gaussian
from coffea_ad.search.spectra import Spectrum
from coffea_ad.search.spurious import spurious_signal, spurious_signals

WEIGHT = 0.1
FEW = {"toys": 0, "fit": {"low": 1500.0, "high": 6000.0, "envelope": ()}, "widths": (0.05,), "exports": False}


def weighted(expected):
    return Spectrum("mjj", EDGES, expected, WEIGHT * expected)


def test_a_right_function_makes_up_no_signal_and_a_wrong_one_does():
    right = weighted(falling(50_000))
    for spurious in spurious_signals(right, "dijet", 3, SQRT_S, [2200.0, 3000.0, 4000.0], 0.05):
        assert abs(spurious.relative) < 0.02
    bumpy = weighted(falling(50_000) * (1 + 0.2 * np.exp(-(((np.arange(45) - 15) / 4) ** 2))))
    assert spurious_signals(bumpy, "dijet", 3, SQRT_S, [3000.0], 0.05)[0].relative > 1


def test_the_error_by_the_statistics_of_simulation_is_the_spread_of_simulations():
    expected = falling(20_000)
    signal = gaussian(EDGES, 3000.0, 0.05)
    rng = np.random.default_rng(5)
    made = [
        spurious_signal(weighted(WEIGHT * rng.poisson(expected / WEIGHT)), "dijet", 3, SQRT_S, signal)
        for _ in range(200)
    ]
    strengths = np.array([s.strength for s in made])
    assert np.std(strengths) == pytest.approx(np.mean([s.template_error for s in made]), rel=0.15)  # 200: 5 %
    assert abs(strengths.mean()) < 4 * strengths.std() / np.sqrt(200)
    # ten simulated events for one of data: √0.1 of the error that data have
    assert made[0].template_error / made[0].error == pytest.approx(np.sqrt(WEIGHT), rel=0.1)


def searched(folder, wave, **more):
    with_signal(folder / "results", background=True, wave=wave)
    config = SearchConfig.model_validate({**FEW, "limits": {"places": 2, "signals": False}, **more})
    return search(folder / "results", folder / "search", config, figures=False)


def test_what_the_function_makes_up_in_simulation_is_said(tmp_path):
    content = searched(tmp_path, 0.3, limits={"masses": [3000.0], "signals": False})
    stored = json.loads((tmp_path / "search" / "search.json").read_text())
    (spurious,) = stored["spectra"]["mjj in inclusive"]["spurious"]
    assert spurious["relative"] > 1
    assert spurious["template_error"] < 0.5 * spurious["error"]
    (said,) = [n for n in content["notes"] if "makes up" in n and "inclusive" in n]
    assert said.startswith("mjj in inclusive: in simulation without a signal dijet of")
    assert said.endswith("of one at 3000 GeV")


def test_nothing_is_said_of_a_function_that_describes_simulation(tmp_path):
    content = searched(tmp_path, 0.0)
    assert all(abs(s["relative"]) < 0.3 for of in content["spectra"].values() for s in of["spurious"])
    assert not [n for n in content["notes"] if "makes up" in n]
    # ten times the events of data leave an error of √0.1
    (blind,) = [n for n in content["notes"] if "too few events to tell" in n]
    assert "mjj in inclusive" in blind


def test_limits_with_it_are_weaker(tmp_path):
    of = {"masses": [3000.0], "signals": False}
    plain, more = (searched(tmp_path / str(s), 0.3, limits={**of, "spurious": s})["limits"] for s in (False, True))
    for one, other in zip(plain, more, strict=True):
        assert other["expected"][2] > one["expected"][2]
        assert other["error"] > one["error"]
    assert plain[0]["spectrum"] == "mjj in inclusive"  # of the most events, in which an error counts most
    assert more[0]["expected"][2] > 1.5 * plain[0]["expected"][2]


def test_an_error_by_spurious_signals_needs_simulation(tmp_path):
    with_signal(tmp_path / "results")
    config = SearchConfig.model_validate({**FEW, "limits": {"spurious": True}})
    with pytest.raises(ConfigError, match="spurious signals are measured in simulated background, and there is none"):
        search(tmp_path / "results", tmp_path / "search", config, figures=False)


def test_a_source_of_it_stands_in_the_channel_and_adds_in_squares_where_events_are_counted():
    few = Spectrum.of_events("mjj", EDGES, np.random.default_rng(3).poisson(falling(2000)))
    task = LimitTask(few, "dijet", 3, SQRT_S, 3000.0, 0.05, shape=50 * gaussian(EDGES, 3000.0, 0.05), name="Z'")
    channel = channel_of_task(task._replace(spurious=4.0))
    up, down = channel.samples["background"].variations["spurious_signal"]
    nominal = channel.samples["background"].nominal
    part = channel.samples["signal"].nominal / 50
    assert up == pytest.approx(nominal + 4 * part)
    assert down == pytest.approx(nominal - 4 * part)
    assert "spurious_signal" not in channel_of_task(task).samples["background"].variations
    counted = LimitTask(few, "dijet", 3, SQRT_S, 5000.0, 0.05)
    plain, more = (limit_of_task(counted._replace(spurious=s)) for s in (0.0, 1.5))
    assert plain.method == more.method == "counting"
    shape = gaussian(EDGES, 5000.0, 0.05)
    inside = shape[(EDGES[:-1] >= plain.low) & (EDGES[1:] <= plain.high)].sum() / shape.sum()
    assert more.error == pytest.approx(np.hypot(plain.error, 1.5 * inside))
    assert more.expected[2] > plain.expected[2]
