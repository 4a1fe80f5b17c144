"""The commands of README.md are executed as they stand, on a small run; comparisons with one picture and method. Those
that need more than a test has (weights, a network, a data set, machines, a chain of their own) are read only.
"""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import qpm_lib
from qpm_lib.cli import main
from qpm_lib.cli.command import parser
from qpm_lib.cli.output import pairs
from qpm_lib.core.profiles import load_profile

pytestmark = pytest.mark.chain
README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
LINES = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).splitlines()
COMMANDS = dict.fromkeys(line.partition(" #")[0].strip() for line in LINES if line.startswith("qpm "))
ELSEWHERE = ("dinov2", "OWNER/NAME", "data.root=", "tcp://")  # weights, a network, a data set, machines
# All methods and measures take hours.
SMALL = {"compare": ["--pictures", "1", "--models", "qpm", "--methods", "random", "--measures", "form"]}


def executed(command):
    """Not the chain and sweeps, which have tests of their own."""
    chain = re.match(r"qpm (run|sweep) ", command) and not re.search(r"--help|--dry-run", command)
    return not chain and not any(mark in command for mark in ELSEWHERE)


@pytest.mark.parametrize("command", [*filter(executed, COMMANDS)])
def test_a_command_of_the_readme(command, smoke_copy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pictures = sorted((smoke_copy / "snapshot" / "pictures").glob("*.jpg"))[:3]
    for folder in ("my_pictures", "FOLDER"):
        (tmp_path / folder).mkdir()
        for i, path in enumerate(pictures):
            shutil.copy(path, tmp_path / folder / f"{i}{path.suffix}")
    (tmp_path / "points.csv").write_text("seed,selection.method\n0,qpm\n1,sldd\n", encoding="utf-8")
    stands = {"runs/toy": str(smoke_copy), "runs/sldd": str(smoke_copy), "PICTURE": str(pictures[0]), "toy": "smoke"}
    words = [stands.get(word.removesuffix("..."), word) for word in shlex.split(command)[1:]]
    try:
        code = main(words + SMALL.get(words[0], []))
    except SystemExit as end:  # of --help
        code = end.code
    assert code == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("command", [c for c in COMMANDS if not executed(c)])
def test_a_command_that_needs_more_is_understood(command):
    """It is not executed: its options, and the settings that it changes, exist."""
    arguments = vars(parser().parse_args(shlex.split(command)[1:]))
    several = [text.partition(",")[0] for text in arguments.get("grid") or []]
    changed = pairs([*(arguments.get("settings") or []), *several], "--set")
    assert load_profile(arguments.get("profile", "toy"), **changed).seed == 0


def test_the_python_of_the_readme(smoke_copy, tmp_path, monkeypatch):
    """All blocks, one after the other; names that a reader has already are given."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(next((smoke_copy / "snapshot" / "pictures").glob("*.jpg")), tmp_path / "bird.png")
    run = qpm_lib.open_run(smoke_copy)
    dataset, backbone = run.dataset(), run.backbone()
    store = run.features(dataset, backbone)
    images = [dataset.image(int(row)) for row in dataset.test_rows[:2]]
    given = {
        "tokens": store.fetch(torch.arange(60)).patches.float(),
        "labels": dataset.labels[:60],
        "features": np.random.default_rng(0).random((60, 100)),
        "backbone": backbone,
        "images": images,
        "others": images,
        "five_pictures": images,
        "targets": torch.tensor([0, 1]),
        "dataset": dataset,
        "rows": store.rows(train=True),
    }
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        code = re.sub(r'"(\.\./)?runs/toy', f'"{smoke_copy.as_posix()}', block)
        exec(code.replace('"explainer", start', '"explainer", run.config.ranking, start'), given)
    explanation = given["explanation"]
    np.testing.assert_allclose(explanation.maps.sum((2, 3)), explanation.contributions, rtol=1e-4)
    assert given["chosen"].gap == 0
    assert given["maps"].shape == (2, store.grid, store.grid)
