"""The arrows between the modules, and what may be imported where."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import coffea_ad as ad

ROOT = Path(ad.__file__).parent
CHECKOUT = ROOT.parent
MODULES = sorted(p for p in ROOT.rglob("*.py") if "_recipes" not in p.parts)
RECIPES = [p for folder in ("processors", "training") for p in sorted((CHECKOUT / folder).glob("*.py"))]
SOURCES = [p for p in [*MODULES, *RECIPES] if p.name != "_version.py"]


def str_of(path):
    return str(path.relative_to(CHECKOUT))


def modules_in(nodes):
    """Names below coffea_ad that import statements name."""
    out = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("coffea_ad"):
            parent = node.module.split(".")[1:]
            out |= {".".join([*parent, a.name]) for a in node.names} | ({".".join(parent)} - {""})
        elif isinstance(node, ast.Import):
            out |= {a.name.removeprefix("coffea_ad.") for a in node.names if a.name.startswith("coffea_ad.")}
    return out


def imports_in_full(path):
    return modules_in(ast.walk(ast.parse(path.read_text())))


def imports(path):
    """Packages and modules right below coffea_ad that a file imports."""
    return {m.split(".")[0] for m in imports_in_full(path)}


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
    if name_of(path) not in ("nn", "resonant"):
        assert "torch" not in external(path)
    if name_of(path) not in (
        "nn",
        "resonant",
        "cli",
    ):  # verbs of the command line import what they need when they are called
        assert "nn" not in imports(path)


# lower ← upper: a module may import what stands to its left, and nothing to its right
ORDER = [
    "errors", "typing", "versions", "tables", "files", "outputs", "progress", "config", "kinematics", "nanoaod", "splits", "features", "weights", "scoring",
    "luminosity", "selection", "corrections", "event_lists", "histograms", "skims", "results", "recipes", "plotting", "explaining", "evaluation",
    "modelfiles", "filesets", "running", "simulation", "search", "report", "nn", "resonant", "demo", "cli",
]  # fmt: skip


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_one_way(path):
    me = name_of(path)
    if me in ("__init__", "_version"):
        return
    for other in imports(path) & set(ORDER):
        assert ORDER.index(other) <= ORDER.index(me), f"{me} imports {other}"


# inside a package: lower ← upper, as above
INSIDE = {
    "nn": ["described", "graph", "model", "transforms", "training", "reconstruction", "energy_based", "one_class", "density",
           "self_supervised", "students", "scorable", "encoded", "cross_training", "ensemble", "classifiers", "loading", "attribution", "export", "recipe"],
}  # fmt: skip


def inside(module, package):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == package else None


@pytest.mark.parametrize("package", INSIDE)
def test_arrows_point_one_way_inside_a_package(package):
    order = INSIDE[package]
    for path in sorted((ROOT / package).rglob("*.py")):
        me = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if me == "__init__":
            continue
        others = {inside(m, package) for m in imports_in_full(path)} - {None, me}
        for other in others & set(order):
            assert order.index(other) <= order.index(me), f"{package}.{me} imports {other}"


def test_no_module_imports_itself_in_a_circle():
    """At run time: what stands under TYPE_CHECKING or inside a function may point back."""
    names = {str(p.relative_to(ROOT).with_suffix("")).replace("/", "."): p for p in MODULES if p.name != "__init__.py"}
    arrows = {}
    for name, path in names.items():
        top = ast.Module([n for n in ast.parse(path.read_text()).body if not isinstance(n, ast.If)], [])
        arrows[name] = {m for m in modules_in(n for n in top.body) if m in names} - {name}
    done, under_way = set(), []

    def walk(name):
        assert name not in under_way, " → ".join([*under_way[under_way.index(name) :], name])
        if name not in done:
            under_way.append(name)
            for other in sorted(arrows[name]):
                walk(other)
            under_way.pop()
            done.add(name)

    for name in sorted(names):
        walk(name)


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
for name in {[n for n in ORDER if n not in ("nn", "resonant", "cli", "demo")]!r}:
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


NN = [
    "AE", "Activation", "BaggedTrees", "Batch", "BiasFreeAE", "CLR", "ChainConfig", "CrossTrained", "DDD",
    "DIMENSIONS", "DISTANCES", "DeepSVDD", "DeepSVDDEnsemble", "DirichletVAE", "Encoded", "EncoderConfig", "EnergyModel",
    "Ensemble", "Flow", "FlowLatent", "FrozenGraph", "GaussianMixture", "History", "ImageAE", "KernelPCA", "LatentConfig", "Log", "Logit", "MLP",
    "Mahalanobis", "MaskedParticles", "MinMax", "Model", "NAE", "Neighbours", "NetworkConfig", "Output", "PCA", "PCAScore",
    "PerColumn", "PixelPower", "Preprocessing", "QuantileNormal", "RecipeConfig", "Representation", "Sampling",
    "Scorable", "Score", "Selected", "SelfDistillation", "SetConfig", "SetEncoder", "SetStudent", "Skim", "Slots",
    "Standard", "Student", "Teacher", "Tokens", "TrainConfig", "Transform", "Trees", "UnboundedActivation", "Unchanged", "VAE", "WNAE", "bundle", "combine",
    "export", "fit", "fit_folds", "fuse_linear", "langevin", "load", "load_skim", "long_run", "make_card",
    "preprocessing", "publish", "quantise", "sample_equally",
]  # fmt: skip
# what shipped recipes and examples import, and so copies of them: these names move only with a line in the changelog
IMPORTED = [
    "coffea_ad.config.Frozen", "coffea_ad.corrections.Corrections", "coffea_ad.corrections.Corrector",
    "coffea_ad.corrections.jet_veto.JetIdConfig", "coffea_ad.corrections.jet_veto.JetVetoMapConfig",
    "coffea_ad.corrections.jets.JetEnergyConfig", "coffea_ad.corrections.nominal_jets",
    "coffea_ad.corrections.with_jets", "coffea_ad.corrections.with_shifted_jets",
    "coffea_ad.errors.ConfigError", "coffea_ad.errors.unknown_text",
    "coffea_ad.features.object_options.AllObjectOptions", "coffea_ad.features.object_options.ObjectOptions",
    "coffea_ad.features.object_options.object_branches", "coffea_ad.features.object_options.object_ways", "coffea_ad.features.objects.SelectedObjects",
    "coffea_ad.features.objects.select_objects", "coffea_ad.features.spec.FeatureConfig", "coffea_ad.files",
    "coffea_ad.histograms", "coffea_ad.kinematics.pair_mass", "coffea_ad.nanoaod.EVENT_ID", "coffea_ad.nanoaod.Objects", "coffea_ad.nn",
    "coffea_ad.nn.energy_based.report.report_chains", "coffea_ad.nn.training.plots", "coffea_ad.resonant",
    "coffea_ad.scoring.trained_on.model_jets", "coffea_ad.scoring.trained_on.model_objects",
    "coffea_ad.scoring.trained_on.training_part", "coffea_ad.selection", "coffea_ad.skims.skim.WeightMode",
    "coffea_ad.skims.writing.feature_columns", "coffea_ad.skims.writing.feature_reads",
    "coffea_ad.skims.writing.write_chunk", "coffea_ad.skims.writing.write_manifest", "coffea_ad.splits.SPLIT",
    "coffea_ad.splits.event_uniform", "coffea_ad.splits.split_of", "coffea_ad.weights.generator_weight",
    "coffea_ad.weights.is_mc", "coffea_ad.weights.weight_sums",
]  # fmt: skip


def test_the_names_of_nn_are_frozen():
    nn = pytest.importorskip("coffea_ad.nn", reason="not installed: torch", exc_type=ImportError)
    assert sorted(nn.__all__) == NN
    for name in NN:
        assert hasattr(nn, name)


def test_what_copied_recipes_import_stays_where_it_is():
    imported = set()
    for path in [*RECIPES, *(CHECKOUT / "examples").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("coffea_ad"):
                imported |= {f"{node.module}.{a.name}" for a in node.names}
    assert sorted(imported) == IMPORTED


@pytest.mark.torch
@pytest.mark.parametrize("path", sorted((CHECKOUT / "benchmarks").rglob("*.py")), ids=str_of)
def test_what_benchmarks_import_is_still_there(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("coffea_ad"):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name) or importlib.util.find_spec(f"{node.module}.{name.name}")


VAGUE = {"found", "chosen", "own", "kept", "mine", "made", "given", "there"}


@pytest.mark.parametrize("path", SOURCES, ids=str_of)
def test_names_say_what_they_hold(path):
    """A participle names how a value came about, and not what it is."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
    assert not {name for name in names if name.strip("_").lower() in VAGUE}


