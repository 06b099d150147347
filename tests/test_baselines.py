"""Five figures are as before, pixel by pixel: `python tests/baselines.py` draws anew what they are compared with."""

from __future__ import annotations

import json
import re

import baselines
import numpy as np
import pytest

pytestmark = pytest.mark.plot


@pytest.fixture
def compare(tmp_path):
    """Draw a figure, and say what differs from its baseline; None if nothing does."""
    if other := baselines.other_versions():
        pytest.skip(f"the baselines were drawn with {', '.join(other)}")
    from matplotlib.testing.compare import compare_images

    def difference(figure):
        expected = baselines.FOLDER / f"{figure.__name__}.png"
        return compare_images(str(expected), str(baselines.draw(figure, tmp_path)), tol=0)

    return difference


@pytest.mark.parametrize("figure", baselines.FIGURES, ids=lambda figure: figure.__name__)
def test_a_figure_is_its_baseline_in_every_pixel(figure, compare):
    assert compare(figure) is None


def test_a_line_of_another_colour_is_another_figure(compare, monkeypatch):
    from matplotlib.axes import Axes

    axvline = Axes.axvline
    monkeypatch.setattr(Axes, "axvline", lambda ax, x, **look: axvline(ax, x, **look | {"color": "firebrick"}))
    assert "stack-failed-diff.png" in compare(baselines.stack)


def test_one_pixel_that_is_one_level_brighter_is_another_figure(compare, monkeypatch):
    from PIL import Image

    def brighter(path):
        pixels = np.array(Image.open(baselines.FOLDER / "roc.png"))
        pixels[10, 10, 0] ^= 1
        Image.fromarray(pixels).save(path)

    brighter.__name__ = "roc"
    assert "roc-failed-diff.png" in compare(brighter)


def test_with_another_version_nothing_is_compared_and_it_is_named(monkeypatch):
    monkeypatch.setattr(baselines, "drawn_with", lambda: json.loads(baselines.VERSIONS.read_text()) | {"numpy": "9"})
    (said,) = baselines.other_versions()
    assert re.fullmatch(r"numpy \d\S+ \(here 9\)", said)


def test_baselines_are_small_and_of_the_versions_that_are_tested_together():
    """With a new version in constraints.txt, figures would be skipped unseen: they are drawn anew, and looked at."""
    files = {path.name for path in baselines.FOLDER.glob("*.png")}
    assert files == {f"{figure.__name__}.png" for figure in baselines.FIGURES}
    assert max((baselines.FOLDER / name).stat().st_size for name in files) < 60_000
    pinned = dict(
        re.findall(r"^([\w-]+)==(\S+)$", (baselines.HERE.parent / "constraints.txt").read_text(), re.MULTILINE)
    )
    before = json.loads(baselines.VERSIONS.read_text())
    for name in ("matplotlib", "mplhep", "mplhep_data", "numpy"):
        assert before[name] == pinned[name]
