"""Imports point downward, and what is not needed is not loaded: DESIGN.md, section 2."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "medseg"
# From the ground up; a part may import from the rows below its own, never from its own.
LAYERS = """
arrays
errors progress extent runner wording logits distance
registry resources files memory picture
overrides settings system tables volume
labels geometry crf sample augment losses
io metrics models inference engine
preprocess postprocess
data bundle
planning predictor evaluation
transfer cohort locating
config
training
exporting judging
api
cli
__main__
"""
ROW = {name: row for row, names in enumerate(LAYERS.split("\n")) for name in names.split()}
# Packages whose files are components: one never imports another, and `_x` is no component.
COMPONENTS = ("io", "models", "losses", "metrics")
HEAVY = {"torch", "monai", "lightning_fabric", "SimpleITK", "matplotlib", "pydicom", "nibabel"}
HEAVY |= {"pydantic", "scipy", "skimage", "PIL"}
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(module: str) -> Iterator[str]:
    """Names of medseg's modules that a module imports anywhere, in functions and for type checkers too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "medseg")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide their layer"
            if node.module and node.module.partition(".")[0] == "medseg":
                whole = (f"{node.module}.{alias.name}" for alias in node.names)
                yield from (name if name in MODULES else node.module for name in whole)


def part_of(module: str) -> str:
    return module.split(".")[1]


def test_every_part_has_a_layer_and_every_layer_its_parts() -> None:
    assert {part_of(module) for module in MODULES if module != "medseg"} == set(ROW)


@pytest.mark.parametrize("module", [module for module in MODULES if module != "medseg"])
def test_imports_point_downward(module: str) -> None:
    for other in imported(module):
        assert other != "medseg", f"{module} imports the public names, which lie above it"
        if part_of(other) != part_of(module):
            assert ROW[part_of(other)] < ROW[part_of(module)], f"{module} imports {other}"


@pytest.mark.parametrize(
    "module", [m for m in MODULES if m.count(".") == 2 and part_of(m) in COMPONENTS and "._" not in m]
)
def test_components_never_import_each_other(module: str) -> None:
    own = [other for other in imported(module) if part_of(other) == part_of(module) and other != module]
    assert all("._" in other for other in own), own


def test_there_are_no_cycles() -> None:
    graph = {module: {o for o in imported(module) if o != module} for module in MODULES if module != "medseg"}
    while free := [module for module, others in graph.items() if not others & graph.keys()]:
        for module in free:
            del graph[module]
    assert not graph, f"among {sorted(graph)}"


def loaded_by(code: str) -> set[str]:
    """Top-level modules that are loaded once some code has run in a new interpreter."""
    show = f"{code}\nimport sys; print('LOADED', *{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_importing_medseg_loads_nothing_heavy() -> None:
    assert not loaded_by("import medseg; dir(medseg); medseg.MedsegError") & (HEAVY | {"numpy", "yaml", "typer"})


def test_help_loads_neither_torch_nor_any_reader() -> None:
    help_ = "import sys; sys.argv = ['medseg', '--help']\nimport medseg.cli\ntry: medseg.cli.main()\nexcept SystemExit: pass"
    assert not loaded_by(help_) & (HEAVY - {"pydantic"})


def test_listing_and_checking_names_loads_no_torch() -> None:
    assert "torch" not in loaded_by("from medseg import losses, models; models.names(); losses.names()")


def test_reading_a_nifti_loads_neither_torch_nor_other_readers(tmp_path: Path) -> None:
    scan = next((PACKAGE.parent / "sample_data/mr/imagesTr").glob("*.nii.gz"))
    assert not loaded_by(f"import medseg; medseg.read({str(scan)!r})") & {"torch", "SimpleITK", "matplotlib", "monai"}


def test_predicting_loads_nothing_that_serves_training_alone() -> None:
    loaded = loaded_by("import medseg; medseg.predict, medseg.Predictor")
    assert not loaded & {"lightning_fabric", "SimpleITK", "matplotlib", "monai"}


def test_public_names_survive_the_import_of_every_submodule() -> None:
    code = f"""
import importlib, types
import medseg
for name in {[m for m in MODULES if not m.endswith("__main__")]!r}:
    importlib.import_module(name)
for name in medseg.__all__:
    value = getattr(medseg, name)
    assert not isinstance(value, types.ModuleType), f'medseg.{{name}} is a module: a submodule shadows it'
    assert name == '__version__' or callable(value), name
"""
    loaded_by(code)


@pytest.mark.parametrize("module", MODULES)
def test_no_pickle_and_no_code_from_files(module: str) -> None:
    """Weights are safetensors, arrays are plain: nothing that medseg reads can run."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {node.module or ""} if isinstance(node, ast.ImportFrom) else {alias.name for alias in node.names}
            assert not {name.partition(".")[0] for name in names} & PICKLES
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("torch.load", "torch.save", "eval", "exec", "yaml.load", "torch.hub.load"), called
            assert not any(key.arg == "allow_pickle" for key in node.keywords)
