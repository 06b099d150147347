"""Configurations: where a wrong key came from, the nearest right one, and what may be written in short."""

from __future__ import annotations

import os

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from coffea_ad import recipes
from coffea_ad.cli.main import _parse, main
from coffea_ad.cli.recipe_help import described
from coffea_ad.cli.runs import models_apart
from coffea_ad.config import keys_of, load_config
from coffea_ad.errors import ConfigError

pytestmark = pytest.mark.usefixtures("undrawn")


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    options: dict[str, int] = {}


class Train(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    epochs: int = Field(50, ge=1)
    learning_rate: float = 1e-3


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    data: str = "skims"
    datasets: tuple[str, ...] = Field((), description="the background")
    filters: tuple[tuple[str, str, float], ...] = ()
    steps: int | tuple[int, int] = 5
    parts: tuple[Part, ...] = ()
    extra: Part | None = None
    named: dict[str, Train] = {}
    train: Train = Train(epochs=7)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("data: elsewhere\ntrain: {epochs: 3}\n")
    return path


@pytest.mark.parametrize(
    ("words", "content", "sentence"),
    [
        (["epochs=1"], "", "command line: epochs=1: unknown key 'epochs'; did you mean 'train.epochs'?"),
        (["train.epoch=2"], "", "command line: train.epoch=2: unknown key 'epoch' in train; did you mean 'train.epochs'?"),
        ([], "epochs: 1", "my.yaml: unknown key 'epochs'; did you mean 'train.epochs'?"),
        (["data=x"], "train: {epoch: 2}", "my.yaml: unknown key 'epoch' in train; did you mean 'train.epochs'?"),
        (["dataset=x"], "", "did you mean 'datasets'?"),
        (["train.epochs=abc"], "", "command line: train.epochs=abc: should be a valid integer"),
        (["train={epochs: 0}"], "", "command line: train={epochs: 0}: train.epochs = 0: should be greater than or equal to 1"),
        (["train.learning_rate=1"], "train: {epochs: abc}", "my.yaml: train.epochs = 'abc': should be a valid integer"),
        (["train=5"], "train: {epochs: 1}", "command line: train=5: must hold keys and values, {key: value}"),
        (["steps=abc"], "", "command line: steps=abc: should be a valid integer, unable"),
        (["steps=abc", "train.epochs=0"], "", "(and 1 more key is wrong)"),
        (["parts=[{nme: x}]"], "", "the key 'parts[0].name' is missing"),
        ([], "parts: [{name: x, nme: x}]", "my.yaml: unknown key 'nme' in parts; did you mean 'name'?"),
        (["extra.nme=x", "extra.name=x"], "", "command line: extra.nme=x: unknown key 'nme' in extra"),
        (["named.a.epochs=0"], "", "command line: named.a.epochs=0: should be greater than or equal to 1"),
        (["named.a.epoch=1"], "", "command line: named.a.epoch=1: unknown key 'epoch' in named.a; did you mean 'named.a.epochs'?"),
        (["extra.options={a: b}"], "", "the key 'extra.name' is missing"),
        ([], "data: 1\ndata: 2", "my.yaml, line 2: not valid YAML (the key 'data' stands twice)"),
        ([], "1: 2", "my.yaml: the key 1 is no text"),
        (["data={"], "", "'data={': the value cannot be read as YAML"),
        (["train.epochs=1", "train=5"], "", "'train=5': train is set to a value and to keys at once"),
    ],
)  # fmt: skip
def test_an_error_says_where_its_key_came_from_and_the_nearest_right_one(tmp_path, words, content, sentence):
    path = tmp_path / "my.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_config(Config, path if content else None, words)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value) or not sentence.startswith("my.yaml")


def test_a_missing_key_says_how_to_give_it_where_that_is_possible(file):
    needs = create_model("Needs", skim=(str, ...))
    with pytest.raises(ConfigError, match="^configuration: the key 'skim' is missing; give it as skim=… or in a file"):
        load_config(needs, None, [])
    with pytest.raises(ConfigError, match=r"my.yaml: the key 'skim' is missing$"):
        load_config(needs, file)


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("datasets=qcd", "datasets", ("qcd",)),
        ("datasets=[qcd, ttbar]", "datasets", ("qcd", "ttbar")),
        ("filters=[met, '>', 100]", "filters", (("met", ">", 100.0),)),
        ("filters=[[met, '>', 100], [mt, '<', 1e3]]", "filters", (("met", ">", 100.0), ("mt", "<", 1000.0))),
        ("parts={name: x}", "parts", (Part(name="x"),)),
        ("steps=[1, 2]", "steps", (1, 2)),
        ("steps=3", "steps", 3),
    ],
)
def test_one_element_where_a_list_is_wanted_is_a_list_of_one(word, key, value):
    assert getattr(load_config(Config, None, [word]), key) == value


def test_the_command_line_counts_over_the_file_key_by_key(file):
    config = load_config(Config, file, ["train.learning_rate=0.5"])
    assert (config.data, config.train.epochs, config.train.learning_rate) == ("elsewhere", 3, 0.5)


