"""The arrows between the modules, and what may be imported where."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import coffea_ad as ad

ROOT = Path(ad.__file__).parent
CHECKOUT = ROOT.parent
MODULES = sorted(p for p in ROOT.rglob("*.py") if "_recipes" not in p.parts)


def imports(path):
    """Modules of this package that a file imports, by their names below coffea_ad."""
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("coffea_ad"):
            parent = node.module.split(".")[1:]
            out |= {".".join([*parent, a.name]) for a in node.names} | ({".".join(parent)} - {""})
        elif isinstance(node, ast.Import):
            out |= {a.name.removeprefix("coffea_ad.") for a in node.names if a.name.startswith("coffea_ad.")}
    return {m.split(".")[0] for m in out}


def external(path):
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            out |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            out.add(node.module.split(".")[0])
    return out


def name_of(path):
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_torch_lives_in_nn_only(path):
    if name_of(path) != "nn":
        assert "torch" not in external(path)
    if name_of(path) not in ("nn", "cli"):  # verbs of the command line import what they need when they are called
        assert "nn" not in imports(path)


# lower ← upper: a module may import what stands to its left, and nothing to its right
ORDER = [
    "errors", "typing", "files", "outputs", "progress", "config", "kinematics", "nanoaod", "splits", "features", "weights", "scoring",
    "luminosity", "selection", "corrections", "event_lists", "histograms", "skims", "results", "recipes", "plotting", "evaluation",
    "modelfiles", "filesets", "running", "simulation", "nn", "demo", "cli",
]  # fmt: skip


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_one_way(path):
    me = name_of(path)
    if me in ("__init__", "_version"):
        return
    for other in imports(path) & set(ORDER):
        assert ORDER.index(other) <= ORDER.index(me), f"{me} imports {other}"


def test_everything_a_worker_needs_imports_without_torch():
    """A subprocess where torch cannot be imported loads every module outside nn and every processor, and scores."""
    code = f"""
import importlib, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxscript", "sklearn", "scipy.optimize", "matplotlib", "pythia8mc", "fastjet"):
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
import coffea_ad as ad
from coffea_ad import recipes
for name in {[n for n in ORDER if n not in ("nn", "cli", "demo")]!r}:
    importlib.import_module("coffea_ad." + name)
for recipe in recipes.available():
    if recipe.kind == "processor":
        recipes.load(recipe.name)
from coffea.nanoevents import NanoEventsFactory
data = {str(CHECKOUT / "tests" / "data")!r}
events = NanoEventsFactory.from_root(data + "/svj_v15.root:Events", schemaclass=ad.NanoAODSchema).events()
print(len(ad.Tagger(data + "/wnae.onnx")(events)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == "150"


def test_the_public_names_are_frozen():
    assert dir(ad) == [
        "ModelCard", "NanoAODSchema", "OnnxScorer", "RunReport", "Tagger", "__version__", "errors", "features", "histograms",
        "load_results", "merge", "recipes", "regions", "resubmit", "run", "selection", "tag", "weights",
    ]  # fmt: skip
    for name in dir(ad):
        assert hasattr(ad, name)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_say_what_they_are_for(path):
    if path.name != "_version.py":
        assert ast.get_docstring(ast.parse(path.read_text()))


def test_recipe_folders_are_no_packages():
    for folder in ("processors", "training"):
        assert not (CHECKOUT / folder / "__init__.py").exists()
