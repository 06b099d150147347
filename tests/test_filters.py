"""Filters keep the rows that numpy keeps, in any form and order, say how many, and models are compared on these rows alone."""

from __future__ import annotations

import json
import operator

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_skims import NAME, toy_rows, write_skim
from toys import DATA

from coffea_ad import cli, evaluation
from coffea_ad.config import load_config
from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.skims.filters import conditions, expression, filters_in_words
from coffea_ad.skims.reading import load_skim

COMPARISONS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
COLUMN = f"{NAME}.sigma1"


@pytest.fixture(scope="module")
def skim(tmp_path_factory):
    (b, rng), (s, _) = toy_rows(900, seed=1), toy_rows(500, seed=2, shift=0.7)
    rows = {
        "qcd": {"x": b, "weight": rng.uniform(0.5, 2, 900), "xsec": 2.0, "pt": rng.integers(150, 350, 900)},
        "svj": {"x": s, "weight": np.ones(500), "xsec": 1.0, "pt": rng.integers(150, 350, 500)},
    }
    return write_skim(tmp_path_factory.mktemp("skim") / "skim", rows)


@pytest.fixture(scope="module")
def everything(skim):
    return load_skim(skim, NAME)


condition = st.tuples(
    st.sampled_from(["pt", "abs(pt)", COLUMN, f"abs({COLUMN})"]), st.sampled_from(sorted(COMPARISONS)),
    st.sampled_from([-0.5, 0.0, 0.25, 1.0, 200.0, 300.0]),
)  # fmt: skip


