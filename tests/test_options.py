"""The options of a run: every keyword of `run` is one, with its default, and what is wrong is refused in one sentence."""

from __future__ import annotations

import inspect

import pytest

import coffea_ad as ad
from coffea_ad.cli.main import _parser
from coffea_ad.errors import ConfigError
from coffea_ad.running.clusters.config import ClusterConfig
from coffea_ad.running.options import RunOptions

FIELDS = RunOptions.model_fields


def keywords(function):
    return {p.name: p.default for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}


def test_every_keyword_of_run_is_an_option_with_the_same_default():
    defaults = keywords(ad.run)
    assert list(defaults) == list(FIELDS)
    assert RunOptions() == RunOptions.of(**defaults)


def test_the_keywords_of_resubmit_are_those_of_run():
    assert keywords(ad.resubmit).items() <= keywords(ad.run).items()


def test_the_flags_of_the_command_line_have_the_same_defaults():
    words = vars(_parser().parse_args(["run"]))
    assert FIELDS.keys() - words.keys() == {"progress"}
    same = {name: word for name, word in words.items() if name in FIELDS and word not in (None, [])}
    assert same == {name: FIELDS[name].default for name in same}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        *(({name: 0}, f"{name} is 0, but must be at least 1") for name in ("chunksize", "workers", "limit_files", "limit_chunks")),
        ({"duplicates": "forget"}, "duplicates is 'forget', but must be note, drop, ignore"),
        ({"executor": "parsl"}, "executor is 'parsl', but must be iterative, futures or dask"),
        ({"generator_weight": "all"}, "generator_weight is 'all', but must be stored or sign"),
        ({"retries": -1}, "retries is -1, but must be at least 0"),
        *(({"timeout": value}, f"timeout is {value}, but must be a positive number of seconds") for value in (0, -1.0, float("inf"), float("nan"))),
        ({"lumi": -1}, "lumi is -1, but must be a positive number of fb⁻¹"),
        ({"chunksize": "many"}, "chunksize is 'many', but must be a valid integer, unable to parse string as an integer"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_values_are_refused_in_one_sentence(wrong, sentence):
    with pytest.raises(ConfigError) as error:
        RunOptions.of(**wrong)
    assert str(error.value) == sentence


def test_a_test_is_one_file_and_one_chunk():
    options = RunOptions.of(test=True, limit_files=5)
    assert (options.limit_files, options.limit_chunks) == (1, 1)


def test_an_earlier_run_goes_on_with_its_options(tmp_path):
    old = RunOptions.of(
        model=["a.onnx", tmp_path / "b.onnx"],
        overrides=["met_min=0"],
        chunksize=10,
        lumi={"2022": 8},
        checkpoints="none",
    )
    report = {"settings": old.settings(), "lumi": None}
    new = RunOptions.of_report(report, executor="iterative", output=tmp_path)
    assert new.settings() == old.settings()
    assert (new.executor, new.output) == ("iterative", tmp_path)
    del report["settings"]["duplicates"], report["settings"]["lumi"]  # of a report from before these were options
    older = RunOptions.of_report({**report, "lumi": 5.0})
    assert (older.duplicates, older.lumi) == ("ignore", 5.0)


@pytest.mark.parametrize(
    ("options", "cluster", "folder"),
    [
        ({"output": "results"}, ClusterConfig(workers=2), "results/checkpoints"),
        ({"output": "results", "workers": 3, "checkpoints": "none"}, ClusterConfig(workers=3), None),
        ({"output": "root://host//results"}, ClusterConfig(workers=2), None),
        ({"output": "results", "scheduler": "tls://host:1"}, ClusterConfig(kind="scheduler", address="tls://host:1"), None),
        ({"cluster": "local", "checkpoints": "shared"}, ClusterConfig(), "shared"),
    ],
    ids=str,
)  # fmt: skip
def test_where_work_is_done_and_finished_chunks_are_stored(options, cluster, folder):
    options = RunOptions.of(**options)
    assert options.resolved_cluster() == cluster
    assert options.checkpoints_on(cluster) == folder
