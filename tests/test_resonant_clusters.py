"""Searches on dask and on the command line: the same results anywhere, dying workers, interruptions, wrong inputs."""

from __future__ import annotations

import json
from types import SimpleNamespace

import dask
import numpy as np
import pytest

resonant = pytest.importorskip("coffea_ad.resonant")
import killing
import pyarrow as pa
import resonant_toys as toys
from test_clusters import eventually

from coffea_ad import cli
from coffea_ad.errors import ConfigError
from coffea_ad.features.spec import FeatureConfig, feature_spec
from coffea_ad.resonant import ClassifierConfig, Settings, Window, trainings
from coffea_ad.resonant.claiming import claim
from coffea_ad.resonant.search import search, tasks_of
from coffea_ad.resonant.trainings import train_all
from coffea_ad.running.clusters.config import ClusterConfig
from coffea_ad.running.clusters.connect import connect
from coffea_ad.scoring.card import read_card
from coffea_ad.skims.writing import write_manifest, write_rows

pytestmark = pytest.mark.torch
WINDOWS = (
    Window(low=3000, high=3300, outer_low=2600, outer_high=4500),
    Window(low=3300, high=3700, outer_low=2900, outer_high=4500),
)
SETTINGS = Settings(classifier=ClassifierConfig(members=1, options={"num_leaves": 7}))
K = 3


def tasks(method="cwola", windows=WINDOWS, seed=1):
    return tasks_of(method, SETTINGS, windows, k=K, salt="s", seed=seed, template_rows=1000)


@pytest.fixture(scope="module")
def data():
    return {"data": toys.data(8000, 100, seed=5)}


@pytest.fixture(scope="module")
def here(data, tmp_path_factory):
    """The search in this process."""
    folder = tmp_path_factory.mktemp("here")
    trained, left_out = search(tasks(), data, folder)
    assert not left_out
    assert not trained.failed
    return trained


