"""Models, cards, configurations, filesets, results, skims and corrections that are mutated."""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import json
import shutil
import string
import zipfile

import numpy as np
import pyarrow.parquet as pq
import yaml
from fuzz_files import OPEN, columns, search, write
from toy_skims import toy_rows, write_skim
from toys import DATA, open_events

import coffea_ad as ad
from coffea_ad import recipes
from coffea_ad.config import load_config
from coffea_ad.corrections import Corrections, Corrector
from coffea_ad.errors import CoffeaADError, ProcessorFailed
from coffea_ad.filesets import load_fileset
from coffea_ad.results.folder import load_results
from coffea_ad.scoring.card import ModelCard
from coffea_ad.scoring.modelfile import CARD_KEY, read_texts, seal
from coffea_ad.skims.reading import load_skim

MODELS = ("wnae.onnx", "ae_stored.onnx")
ODD = (
    None, True, False, 0, 1, -1, 0.5, -1.0, 1e9, 1e300, -1e300, float("nan"), float("inf"), 2**31, 2**63, -(2**63), 10**30, "",
    "x", "1", "1e9", "nan", "true", "null", "../x", "ä\u202e", "\x00", "a" * 3000, [], {}, [1], ["x"], [[]], [None], {"x": 1},
    {"": None}, {"x": [{}]}, [[1, 2], [3, 4]], [["met", ">", 1e9]],
)  # fmt: skip
PROCESSORS = ("semivisible_jets", "skim_jets", "rmm_two_body", "event_anomaly", "skim_events")


def places(value, path=()):
    """All places in a nested value."""
    out = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        out += places(inner, (*path, key))
    return out


def mutated(rng, value, n=1):
    """A nested value with odd things at some of its places, or without them, or with wrong keys."""
    out = copy.deepcopy(value)
    for _ in range(n):
        candidates = places(out)
        if len(candidates) == 1:
            return odd(rng)
        path = candidates[1 + rng.integers(len(candidates) - 1)]
        parent = functools.reduce(lambda v, k: v[k], path[:-1], out)
        deed = rng.random()
        if deed < 0.2:
            del parent[path[-1]]
        elif deed < 0.3 and isinstance(parent, dict):
            parent[str(path[-1]) + "_"] = parent.pop(path[-1])
        elif deed < 0.4 and isinstance(parent, dict):
            parent[str(rng.choice(["x", "files", "is_mc", "name", ""]))] = odd(rng)
        elif deed < 0.5 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
        elif deed < 0.65 and isinstance(parent[path[-1]], (int, float)) and not isinstance(parent[path[-1]], bool):
            parent[path[-1]] = parent[path[-1]] * float(rng.choice([-1, 2, 0, 1e6]))
        else:
            parent[path[-1]] = odd(rng)
    return out


def odd(rng):
    return copy.deepcopy(ODD[rng.integers(len(ODD))])


def mutated_text(rng, text):
    """A text with characters changed, cut out, or doubled."""
    out = list(text)
    for _ in range(rng.integers(1, 6)):
        i = int(rng.integers(0, max(len(out), 1)))
        deed = rng.integers(4)
        if deed == 0:
            out[i : i + 1] = [str(rng.choice(list(string.printable + "ä€\x00")))]
        elif deed == 1:
            del out[i : i + int(rng.integers(1, 20))]
        elif deed == 2:
            out[i:i] = out[i : i + int(rng.integers(1, 30))]
        else:
            out[i:] = out[i:] if rng.random() < 0.8 else []
    return "".join(out)


def one_sentence(error):
    """Every error is a few words about what is wrong, not somebody else's trace."""
    text = str(error)
    assert text, repr(error)
    assert not isinstance(error, ProcessorFailed), text
    assert "For further information visit" not in text, text
    assert "Traceback" not in text, text
    assert len(text) < 4000, f"{len(text)} characters: {text[:200]}"


@functools.cache
def events():
    return open_events(DATA / "svj_v15.root")[:EVENTS_OF_CARDS]


EVENTS_OF_CARDS = 15


@functools.cache
def scores(model):
    return ad.Tagger(DATA / model)(events())["ad_score"].to_list()


def model_bytes(rng, folder):
    """A sealed model with damaged bytes is refused, whichever they are."""
    data = bytearray((DATA / MODELS[rng.integers(2)]).read_bytes())
    before = bytes(data)
    if rng.random() < 0.3:
        data = data[: rng.integers(0, len(data))]
    else:
        for i in rng.integers(0, len(data), rng.integers(1, 4)):
            data[i] ^= int(rng.integers(1, 256))
    if bytes(data) == before:
        return
    path = folder / "model.onnx"
    path.write_bytes(data)
    try:
        ad.Tagger(path).scorer.session  # noqa: B018
    except CoffeaADError as error:
        one_sentence(error)
        assert "model.onnx" in str(error), str(error)
        return
    raise AssertionError("taken, although its bytes are not those that were sealed")