@given(st.lists(condition, min_size=1, max_size=3), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_what_passes_are_the_rows_of_a_mask_in_any_order_of_the_filters(skim, everything, filters, random):
    place = everything.columns.index("sigma1")
    values = {"pt": everything.spectators["pt"], COLUMN: everything.x[:, place]}
    mask = np.ones(len(everything.x), bool)
    for column, comparison, value in filters:
        bare = column.removeprefix("abs(").removesuffix(")")
        held = values[bare] if bare == column else np.abs(values[bare])
        mask &= COMPARISONS[comparison](held.astype(np.float64), value)
    shuffled = random.sample(filters, len(filters))
    if not mask.any():
        with pytest.raises(SkimError, match="of 1400 rows of qcd, svj none passes"):
            load_skim(skim, NAME, filters=shuffled)
        return
    expected = everything.select(mask)
    for form in (shuffled, filters_in_words(shuffled)):
        rows = load_skim(skim, NAME, filters=form)
        np.testing.assert_array_equal(rows.x, expected.x)
        np.testing.assert_array_equal(rows.event_weight, expected.event_weight)
        counts = rows.provenance["rows_passing"]
        assert [counts["qcd"][0], counts["svj"][0]] == [900, 500]
        assert counts["qcd"][-1] == (expected.dataset == "qcd").sum()
        assert all((np.diff(c) <= 0).all() and len(c) == len(filters) + 1 for c in counts.values())


@given(st.tuples(st.sampled_from(["pt", "abs(eta)"]), st.sampled_from(sorted(COMPARISONS)), st.integers(-500, 500)))
def test_words_are_read_as_they_are_written(one):
    assert conditions(filters_in_words([one])) == [one]
    assert conditions(["".join(map(str, one))]) == [one]


def test_an_absolute_value_has_no_other_operators():
    with pytest.raises(ValueError, match=r"abs\(eta\) is compared by <, .*, not by in"):
        expression(conditions([("abs(eta)", "in", [1.0])]))


def test_nothing_that_passes_and_wrong_names_say_what_the_skim_has(skim):
    with pytest.raises(
        SkimError, match=r"of 500 rows of svj none passes pt > 100 and pt < 120: pt lies between 15\d and 34\d"
    ):
        load_skim(skim, NAME, datasets=["svj"], filters=["pt > 100", "pt<120"])
    with pytest.raises(
        SkimError, match=rf"the filter ptt > 1 cannot be applied: .*did you mean 'pt'. Known: .*{COLUMN}"
    ):
        load_skim(skim, NAME, filters=["ptt > 1"])


@pytest.mark.torch
@pytest.mark.parametrize(
    "words", ["[pt > 250, pt <= 300]", "[[pt, '>', 250], [pt, <=, 3e2]]", "[[pt, '>', 250], pt <= 300]", "['pt<=300', pt > 250 , pt>0]"]
)  # fmt: skip
def test_a_recipe_reads_the_same_words(skim, words):
    from coffea_ad import nn

    config = load_config(nn.RecipeConfig, None, [f"data={skim}", f"filters={words}"])
    assert set(config.rows().spectators["pt"]) == set(range(251, 301)) & set(load_skim(skim, NAME).spectators["pt"])


@pytest.mark.torch
@pytest.mark.parametrize("words", ["[pt, '>', 250]", "pt > 250"])
def test_one_filter_needs_no_list(skim, words):
    from coffea_ad import nn

    assert load_config(nn.RecipeConfig, None, ["data=x", f"filters={words}"]).filters == (("pt", ">", 250),)


@pytest.mark.torch
def test_a_wrong_filter_of_a_recipe_names_its_key():
    from coffea_ad import nn

    with pytest.raises(ConfigError, match="filters.*a column, an operator and a value.*pt250"):
        load_config(nn.RecipeConfig, None, ["data=x", "filters=[pt250]"])


@pytest.fixture(scope="module")
def evaluated(skim, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated")
    words = [
        "evaluate",
        f"ae={DATA / 'wnae.onnx'}",
        "--background",
        str(skim),
        "--signal-datasets",
        "svj",
        "--bootstrap",
        "3",
    ]
    return out, [*words, "-o", str(out), "--force"]


def test_models_are_compared_on_the_rows_that_pass_as_if_the_skim_had_no_others(skim, evaluated, tmp_path, capsys):
    pytest.importorskip("sklearn")
    out, words = evaluated
    assert cli.main([*words, "--filters", "pt >= 200", f"abs({COLUMN}) < 1"]) == 0
    printed, record = capsys.readouterr().out, json.loads((out / "evaluation.json").read_text())
    rows = {"qcd": record["provenance"]["background"], "svj": record["provenance"]["signals"]["svj"]}
    for dataset, about in rows.items():
        assert about["filters"] == [["pt", ">=", 200.0], [f"abs({COLUMN})", "<", 1.0]]
        assert str(about["rows_passing"][dataset][-1]) in printed
    assert "| svj | 500 |" in (out / "table.md").read_text()
    small = _cut(skim, tmp_path / "small")
    same = evaluation.evaluate_models(
        {"ae": [DATA / "wnae.onnx"]}, small, small, signal_datasets=["svj"], n_bootstrap=3
    )
    for row, expected in zip(record["rows"], same.rows, strict=True):
        assert row["score"] == expected.score
        for kind in ("plain", "matched"):
            metrics = getattr(expected, kind)
            assert (row[kind] is None) == (metrics is None)
            if metrics is not None:
                assert row[kind]["auc"]["value"] == pytest.approx(metrics.auc.value, abs=1e-12)
                assert row[kind]["auc"]["error"] == pytest.approx(metrics.auc.error, abs=1e-12)


def _cut(skim, folder):
    """Write the skim again without the rows that do not pass."""
    for path in skim.glob("*/*.parquet"):
        table = pq.read_table(path)
        mask = (table["pt"].to_numpy() >= 200) & (np.abs(table[COLUMN].to_numpy()) < 1)
        (folder / path.parent.name).mkdir(parents=True)
        pq.write_table(table.filter(mask), folder / path.parent.name / path.name)
    (folder / "manifest.json").write_text((skim / "manifest.json").read_text())
    return folder


def test_an_evaluation_of_nothing_is_one_sentence(evaluated, capsys):
    assert cli.main([*evaluated[1], "--filters", "pt > 1e4"]) == 1
    assert "of 900 rows of qcd none passes pt > 10000: pt lies between" in capsys.readouterr().err
