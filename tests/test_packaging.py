"""The project around the code: two ways to install the same thing, clean sources."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from functools import partial
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, SETUPTOOLS = SETTINGS["project"], SETTINGS["tool"]["setuptools"]


def test_conda_installs_the_same_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    names = [re.split(r"[<>=]", c)[0] for c in conda]
    assert names == ["python", "pip"]
    assert conda[0] == f"python{PROJECT['requires-python']}".replace(" ", "")
    assert pip == {"pip": ["-e .[test]"]}


def test_the_makefile_installs_that_project():
    makefile = (ROOT / "Makefile").read_text()
    assert '-e ".[test]"' in makefile
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    for target in ("tutorial", "test", "lab", "faults", "gpu"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
        assert f"make {target}" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "page", ["README.md", "notebooks/README.md", "benchmarks/README.md", "notebooks/gallery/README.md"]
)
def test_links_and_pictures_are_there(page):
    targets = re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text())
    assert targets
    for target in targets:
        assert target.startswith("https://") or (ROOT / page).parent.joinpath(target).exists(), target


def test_the_gallery_is_small():
    assert sum(path.stat().st_size for path in (ROOT / "notebooks" / "gallery").iterdir()) < 800_000


def test_every_folder_of_the_package_is_installed():
    packages = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "qpm_lib").rglob("__init__.py")}
    assert set(SETUPTOOLS["packages"]) == packages | {"qpm_lib.notebooks"}
    patterns = {folder: kinds for folder, kinds in SETUPTOOLS["package-data"].items() if folder != "qpm_lib.notebooks"}
    shipped = {
        p for folder, kinds in patterns.items() for kind in kinds for p in (ROOT / folder.replace(".", "/")).glob(kind)
    }
    other = {p for p in (ROOT / "qpm_lib").rglob("*.*") if p.suffix not in (".py", ".pyc")}
    assert shipped == other


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A fresh environment with the wheel in it and no way to the checkout; the dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("qpm_lib", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-index"]
    run = partial(subprocess.run, check=True, capture_output=True, text=True, cwd=folder)
    run([*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", "wheels", "."])
    run([sys.executable, "-m", "venv", "--without-pip", "environment"])
    python = folder / "environment" / "bin" / "python"
    run([*pip, "--python", str(python), "install", *offline, str(next((folder / "wheels").glob("*.whl")))])
    site = Path(run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).stdout.strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files are not read
    for name in ("qpm_lib", "notebooks"):
        shutil.rmtree(folder / name)
    return folder / "environment" / "bin"


@pytest.mark.chain
def test_the_wheel_runs_a_chapter_in_an_empty_folder(installed, tmp_path):
    home = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "JUPYTER", "VIRTUAL"))}
    home["JUPYTER_PATH"] = str(Path(sys.prefix) / "share" / "jupyter")  # data files of the dependencies
    run = partial(subprocess.run, cwd=tmp_path, env=home, capture_output=True, text=True, check=False)
    where = run([str(installed / "python"), "-c", "import qpm_lib; print(qpm_lib.__file__)"]).stdout
    assert Path(where.strip()).is_relative_to(installed.parent)
    done = run([str(installed / "qpm"), "run", "--profile", "smoke", "--only", "01"])
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "runs" / "smoke" / "result.json").read_text())
    assert result["01_frozen_features"]["status"] == "done"
    assert (tmp_path / "runs" / "smoke" / "report" / "01_frozen_features.html").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"runs"}
    assert (tmp_path / "runs" / "smoke" / "report" / "style.css").exists()


def test_fixed_libraries_are_dependencies():
    names = {re.split(r"[<>=]", d)[0] for d in PROJECT["dependencies"]}
    assert {
        "torch",
        "torchvision",
        "jupyterlab",
        "ipywidgets",
        "matplotlib",
        "cvxpy",
        "pyscipopt",
        "papermill",
    } <= names


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_ruff(arguments):
    result = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_importing_is_quiet_and_light():
    slow = ["timm", "cvxpy", "sklearn", "torchvision", "matplotlib", "papermill", "scipy", "pooch", "requests"]
    code = f"import sys, qpm_lib; print(sorted(set({slow}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    assert result.stderr == ""


def test_public_names_exist():
    import qpm_lib

    assert all(hasattr(qpm_lib, name) for name in qpm_lib.__all__)
    assert qpm_lib.__version__ == PROJECT["version"]