def card(rng, folder):
    """A card with other words, sealed: it scores as before, or is refused."""
    model = MODELS[rng.integers(2)]
    data = (DATA / model).read_bytes()
    content = json.loads(read_texts(data)[CARD_KEY])
    wrong = mutated(rng, content, int(rng.integers(1, 3)))
    text = json.dumps(wrong) if rng.random() < 0.85 else mutated_text(rng, json.dumps(content))
    path = folder / "card.onnx"
    path.write_bytes(seal(data, text, "card.onnx"))
    try:
        jets = ad.Tagger(path)(events())
    except CoffeaADError as error:
        one_sentence(error)
        return
    ModelCard.model_validate_json(text)
    if "ad_score" in jets.fields:
        assert len(jets["ad_score"]) == EVENTS_OF_CARDS


def configuration(rng, folder):
    """A YAML file or `key=value` of a processor, with odd things."""
    module = recipes.load(PROCESSORS[rng.integers(len(PROCESSORS))])
    content = json.loads(module.Config().model_dump_json())
    path = folder / "config.yaml"
    overrides = []
    if rng.random() < 0.3:
        path.write_text(mutated_text(rng, yaml.safe_dump(content)), newline="")
    else:
        path.write_text(
            yaml.safe_dump(mutated(rng, content, int(rng.integers(1, 4))), allow_unicode=bool(rng.random() < 0.5))
        )
    if rng.random() < 0.3:
        key = str(rng.choice([*content, "x", "corrections.jec", "features.0.name", "=", "a.b.c", ""]))
        overrides = [f"{key}={odd(rng)}" if rng.random() < 0.8 else key]
    try:
        settings = load_config(module.Config, path, overrides)
        module.Processor(settings, [], folder)
    except CoffeaADError as error:
        one_sentence(error)


