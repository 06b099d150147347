"""Trainings that went wrong say so: on the card, in the last line, or in one sentence with the model's name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from toy_skims import toy_rows, write_skim

import coffea_ad as ad
from coffea_ad import cli

pytestmark = pytest.mark.torch


def trained(recipe, folder, out, capsys, *words):
    """Train through the command line; exit code, lines that were said, and the verdict on the card."""
    code = cli.main(["run", recipe, f"data={folder}", "train.epochs=1", *words, "-o", str(out)])
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    lines = (told.out + told.err).splitlines()
    return code, lines, ad.OnnxScorer(out).card.provenance["verdict"] if out.is_file() else None


def skim(folder, weight):
    return write_skim(folder, {"qcd": {"x": toy_rows(len(weight))[0], "weight": weight, "xsec": 1.0}})


def test_a_training_that_made_it_worse_than_untrained_is_not_called_good(tmp_path, capsys):
    folder = skim(tmp_path / "skim", np.ones(800))
    code, lines, doubts = trained("svdd", folder, tmp_path / "bad.onnx", capsys, "train.learning_rate=1e3")
    assert code == 0
    assert any("the training has improved nothing: the validation loss is" in doubt for doubt in doubts)
    assert "before the training it was" in next(line for line in lines if line.startswith("verdict: "))
    _, _, doubts = trained("svdd", folder, tmp_path / "good.onnx", capsys)
    assert doubts == []
    rows = [json.loads(line) for line in (tmp_path / "good" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["validation"] < row["untrained"] for row in rows)


def test_one_heavy_row_is_in_the_verdict_whatever_its_split(tmp_path, capsys):
    for place in (0, 1, 2, 3):
        weight = np.ones(800)
        weight[place] = 1e12
        _, _, doubts = trained("pca", skim(tmp_path / f"skim{place}", weight), tmp_path / f"{place}.onnx", capsys)
        if doubts is None:  # the heavy row is one of validation: no calibration
            continue
        assert any("800 rows are worth 1 of equal weight" in doubt for doubt in doubts)


def test_what_onnxruntime_cannot_reproduce_is_named(tmp_path, capsys):
    folder = skim(tmp_path / "skim", np.ones(800))
    out = tmp_path / "vae.onnx"
    code, lines, _ = trained("vae", folder, out, capsys, "train.learning_rate=1e3")
    if code:
        assert lines[-1].startswith(f"error: {out}: nothing is written, since torch and onnxruntime differ by ")
        assert not out.exists()
    else:  # on another machine the rounding may suffice
        assert any(line.startswith("verdict: ") and "nothing doubtful" not in line for line in lines)
