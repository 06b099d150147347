"""Limits where the efficiency depends on the strength of the signal."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_toys import windowed

from coffea_ad.errors import BadFile, ConfigError
from coffea_ad.search.config import LimitConfig, SearchConfig
from coffea_ad.search.counting import counting_limit
from coffea_ad.search.injected import EfficiencyTable, excluded_strength, read_tables
from coffea_ad.search.search import search

COUNT = (14.0, 10.0, 2.0)
"""Events, expected, its error."""


def table(strengths, efficiencies, errors=0.0):
    n = np.asarray(strengths, float)
    return EfficiencyTable(n, np.broadcast_to(efficiencies, n.shape).astype(float), np.full(n.shape, errors))


@given(st.floats(0.02, 1.0))
@settings(deadline=None, max_examples=15)
def test_with_one_efficiency_it_is_the_usual_limit_over_it(efficiency):
    usual, bands = counting_limit(*COUNT)
    observed, expected, said = excluded_strength(table([1.0, 10.0, 100.0, 1000.0], efficiency), *COUNT)
    assert observed == pytest.approx(usual / efficiency, rel=1e-6)
    assert expected == pytest.approx([b / efficiency for b in bands], rel=1e-6)
    assert said == ()


@pytest.mark.parametrize("slope", [1e-4, 1e-3, 4e-3])
def test_with_an_efficiency_that_rises_with_the_strength_the_limit_is_where_as_many_pass(slope):
    """ε = k N: N² k events pass, and as many as counting excludes do at √(s / k)."""
    usual, bands = counting_limit(*COUNT)
    n = np.array([5.0, min(1000.0, 0.99 / slope)])  # ε is linear: two points tell it
    observed, expected, _ = excluded_strength(table(n, slope * n), *COUNT)
    assert observed == pytest.approx(np.sqrt(usual / slope), rel=1e-6)
    assert expected == pytest.approx([np.sqrt(b / slope) for b in bands], rel=1e-6)


def test_an_efficiency_at_a_large_strength_would_exclude_too_much():
    """A method that finds 800 events keeps half of them, and of 100 next to none."""
    strengths, efficiencies = [50, 100, 200, 400, 800], [0.005, 0.01, 0.1, 0.4, 0.5]
    observed = excluded_strength(table(strengths, efficiencies), *COUNT)[0]
    usual = counting_limit(*COUNT)[0]
    # between 100 and 200 N (0.01 + 0.0009 (N − 100)) events pass
    assert observed == pytest.approx((0.08 + np.sqrt(0.0064 + 4 * 0.0009 * usual)) / 0.0018, rel=1e-6)
    assert observed > 3 * usual / 0.5
    assert observed * np.interp(observed, strengths, efficiencies) == pytest.approx(usual, rel=1e-6)


def test_what_is_excluded_at_some_strength_is_excluded_at_every_larger_one():
    """Were the efficiency to fall again, the limit is the last number that is not excluded."""
    usual = counting_limit(*COUNT)[0]
    n = np.array([10.0, 40.0, 60.0, 80.0, 400.0])
    observed = excluded_strength(table(n, usual / n * np.array([0.5, 1.5, 0.5, 0.9, 2.0])), *COUNT)[0]
    assert 80 < observed < 400


def test_nothing_is_extrapolated():
    few, many = (excluded_strength(table(n, 0.5), *COUNT) for n in ([1.0, 2.0], [200.0, 300.0]))
    assert few[0] is many[0] is None
    assert few[1] == many[1] == (None,) * 5
    assert (
        "observed: 2 events of the signal, the most that were injected, are not excluded; inject more, as" in few[2][0]
    )
    assert "observed: 200 events of the signal, the fewest that were injected, are excluded; inject fewer" in many[2][0]
    partly = excluded_strength(table([1.0, 2 * counting_limit(*COUNT)[1][3]], 0.5), *COUNT)
    assert [e is None for e in partly[1]] == [False, False, False, False, True]


def test_the_error_of_an_efficiency_weakens_the_limit():
    exact, known = (excluded_strength(table([1.0, 1000.0], 0.5, e), *COUNT) for e in (0.0, 0.2))
    assert known[0] == pytest.approx(counting_limit(*COUNT, signal_error=0.4)[0] / 0.5)
    assert known[0] > exact[0]
    assert all(a > b for a, b in zip(known[1], exact[1], strict=True))


def rows(strengths, efficiencies, region=0.05):
    """As the recipe writes them."""
    return [
        {"injected": 2 * n, "in_window": n, "efficiency": region, "signal_efficiency": e, "error": 0.0}
        for n, e in zip(strengths, efficiencies, strict=True)
    ]


def with_efficiency(folder, efficiency):
    report = json.loads((folder / "report.json").read_text())
    report["models"][0]["expectations"]["loose"]["efficiency"] = efficiency
    (folder / "report.json").write_text(json.dumps(report))


def test_a_search_takes_the_table_of_its_windows(tmp_path):
    windowed(tmp_path / "results", 14, 10.0, 0.2)
    with_efficiency(tmp_path / "results", 0.05)
    path = tmp_path / "injected.json"
    other = rows([1, 1000], [0.9, 0.9], region=0.01)
    path.write_text(json.dumps({"2200_2500": [*rows([0, 1, 1000], [0.0, 0.5, 0.5]), *other], "2500_2800": other}))
    config = SearchConfig(toys=0, limits=LimitConfig(injected=str(path)))
    content = search(tmp_path / "results", tmp_path / "s", config, figures=False)
    (limit,) = content["strengths"]
    usual, bands = counting_limit(*COUNT)
    assert limit["observed"] == pytest.approx(usual / 0.5)
    assert limit["expected"] == pytest.approx([b / 0.5 for b in bands])
    assert limit["cross_section"] == pytest.approx(usual / 0.5 / 1000)  # of 1 fb⁻¹
    path.write_text(json.dumps({"2200_2500": rows([1, 2], [0.5, 0.5])}))
    content = search(tmp_path / "results", tmp_path / "s", config, figures=False)
    assert content["strengths"][0]["observed"] is None
    assert any(n.startswith("region loose, observed: 2 events of the signal, the most") for n in content["notes"])
    path.write_text(json.dumps({"2200_2500": other}))
    content = search(tmp_path / "results", tmp_path / "s", config, figures=False)
    assert content["strengths"] == []
    assert any("has no injected signal for its window and efficiency" in n for n in content["notes"])


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "[1]",
        '{"a": [{}]}',
        '{"a": [{"in_window": 3, "efficiency": 0.1, "signal_efficiency": 1.5, "error": 0}]}',
    ],
)
def test_what_is_no_table_is_one_sentence(tmp_path, content):
    path = tmp_path / "injected.json"
    with pytest.raises(BadFile, match="there is no such file; inject="):
        read_tables(path)
    path.write_text(content)
    with pytest.raises(BadFile, match="this must map windows|are none of a signal"):
        read_tables(path)


def test_counts_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="background must be a number"):
        excluded_strength(table([1.0, 2.0], 0.5), 3.0, float("nan"), 0.0)