def fileset(rng, folder):
    """A fileset with odd things, as a mapping or in a file."""
    content = {
        "svj": {"files": {str(folder / "a.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}},
        "data": {"files": [str(folder / "b.root"), str(folder / "c.root")], "treename": "Events", "metadata": {"is_mc": False, "year": 2024}},
        "done": {"files": {"d.root": {"object_path": "Events", "steps": [[0, 10], [10, 20]], "num_entries": 20, "uuid": "ab"}}},
    }  # fmt: skip
    wrong = mutated(rng, content, int(rng.integers(1, 4)))
    if rng.random() < 0.5:
        source = wrong
    else:
        source = folder / ("fileset.json" if rng.random() < 0.5 else "fileset.yaml")
        text = json.dumps(wrong) if source.suffix == ".json" else yaml.safe_dump(wrong)
        source.write_text(mutated_text(rng, text) if rng.random() < 0.3 else text, newline="")
    try:
        entries = load_fileset(source)
    except CoffeaADError as error:
        one_sentence(error)
        return
    json.dumps(entries, allow_nan=False)  # whatever is taken is plain
    for entry in entries.values():
        assert all(isinstance(p, str) and isinstance(t, str) for p, t in entry["files"].items()), entry


@functools.cache
def small_file(folder):
    return write(folder / "small.root", {k: v[:12] for k, v in columns().items()}, runs=False)


def metadata(rng, folder):
    """Metadata of a dataset in other spellings and types: the same result, or a sentence that names the dataset."""
    path = small_file(folder.parent)
    yes = [True, np.True_, 1, np.int64(1), 1.0]
    numbers = [1, 1.0, "1.0", np.float32(1), np.int32(1), np.float64(1)]
    key, other = rng.choice(["is_mc", "isMC"]), rng.choice(["xsec", "cross_section"])
    good = {
        str(key): yes[rng.integers(len(yes))],
        str(other): numbers[rng.integers(len(numbers))],
        "year": np.int16(2024),
    }
    if rng.random() < 0.5:
        assert search([path], metadata=good) == search([path])
        return
    wrong = {**good, str(rng.choice([*good, "sqrt_s", "era", "filename", "lumi", "campaign", "steps"])): odd(rng)}
    try:
        got = search([path], metadata=wrong)
    except CoffeaADError as error:
        one_sentence(error)
        assert "svj" in str(error), str(error)
    else:
        assert got["sumw"] in (0.0, 12.0), got["sumw"]


@functools.cache
def results_folder(folder):
    target = folder / "results"
    ad.run(
        {"svj": {"files": {str(small_file(folder)): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}, "semivisible_jets",
        overrides=OPEN, config="none", executor="iterative", progress=False, output=target,
    )  # fmt: skip
    return target


def mutate_archive(rng, folder):
    """Change bytes of the histograms, or one of their descriptions together with the digest in the report."""
    path = folder / "histograms.zip"
    data = bytearray(path.read_bytes())
    if rng.random() < 0.4:
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
    else:
        with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = sorted(n for n in members if n.endswith(".json"))[
            rng.integers(sum(n.endswith(".json") for n in members))
        ]
        members[name] = json.dumps(mutated(rng, json.loads(members[name]))).encode()
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        data = memory.getvalue()
        report = json.loads((folder / "report.json").read_text())
        report["histograms"] = hashlib.sha256(data).hexdigest()
        (folder / "report.json").write_text(json.dumps(report))
    path.write_bytes(bytes(data))


def results(rng, folder):
    """A results folder with another report or other histograms: refused, or norms and histograms as they were."""
    copied = folder / "copied"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(results_folder(folder.parent), copied)
    if rng.random() < 0.5:
        content = (copied / "report.json").read_text()
        wrong = mutated_text(rng, content) if rng.random() < 0.3 else json.dumps(mutated(rng, json.loads(content)))
        (copied / "report.json").write_text(wrong)
    else:
        mutate_archive(rng, copied)
    try:
        loaded = load_results(copied)
        for dataset in loaded.report["datasets"]:
            loaded.norm(dataset)
        repr(loaded)
        _ = loaded.in_regions, loaded.not_normalisable
    except CoffeaADError as error:
        one_sentence(error)


@functools.cache
def skim_folder(folder):
    x, _ = toy_rows(60)
    return write_skim(folder / "skim", {"qcd": {"x": x, "weight": np.ones(60), "xsec": 1.0}})


def skim(rng, folder):
    """A skim with another manifest, or with other facts in its files."""
    copied = folder / "skim"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(skim_folder(folder.parent), copied)
    path, manifest = copied / "qcd" / "toy.parquet", copied / "manifest.json"
    deed = rng.random()
    if deed < 0.35:
        text = manifest.read_text()
        manifest.write_text(
            mutated_text(rng, text) if rng.random() < 0.3 else json.dumps(mutated(rng, json.loads(text)))
        )
    elif deed < 0.7:
        table = pq.read_table(path)
        facts = dict(table.schema.metadata)
        key = next(iter(facts))
        facts[key] = json.dumps(mutated(rng, json.loads(facts[key]))).encode()
        pq.write_table(table.replace_schema_metadata(facts), path)
    elif deed < 0.85:
        table = pq.read_table(path)
        name = str(rng.choice(table.column_names))
        pq.write_table(table.drop_columns([name]), path)
    else:
        data = path.read_bytes()
        path.write_bytes(data[: rng.integers(0, len(data))])
    filters = [[["met", ">", 1e9]], [["pt", ">", "1e9"]], [["pt", odd(rng), odd(rng)]], odd(rng), ()][rng.integers(5)]
    try:
        load_skim(copied, "jet_substructure", filters=filters if rng.random() < 0.5 else ())
    except CoffeaADError as error:
        one_sentence(error)


def jec_content():
    """A correction of jets in bins of η and pT, and one weight of an event."""
    inner = {
        "nodetype": "binning",
        "input": "JetPt",
        "edges": [15.0, 100.0, 5000.0],
        "content": [1.1, 1.0],
        "flow": "clamp",
    }
    outer = {
        "nodetype": "binning",
        "input": "JetEta",
        "edges": [-5.2, 0.0, 5.2],
        "content": [inner, inner],
        "flow": "error",
    }
    real = [{"name": n, "type": "real"} for n in ("JetEta", "JetPt")]
    output = {"name": "out", "type": "real"}
    return {
        "schema_version": 2,
        "corrections": [{"name": "L2", "version": 1, "inputs": real, "output": output, "data": outer}],
    }


def correction(rng, folder):
    """Correction files with odd things."""
    content = jec_content()
    text = (
        json.dumps(mutated(rng, content, int(rng.integers(1, 3))))
        if rng.random() < 0.8
        else mutated_text(rng, json.dumps(content))
    )
    path = folder / "jec.json"
    path.write_text(text)
    golden = folder / "golden.json"
    runs = {"1": [[1, 10], [12, 30]], "2": [[3, 4]]}
    golden.write_text(json.dumps(mutated(rng, runs)) if rng.random() < 0.5 else json.dumps(runs))
    try:
        corrector = Corrector(
            Corrections(jec={"file": str(path), "level": "L2", "level_data": "L2"}, lumi_mask=str(golden))
        )
        for _ in corrector.jets(events()):
            pass
    except CoffeaADError as error:
        one_sentence(error)
        assert "json" in str(error), str(error)


KINDS = {
    "model bytes": (model_bytes, 12),
    "card": (card, 16),
    "configuration": (configuration, 16),
    "fileset": (fileset, 12),
    "metadata": (metadata, 4),
    "results": (results, 6),
    "skim": (skim, 6),
    "correction": (correction, 8),
}