@pytest.mark.parametrize("path", SOURCES, ids=str_of)
def test_modules_and_functions_fit_on_a_few_pages(path):
    """At most 400 lines a module, and 80 a function without its docstring; kernels are one loop, whatever its length."""
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            kernel = any(ast.unparse(d).split("(")[0].endswith("kernel") for d in node.decorator_list)
            length = node.end_lineno - body[0].lineno + 1 if body else 0
            assert length <= 80 or kernel, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", sorted((CHECKOUT / "training").glob("*.py")), ids=lambda p: p.stem)
def test_a_training_recipe_is_read_in_one_go(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 110
    # the training itself is the recipe's, and stands in it; a search has many, each by its method
    assert "nn.fit(" in text or "resonant.search(" in text


def test_a_listing_needs_neither_awkward_nor_onnxruntime():
    """What `coffea-ad ls` imports decides how long every word of the command line takes."""
    code = "import sys; from coffea_ad.cli import main; main(['ls']); print(*sys.modules, file=sys.stderr)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0
    assert "wnae" in out.stdout
    heavy = {
        "awkward",
        "coffea",
        "dask",
        "distributed",
        "numba",
        "onnxruntime",
        "uproot",
        "hist",
        "torch",
        "pyarrow",
        "pandas",
    }
    assert not heavy & set(out.stderr.split())


def test_recipe_folders_are_no_packages():
    for folder in ("processors", "training"):
        assert not (CHECKOUT / folder / "__init__.py").exists()
