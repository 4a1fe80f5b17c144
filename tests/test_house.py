"""The house: rooms in the order of the method, arrows that run one way, faces that nobody goes round,
and files of one idea.
"""

import ast
import importlib
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    "core", "plotting", "data", "backbones", "features", "selection", "conformal", "model", "explain", "metrics",
    "runs", "comparison", "report", "explorer", "estimator", "sweep", "cli",
)  # fmt: skip
SOURCES = sorted((ROOT / "qpm_lib").rglob("*.py"))
OUTSIDE = [
    path for folder in ("benchmarks", "data_scripts", "notebooks") for path in sorted((ROOT / folder).glob("*.*"))
]


def imports(tree):
    """Module and name of everything that is imported from the package; the name is empty for a whole module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "qpm_lib":
            for alias in node.names:
                whole = node.module == "qpm_lib" and alias.name in ROOMS
                yield (f"qpm_lib.{alias.name}", "") if whole else (node.module, alias.name)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "qpm_lib")


def room_of(module):
    return module.split(".")[1] if "." in module else ""


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def code_of(path):
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        return "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return path.read_text(encoding="utf-8") if path.suffix == ".py" else ""


def faults(code, own):
    """What is wrong with the imports of a module: arrows against the list, ways round a face, private names."""
    room, found = room_of(own), []
    for module, name in imports(ast.parse(code)):
        there = room_of(module)
        if name.startswith("_") and name != "__version__":
            found.append(f"{own} imports the private {module}.{name}")
        if there in ("", room):
            continue
        if there not in ROOMS:
            found.append(f"{own} imports {module}, which is no room")
            continue
        if room and ROOMS.index(there) >= ROOMS.index(room):
            found.append(f"{own} imports {module}: {there} comes after {room}")
        if module.count(".") > 1:
            found.append(f"{own} goes round the face of {there}: {module}")
        elif name and name not in importlib.import_module(module).__all__:
            found.append(f"{own} imports {name}, which is not in the face of {there}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_arrows_run_one_way_and_through_the_faces(path):
    own = name_of(path)
    assert own == "qpm_lib" or room_of(own) in ROOMS
    assert faults(path.read_text(encoding="utf-8"), own) == []


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda p: p.name)
def test_chapters_and_scripts_use_the_faces(path):
    assert faults(code_of(path), path.stem) == []


@pytest.mark.parametrize(
    ("line", "own"),
    [
        ("from qpm_lib.runs import table", "qpm_lib.data.cub"),
        ("import qpm_lib.report", "qpm_lib.model.qpm"),
        ("from qpm_lib import cli", "qpm_lib.core.config"),
        ("from qpm_lib.core.artifacts import read_json", "qpm_lib.model.qpm"),
        ("from qpm_lib.features import save_nothing", "qpm_lib.model.qpm"),
        ("from qpm_lib.model.qpm import _hidden", "qpm_lib.model.card"),
        ("from qpm_lib.attic import old", "qpm_lib.cli.run"),
    ],
)
def test_the_rules_find_what_they_forbid(line, own):
    assert len(faults(line, own)) == 1


@pytest.mark.parametrize("room", ROOMS)
def test_no_circle_inside_a_room(room):
    modules = {name_of(p): p for p in SOURCES if room_of(name_of(p)) == room and p.name != "__init__.py"}
    graph = {
        name: {module for module, _ in imports(ast.parse(path.read_text(encoding="utf-8"))) if module in modules}
        for name, path in modules.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_one_face(room):
    face = importlib.import_module(f"qpm_lib.{room}")
    assert face.__doc__
    assert len(set(face.__all__)) == len(face.__all__) > 0
    assert all(hasattr(face, name) for name in face.__all__)
    assert not any(name.startswith("_") for name in face.__all__)


def test_tests_stand_beside_the_rooms():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {*ROOMS, "faults"}  # failures of the machine are nobody's own


def test_one_process_executes_the_tests_of_a_group(request):
    """What they share, the chain above all, is made once; a scheduler that forgets the groups says nothing."""
    if not request.config.getoption("loadgroup", False):  # set by pytest-xdist in its processes
        pytest.skip("one process executes everything, or groups are not asked for")
    assert request.node.nodeid.endswith("@test_house")


def code_lines(node):
    """Lines of a function without its documentation."""
    documented = ast.get_docstring(node) is not None
    return node.end_lineno - node.lineno + 1 - (node.body[0].end_lineno - node.body[0].lineno + 1 if documented else 0)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_is_one_idea(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno < 150, node.name
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert code_lines(node) <= 50, node.name


def test_every_name_is_known():
    """Names of axes in shapes, `Float[Tensor, "batch"]`, look like unknown names to ruff; all others are real."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--output-format", "json", "."]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout)
    for fault in found:
        name = fault["message"].split("`")[1]
        line = Path(fault["filename"]).read_text(encoding="utf-8").splitlines()[fault["location"]["row"] - 1]
        assert re.search(rf', "[^"]*\b{name}\b[^"]*"\]', line), f"{fault['filename']}: {name}"