def test_merge_keys_and_anchors_of_yaml_stay_possible(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("train: &t {epochs: 4}\n<<: {data: there}\n")
    assert load_config(Config, path).data == "there"


def test_all_keys_are_listed_with_the_defaults_of_the_recipe():
    keys = {key.name: key for key in keys_of(Config)}
    assert list(keys) == [
        "data", "datasets", "filters", "steps", "parts", "extra", "extra.name", "extra.options", "named", "train.epochs",
        "train.learning_rate",
    ]  # fmt: skip
    assert keys["train.epochs"].default == 7
    assert keys["datasets"].description == "the background"
    assert keys["extra.name"].required


PROCESSORS = [r.name for r in recipes.available() if r.kind == "processor"]
TRAININGS = [r.name for r in recipes.available() if r.kind == "training"]


def _every_key_is_listed(name, capsys):
    assert main(["run", name, "--help"]) == 0
    out = capsys.readouterr().out
    config = recipes.load(name).Config
    keys = [key.name for key in keys_of(config)]
    unused = set(getattr(config, "unused", ()))  # inherited, and refused
    assert set(config.model_fields) - unused == {key.partition(".")[0] for key in keys}
    rows = [line.split("│")[0].strip() for line in out.splitlines()]
    assert [key for key in keys if key not in rows] == []
    assert "required" in out or all(not key.required for key in keys_of(config))
    for shipped in next(r.configurations for r in recipes.available() if r.name == name):
        assert shipped in out


@pytest.mark.parametrize("name", PROCESSORS)
def test_help_of_a_processor_lists_every_key(name, capsys):
    _every_key_is_listed(name, capsys)


@pytest.mark.torch
@pytest.mark.parametrize("name", TRAININGS)
def test_help_of_a_training_lists_every_key(name, capsys):
    _every_key_is_listed(name, capsys)


def test_help_of_a_recipe_says_type_default_and_meaning_of_a_key():
    cells = [list(column.cells) for column in described("skim_jets")[-1].columns]
    rows = dict(zip(cells[0], zip(*cells[1:], strict=True), strict=True))
    assert rows["jet_pt_min"] == ("number or none", "200", "GeV, of the leading jets")
    assert rows["features"][0] == "list of {name, options}"
    assert rows["met_filters"][:2] == ("list of text", "[]")


def test_help_of_run_says_which_words_belong_to_which_kind_of_recipe(capsys):
    assert main(["run", "--help"]) == 0
    out = capsys.readouterr().out
    both, processors = out.index("processors and trainings:"), out.index("processors only:")
    assert both < out.index("\n  --config CONFIG") < processors < out.index("\n  --fileset FILESET")
    assert "walltime" in out


def test_ls_shows_the_configurations_that_ship_with_each_recipe(capsys):
    assert main(["ls"]) == 0
    out = capsys.readouterr().out
    for recipe in recipes.available():
        for shipped in recipe.configurations:
            assert shipped in out
    assert "wnae/svj.yaml" in out


@pytest.mark.parametrize(
    ("words", "models"),
    [
        (["--model", "a.onnx", "b.onnx", "met_min=0"], ["a.onnx", "b.onnx"]),
        (["--model", "c.onnx", "a.onnx", "--model", "b.onnx"], ["c.onnx", "a.onnx", "b.onnx"]),
        (["--model=a.onnx", "b.onnx", "-t"], ["a.onnx", "b.onnx"]),
        (["met_min=0", "--model", "a.onnx"], ["a.onnx"]),
    ],
)
def test_one_flag_takes_several_models_in_their_order(words, models):
    args = _parse(["run", "semivisible_jets", *words])
    assert args.model == models
    assert args.overrides == [w for w in words if w == "met_min=0"]
    assert models_apart(["fileset", "a.onnx", "b.onnx"]) == ["fileset", "a.onnx", "b.onnx"]


def test_names_with_brackets_are_printed_as_they_are(capsys):
    assert main(["features", "jet_substructure", "source=stored"]) == 0
    assert "jet_substructure[source=stored], version" in capsys.readouterr().out


@pytest.mark.parametrize("epochs", [0, 2])
def test_an_interrupted_training_says_how_it_goes_on(tmp_path, capsys, monkeypatch, epochs):
    recipe = tmp_path / "mine.py"
    recipe.write_text(
        "from pydantic import BaseModel\n\n\nclass Config(BaseModel):\n    data: str = ''\n    resume: bool = False\n\n\n"
        "def train(config, output):\n"
        "    folder = output.with_suffix('')\n"
        "    folder.mkdir()\n"
        f"    if {epochs}:\n"
        "        (folder / 'checkpoint.pt').touch()\n"
        "    raise KeyboardInterrupt\n"
    )
    monkeypatch.chdir(tmp_path)
    assert (
        main(["run", "mine.py", "data=my skims", "resume=false", "-o", f"out{os.sep}m.onnx".replace(os.sep, "_")])
        == 130
    )
    err = capsys.readouterr().err
    assert "interrupted\n" in err
    if epochs:
        assert "go on with: coffea-ad run mine.py 'data=my skims' -o out_m.onnx resume=true" in err
    else:
        assert "resume" not in err