@pytest.fixture(scope="module")
def two():
    """Two workers; what was on one that dies is given back at once."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        connect(ClusterConfig(workers=2)) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def one(two):
    """One of the two."""
    two.cluster.scale(1)
    eventually(lambda: len(two.nthreads()) == 1, "one worker is left")
    return two


def same(trained, here, windows=WINDOWS):
    """Members are the same to the bit."""
    assert trained.members.keys() == {t.name for t in tasks(windows=windows)}
    for name, member in trained.members.items():
        other = here.members[name]
        for what in ("template", "template_weight", "template_score", "event", "score"):
            np.testing.assert_array_equal(getattr(member, what), getattr(other, what))
        assert member.data == other.data
        assert member.metrics == other.metrics


@pytest.mark.dask
def test_two_workers_give_the_scores_of_this_process(two, here, data, tmp_path):
    trained, _ = search(tasks(), data, tmp_path, cluster=two)
    same(trained, here)


@pytest.mark.dask
def test_one_worker_gives_the_scores_of_this_process(one, here, data, tmp_path):
    trained, _ = search(tasks(windows=WINDOWS[:1]), data, tmp_path, cluster=one)
    same(trained, here, WINDOWS[:1])


def test_an_interrupted_search_goes_on_and_trains_nothing_twice(here, data, tmp_path, monkeypatch):
    done = []

    def interrupted(task, skims, train=trainings.train_member):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(task.name)
        return train(task, skims)

    monkeypatch.setattr(trainings, "train_member", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(tasks(), data, tmp_path)
    stored = {p.stem: p.stat().st_mtime_ns for p in tmp_path.glob("*.npz")}
    assert set(stored) == set(done)
    done.clear()
    monkeypatch.undo()
    trained, _ = search(tasks(), data, tmp_path)
    assert trained.resumed == 4
    same(trained, here)
    assert stored.items() <= {p.stem: p.stat().st_mtime_ns for p in tmp_path.glob("*.npz")}.items()
    assert len(list(tmp_path.glob("*.npz"))) == len(WINDOWS) * K


def test_a_file_that_is_cut_off_is_trained_again(here, data, tmp_path):
    search(tasks(windows=WINDOWS[:1]), data, tmp_path)
    path = tmp_path / "3000_3300_fold_1.npz"
    path.write_bytes(path.read_bytes()[:500])
    rows = {w.name: resonant.window_rows(data, w) for w in WINDOWS[:1]}
    trained = train_all(tasks(windows=WINDOWS[:1]), rows, tmp_path, cluster=None)
    assert trained.resumed == K - 1
    np.testing.assert_array_equal(trained.members[path.stem].score, here.members[path.stem].score)


# a folder belongs to one search


def test_the_same_search_goes_on_and_another_one_is_refused_by_what_differs(data, tmp_path):
    outputs = [tmp_path / "s.onnx"]
    config = {"data": "skims/", "method": "cwola", "efficiencies": (0.1,), "count": 0, "windows": [{"low": 1.0}]}
    claim(tmp_path / "s", outputs, config, data)
    outputs[0].touch()
    claim(tmp_path / "s", outputs, {**config, "data": "./skims", "count": 300}, data)
    for other, sentence in (
        ({"method": "cathode"}, r"another search in it already \(method: cwola, not cathode\); choose another name"),
        ({"windows": [{"low": 2.0}]}, r"already \(another windows\)"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            claim(tmp_path / "s", outputs, config | other, data)
    with pytest.raises(ConfigError, match=r"already \(of other rows\)"):
        claim(tmp_path / "s", outputs, config, {"data": toys.data(300, 0, seed=6)})
    claim(tmp_path / "s", outputs, {**config, "method": "cathode"}, data, force=True)
    with pytest.raises(ConfigError, match=r"method: cathode, not cwola"):
        claim(tmp_path / "s", outputs, config, data)
    (tmp_path / "s" / "search.json").write_text("{")
    with pytest.raises(ConfigError, match="another search"):
        claim(tmp_path / "s", outputs, config, data)


def test_files_of_no_known_search_are_not_overwritten(data, tmp_path):
    path = tmp_path / "s.onnx"
    path.touch()
    with pytest.raises(ConfigError, match=r"s\.onnx exists already, and is not known to be of this search"):
        claim(tmp_path / "s", [path], {}, data)
    assert not (tmp_path / "s").exists()
    claim(tmp_path / "s", [path], {}, data, force=True)


# the command line


def write_skim(folder, datasets):
    """Write {dataset: Skim} of toy dijets as a finished skim of data."""
    asked = FeatureConfig(name="dijet")
    report = SimpleNamespace(datasets={}, outputs={}, config={}, versions={})
    for name, skim in datasets.items():
        columns = {**skim.spectators, "genWeight": np.ones(len(skim.weight))}
        columns |= {f"dijet.{c.name}": skim.x[:, i] for i, c in enumerate(feature_spec("dijet").columns)}
        n = float(len(skim.weight))
        record = {
            "dataset": name, "filename": "toy.root", "sumw": n, "events": int(n), "is_mc": False, "flavour": "NanoAOD v15",
            "selection": {}, "collection": "FatJet",
        }  # fmt: skip
        path = folder / name / "toy.parquet"
        path.parent.mkdir(parents=True)
        write_rows(str(path), pa.table(columns), record, [asked])
        report.datasets[name] = {"sumw": n}
        report.outputs[name] = {"files": {str(path)}, "sumw": n}
    write_manifest(report, folder)
    return folder


@pytest.fixture(scope="module")
def skim(data, tmp_path_factory):
    signal = toys.skim(toys.signal(300, 8), "signal", first=3 * 10**6)
    return write_skim(tmp_path_factory.mktemp("skim"), {"data": data["data"], "signal": signal})


WORDS = [
    "datasets=[data]", "method=cwola", "folds=3", "salt=s", "template_rows=1000", "efficiencies=[0.1]",
    f"windows={json.dumps([w.model_dump(exclude={'mass'}) for w in WINDOWS])}",
    "settings.classifier={members: 1, options: {num_leaves: 7}}",
]  # fmt: skip


def run(skim, output, capsys, *words, executor="iterative"):
    code = cli.main(["run", "resonant", f"data={skim}", *WORDS, *words, "--executor", executor, "-o", str(output)])
    printed = capsys.readouterr()
    return code, " ".join(printed.out.split()), printed.err.strip().splitlines()


@pytest.mark.dask
def test_the_command_line_searches_in_this_process_and_on_dask_alike(skim, one, tmp_path, capsys):
    scores = {}
    for executor, more in (("iterative", ()), ("dask", ("--scheduler", one.scheduler.address))):
        code, printed, _ = run(skim, tmp_path / f"{executor}.onnx", capsys, *more, executor=executor)
        assert code == 0
        assert "means: " in printed
        for w in WINDOWS:
            path = tmp_path / f"{executor}_{w.name}.onnx"
            card = read_card(path.read_bytes())
            assert [r.name for r in card.regions] == ["loose"]
            assert card.domain == (w.domain,)
            scores[executor, w.name] = card.golden.scores
    assert all(scores["iterative", w.name] == scores["dask", w.name] for w in WINDOWS)


# workers that die; they come last, since new ones take long to begin


@pytest.mark.dask
def test_a_worker_that_dies_costs_its_training_only_and_that_is_done_again(one, here, data, tmp_path):
    marker = tmp_path / "died"
    one.register_plugin(killing.Announced(tasks()[1].seed, str(marker)))
    try:
        trained, _ = search(tasks("kills", WINDOWS[:1]), data, tmp_path / "search", cluster=one)
    finally:
        one.unregister_worker_plugin(killing.Announced.name)
    assert marker.exists()
    assert not trained.failed
    same(trained, here, WINDOWS[:1])


@pytest.mark.dask
def test_a_training_that_always_ends_the_only_worker_is_named_and_what_waits_behind_it_is_done(
    one, here, data, tmp_path
):
    one.register_plugin(killing.Announced(tasks()[1].seed))
    try:
        trained, _ = search(tasks("kills", WINDOWS[:1]), data, tmp_path, cluster=one)
    finally:
        one.unregister_worker_plugin(killing.Announced.name)
    assert list(trained.failed) == ["3000_3300_fold_1"]
    assert "it ends the workers that work on it, though nothing else does" in trained.failed["3000_3300_fold_1"]
    assert set(trained.members) == {"3000_3300_fold_0", "3000_3300_fold_2"}
    for name, member in trained.members.items():
        np.testing.assert_array_equal(member.score, here.members[name].score)


def test_the_same_command_does_what_is_missing_and_another_one_overwrites_nothing(skim, tmp_path, capsys, monkeypatch):
    output, done = tmp_path / "s.onnx", []

    def broken(task, skims, train=trainings.train_member):
        if task.name == "3300_3700_fold_2":
            raise ValueError("no space left")
        return train(task, skims)

    monkeypatch.setattr(trainings, "train_member", broken)
    code, _, err = run(skim, output, capsys)
    assert code == 1
    assert err[-1] == (
        "error: 1 of 6 trainings failed (3300_3700_fold_2: ValueError: no space left); 1 of 2 model files are written, and "
        "the same command does what is missing"
    )
    assert [p.name for p in sorted(tmp_path.glob("*.onnx"))] == ["s_3000_3300.onnx"]
    before = (tmp_path / "s_3000_3300.onnx").read_bytes()

    monkeypatch.undo()

    def counting(task, skims, train=trainings.train_member):
        done.append(task.name)
        return train(task, skims)

    monkeypatch.setattr(trainings, "train_member", counting)
    code, printed, _ = run(skim, output, capsys)
    assert code == 0
    assert done == ["3300_3700_fold_2"]
    assert "5 of 6 trainings were there already" in printed
    assert (tmp_path / "s_3000_3300.onnx").exists()
    for words, sentence in (
        (["seed=2"], "seed: 1, not 2"),
        (["efficiencies=[0.2]"], "another efficiencies"),
    ):
        code, _, err = run(skim, output, capsys, *words)
        assert code == 1
        assert err[-1].startswith(f"error: {tmp_path / 's'}: there is another search in it already ({sentence})")
    assert (tmp_path / "s_3000_3300.onnx").read_bytes() == before
    done.clear()
    code, _, _ = run(skim, output, capsys, "efficiencies=[0.2]", "--force")
    assert code == 0
    assert done == []  # the trainings are the same
    assert (tmp_path / "s_3000_3300.onnx").read_bytes() != before


def test_an_interruption_says_how_it_goes_on(skim, tmp_path, capsys, monkeypatch):
    done = []

    def interrupted(task, skims, train=trainings.train_member):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task.name)
        return train(task, skims)

    monkeypatch.setattr(trainings, "train_member", interrupted)
    code, _, err = run(skim, tmp_path / "s.onnx", capsys)
    assert code == 130
    assert err[-2:] == [
        "interrupted",
        f"2 finished trainings are kept in {tmp_path / 's'}; the same command goes on from there",
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["datasets=[]"], "datasets: name those of the skim that are searched"),
        (["datasets=[dat]"], "unknown dataset 'dat'; did you mean 'data'? Known: data, signal"),
        (["mass=mj"], "the mass mj must be a column of the feature"),
        (["train.epochs=3"], "train has no effect in a search; it trains as settings.flow and settings.classifier say"),
        (
            ["method=anode", "settings.candidates=[{members: 1}, {members: 2}]"],
            "settings.candidates has no effect on method anode, which has no classifier",
        ),
        (["method=cwol"], "unknown method 'cwol'; did you mean 'cwola'?"),
        (["method=salad"], "method salad needs simulation: name datasets of the skim for it"),
        (["--folds", "2"], "folds=2: should be greater than or equal to 3"),
        (["inject=10"], "inject: name the datasets of the signal with signal=[…]"),
        (["inject=1000", "signal=[signal]"], "1000 rows of signal are to be injected, but there are only 300"),
        (
            ["windows=[{low: 3000, high: 2000, outer_low: 1000, outer_high: 4000}]"],
            "outer_low < low < high < outer_high",
        ),
        (
            ["windows=[{low: 8000, high: 8500, outer_low: 2000, outer_high: 9000}]"],
            "no window can be searched: window 8000_8500: its signal region, 8000 ≤ mjj < 8500, has 0 rows, but needs",
        ),
        (["windows=lhc"], "unknown windows 'lhc'; did you mean 'lhco'?"),
        (["settings.inputs=[tau]"], "inputs: unknown column 'tau'"),
    ],
)
def test_wrong_inputs_are_one_sentence(words, sentence, skim, tmp_path, capsys):
    code, _, err = run(skim, tmp_path / "s.onnx", capsys, *words)
    assert code == 1
    errors = [line for line in err if line.startswith("error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ls"], ["resonant", "dijet_resonance"]),
        (["run", "resonant", "--help"], ["windows", "template_rows", "settings.flow.epochs", "-o MODEL.onnx"]),
        (["run", "resonant", "--help"], ["settings.candidates"]),
        (["run", "dijet_resonance", "--help"], ["jet_scale", "delta_eta_max", "--fileset"]),
    ],
)
def test_the_words_say_what_there_is(words, said, capsys):
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    for word in said:
        assert word in printed


def test_a_search_has_no_futures_executor(skim, tmp_path, capsys):
    from coffea_ad.cli.main import main

    words = [
        "run",
        "resonant",
        f"data={skim}",
        "datasets=[data]",
        "--executor",
        "futures",
        "-o",
        str(tmp_path / "s.onnx"),
    ]
    assert main(words) == 1
    assert "a search runs on dask, or with --executor iterative in this process" in capsys.readouterr().err


def test_keys_that_have_no_effect_on_a_search_are_not_listed(capsys):
    assert cli.main(["run", "resonant", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "train.epochs" not in printed
    assert "\npreprocessing" not in printed
