"""The project around the code: two ways to install the same thing, clean sources."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


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
    for target in ("tutorial", "test", "lab"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
        assert f"make {target}" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", ["README.md", "notebooks/gallery/README.md"])
def test_links_and_pictures_are_there(page):
    targets = re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text())
    assert len(targets) > 4
    for target in targets:
        assert target.startswith("https://") or (ROOT / page).parent.joinpath(target).exists(), target


def test_the_gallery_is_small():
    assert sum(path.stat().st_size for path in (ROOT / "notebooks" / "gallery").iterdir()) < 800_000


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
    slow = ["timm", "cvxpy", "sklearn", "torchvision", "matplotlib.pyplot", "papermill", "scipy.stats", "scipy.io"]
    code = f"import sys, qpm_lib; print(sorted(set({slow}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    assert result.stderr == ""


def test_public_names_exist():
    import qpm_lib

    assert all(hasattr(qpm_lib, name) for name in qpm_lib.__all__)
    assert qpm_lib.__version__ == PROJECT["version"]
