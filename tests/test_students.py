"""Students: small networks that repeat the scores of a finished model file."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:the validation rows have an effective number")]
torch = pytest.importorskip("torch", reason="not installed: torch")

from scipy.stats import spearmanr
from toy_skims import NAME, toy_rows, write_skim
from toys import DATA

import coffea_ad as ad
from coffea_ad import nn, recipes
from coffea_ad.config import load_config
from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.nn.model import Batch
from coffea_ad.scoring.card import write_card
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.specs import Folds

TINY = {"width": 8, "heads": 2, "layers": 1, "feedforward": 8, "outputs": 6}
QUICK = ["train.epochs=12", "train.samples_per_epoch=2048", "train.learning_rate=5e-3", "train.validation_rows=200"]


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    monkeypatch.setattr("coffea_ad.nn.training.plots.training", lambda *_: None)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})  # folds in this process


def exported(model, data, path, transform=True):
    """Write a model that is not trained: any function of rows can be a teacher."""
    for member in getattr(model, "members", [model]):
        if transform:
            member.transform.fit(data.x, data.weight)
    card = nn.make_card(model, data, name=path.stem, config={}, metrics={})
    return nn.export(model, path, card, np.asarray(data.x[:60]))


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    x, _ = toy_rows(2400)
    return write_skim(tmp_path_factory.mktemp("flat"), {"qcd": {"x": x, "weight": np.ones(2400), "xsec": 1.0}})


def autoencoder(seed=1):
    torch.manual_seed(seed)
    return nn.AE(8, hidden=(6,), latent=2, transform=nn.Standard(8))


@pytest.fixture(scope="module")
def teacher(flat, tmp_path_factory):
    return exported(autoencoder(), nn.load_skim(flat, NAME), tmp_path_factory.mktemp("flat_teacher") / "teacher.onnx")


@pytest.fixture(scope="module")
def folded(flat, tmp_path_factory):
    model = nn.CrossTrained([autoencoder(seed) for seed in (1, 2, 3)], salt="toy")
    return exported(model, nn.load_skim(flat, NAME), tmp_path_factory.mktemp("folded") / "folded.onnx")


def configured(*words):
    module = recipes.load("student")
    return module, load_config(module.Config, None, ["weights=none", *QUICK, *words])


def trained(output, *words):
    module, config = configured(*words)
    return module.train(config, output), OnnxScorer(output)


def fitted(folder, *words):
    """Train without a file."""
    module, config = configured(*words)
    config = module.of_teacher(config, nn.Teacher(config.teacher))
    return module.fit(config, config.rows(), folder)


def agreement(teacher, student, x, *folds):
    return spearmanr(OnnxScorer(teacher)(x, *folds), student(x, *folds)).statistic


@pytest.mark.parametrize("target", ["logp", "score"])
def test_a_student_ranks_rows_as_its_teacher_does(flat, teacher, tmp_path, target):
    student, history = fitted(tmp_path, f"teacher={teacher}", f"data={flat}", f"target={target}")
    x = toy_rows(1000, seed=5)[0]  # which neither has seen
    assert agreement(teacher, student.scores, x) > 0.9
    assert history.best["rank_correlation"] > 0.9
    untrained = nn.Student(8, transform=student.transform)
    assert agreement(teacher, untrained.scores, x) < 0.7


def test_the_card_says_who_the_teacher_was_and_the_graph_is_the_model(flat, teacher, tmp_path):
    summary, student = trained(
        tmp_path / "s.onnx", f"teacher={teacher}", f"data={flat}", "train.epochs=1", "hidden=[4]"
    )
    card, old = student.card, OnnxScorer(teacher).card
    assert card.method == "student"
    assert card.provenance["teacher"] == {"name": "teacher", "method": "AE", "digest": OnnxScorer(teacher).digest}
    assert card.inputs == old.inputs
    assert card.calibrations != old.calibrations
    assert summary["told"] == []
    assert any("the student is not like its teacher" in doubt for doubt in card.provenance["verdict"])
    x = toy_rows(50, seed=6)[0]
    x[3, 2] = np.nan
    expected = nn.load(tmp_path / "s").scores(x)
    np.testing.assert_allclose(student(x), expected, rtol=1e-5, atol=1e-6)
    assert np.flatnonzero(np.isnan(student(x))).tolist() == [3]


class Half(nn.AE):
    """A teacher that has no score where the first column is negative."""

    def energy(self, z):
        return torch.where(z[:, 0] > 0, super().energy(z), float("nan"))


def test_rows_without_a_score_of_the_teacher_are_left_out_and_counted(flat, tmp_path):
    data = nn.load_skim(flat, NAME)
    torch.manual_seed(1)
    model = Half(8, transform=nn.Standard(8))
    path = exported(model, data.select(data.x[:, 0] > 0.3), tmp_path / "half.onnx")
    seen = data.splits("train", "validation")
    undefined = int(np.isnan(OnnxScorer(path)(seen.x)).sum())
    assert undefined > 700
    lesson = nn.Teacher(path).lesson(data)
    assert lesson.left_out == undefined
    assert len(lesson.rows.x) == len(lesson.targets) == len(seen.x) - undefined
    assert np.isfinite(lesson.targets).all()
    summary, student = trained(tmp_path / "s.onnx", f"teacher={path}", f"data={flat}", "train.epochs=1")
    assert summary["told"] == [f"{undefined} rows without a score of the teacher are left out"]
    assert student.card.provenance["metrics"]["left_out"] == undefined
    with pytest.raises(SkimError, match="scores none of the training rows"):
        nn.Teacher(path).lesson(data.select(np.isnan(OnnxScorer(path)(data.x))))


def test_targets_rise_with_the_score_and_have_unit_width(flat, teacher):
    data = nn.load_skim(flat, NAME).splits("train", "validation")
    score, train = OnnxScorer(teacher)(data.x), data.split == "train"
    order = np.argsort(score)
    for target in ("logp", "score"):
        values = nn.Teacher(teacher).lesson(data, target).targets
        assert np.all(np.diff(values[order]) >= 0)
        assert values[train].mean() == pytest.approx(0, abs=1e-5)
        assert values[train].std() == pytest.approx(1, abs=1e-5)
    logp = nn.Teacher(teacher).lesson(data, "logp").targets.astype(np.float64)
    part = np.array([(score[train] >= s).mean() for s in score[train]])  # the slow way
    slow = -np.log10(part)
    assert np.allclose(logp[train], (slow - slow.mean()) / slow.std(), atol=0.1)


def test_a_student_of_a_fold_learns_from_the_member_that_has_not_seen_it(flat, folded, tmp_path):
    _, student = trained(tmp_path / "s.onnx", f"teacher={folded}", f"data={flat}", "train.epochs=6")
    assert student.card.folds == OnnxScorer(folded).card.folds == Folds(k=3, salt="toy")
    x = toy_rows(800, seed=5)[0]
    for f in range(3):
        ours = student(x, np.full(len(x), f))
        each = [spearmanr(ours, OnnxScorer(folded)(x, np.full(len(x), g))).statistic for g in range(3)]
        assert each[f] > 0.8
        assert np.argmax(each) == f


def test_events_of_a_students_fold_are_no_part_of_its_lesson(flat, folded):
    data, teacher = nn.load_skim(flat, NAME), nn.Teacher(folded)
    with pytest.raises(ConfigError, match="has 3 folds, and needs rows with the splits of one of them"):
        teacher.lesson(data)
    rows, targets, _ = teacher.lesson(data.for_fold(1, 3, "toy"), "score")
    assert 1 not in teacher.folds.of(rows.spectators)
    expected = OnnxScorer(folded)(rows.x, np.full(len(rows.x), 1))
    assert np.corrcoef(targets, expected)[0, 1] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["folds=4"], "has no folds: it may have seen the events of each"),
        (["feature=jet_constituents"], "unknown feature 'jet_constituents'"),
        (["preset=darkclr"], "preset: network=dense has no use for this key"),
        (["network=encoder"], "an encoder takes sets"),
        (["teacher=nowhere.onnx"], "nowhere.onnx: cannot be read"),
    ],
)
def test_wrong_keys_are_named(flat, teacher, tmp_path, words, match):
    with pytest.raises(ad.errors.CoffeaADError, match=match):
        trained(tmp_path / "s.onnx", f"teacher={teacher}", f"data={flat}", *words)


def test_a_teacher_of_another_version_of_the_features_is_refused(flat, teacher, tmp_path):
    card = OnnxScorer(teacher).card
    feature = card.inputs[0].features[0].model_copy(update={"version": 99})
    other = card.model_copy(update={"inputs": (card.inputs[0].model_copy(update={"features": (feature,)}),)})
    path = tmp_path / "other.onnx"
    path.write_bytes(write_card(teacher.read_bytes(), other))
    with pytest.raises(
        ConfigError, match=r"scores rows of jet_substructure v99, and these are rows of jet_substructure v\d"
    ):
        trained(tmp_path / "s.onnx", f"teacher={path}", f"data={flat}")


def test_folds_of_another_number_or_salt_are_refused(flat, folded, tmp_path):
    for words in (["folds=4"], ["salt=else"]):
        with pytest.raises(ConfigError, match="has 3 folds with salt 'toy'"):
            trained(tmp_path / "s.onnx", f"teacher={folded}", f"data={flat}", *words)


def test_a_training_is_resumed_with_the_same_targets_only(flat, teacher, tmp_path):
    words = [f"teacher={teacher}", f"data={flat}", "train.schedule=constant", "hidden=[8]"]
    fitted(tmp_path / "s", *words, "train.epochs=2")
    with pytest.raises(ConfigError, match="belongs to other data"):
        fitted(tmp_path / "s", *words, "train.epochs=3", "resume=true", "target=score")
    resumed, _ = fitted(tmp_path / "s", *words, "train.epochs=3", "resume=true")
    at_once, _ = fitted(tmp_path / "t", *words, "train.epochs=3")
    x = toy_rows(50, seed=6)[0]
    np.testing.assert_array_equal(resumed.scores(x), at_once.scores(x))


def test_a_student_without_targets_says_what_it_needs():
    student = nn.Student(4, transform=torch.nn.Identity())
    with pytest.raises(SkimError, match="needs the targets of its teacher"):
        student.training_loss(Batch.of(torch.zeros(3, 4)), torch.Generator())
    with pytest.raises(SkimError, match="without a score of the teacher"):
        student.learn_from(np.array([1.0, np.nan], np.float32))


# Sets


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "skim"
    fileset = {"qcd": {"files": {str(DATA / "qcd_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    features = "features=[{name: jet_constituents, options: {n: 12}}]"
    ad.run(fileset, "skim_jets", overrides=[features, "jets=each"], executor="iterative", output=folder)
    return folder


class Width(nn.Model):
    """Σ pT ΔR² / Σ pT of a set: what a student can learn, and does not know."""

    method = "width"

    def __init__(self):
        super().__init__((12, 3), torch.nn.Identity())
        self.register_buffer("one", torch.ones(()))

    def energy(self, z):
        return (
            (z[:, :, 0] * z[:, :, 1:].square().sum(dim=2)).sum(dim=1) / z[:, :, 0].sum(dim=1).clamp(min=1e-3) * self.one
        )


def constituents(folder):
    return nn.load_skim(folder, "jet_constituents", {"n": 12}, weights="none")


@pytest.fixture(scope="module")
def set_teacher(sets, tmp_path_factory):
    return exported(Width(), constituents(sets), tmp_path_factory.mktemp("teacher") / "width.onnx", transform=False)


def test_a_student_of_sets_takes_any_number_of_slots(sets, set_teacher, tmp_path):
    words = [
        f"teacher={set_teacher}",
        f"data={sets}",
        f"encoder={json.dumps(TINY)}",
        "train.batch_size=64",
        "train.epochs=10",
    ]
    summary, student = trained(tmp_path / "s.onnx", *words)
    assert student.card.slots_vary
    assert summary["best"]["rank_correlation"] > 0.75
    x = np.asarray(constituents(sets).x)
    np.testing.assert_allclose(student(x), nn.load(tmp_path / "s").scores(x), rtol=1e-4, atol=1e-5)
    assert agreement(set_teacher, student, x) > 0.75
    module, config = configured(*words)
    untrained = module.build(config, constituents(sets))
    assert abs(agreement(set_teacher, untrained.scores, x)) < 0.5
