"""Models that are shared: a Hub in a folder takes the place of the one on the network."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.utils import filter_repo_objects

from qpm_lib import DinoQPM
from qpm_lib.cli import main
from qpm_lib.model.hub import is_repository, model_folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder that repositories are copied to and from, with the same filters."""

    class Hub:
        def __init__(self, token=None):
            self.token = token

        def create_repo(self, name, *, private, exist_ok):
            (tmp_path / "hub" / name).mkdir(parents=True, exist_ok=exist_ok)

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path / "hub" / repo_id, dirs_exist_ok=True)
            return SimpleNamespace(commit_url=f"hub/{repo_id}/commit/{commit_message}")

    def download(name, *, revision, token, allow_patterns):
        there, here = tmp_path / "hub" / name, tmp_path / "cached" / name
        files = [p.relative_to(there).as_posix() for p in there.rglob("*") if p.is_file()]
        for file in filter_repo_objects(files, allow_patterns=allow_patterns):
            (here / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there / file, here / file)
        return str(here)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


@pytest.mark.chain
def test_a_model_is_shared_and_used_by_its_name(smoke_copy, hub, capsys):
    run, model = smoke_copy, DinoQPM.from_pretrained(smoke_copy)
    config = json.loads((run / "model" / "config.json").read_text())
    config["data"]["root"], config["backbone"]["weights"] = str(run / "pictures"), str(run / "weights.pth")
    (run / "model" / "config.json").write_text(json.dumps(config))
    assert DinoQPM.from_pretrained(run / "model").class_names == model.class_names
    assert model.push_to_hub("someone/birds", license="cc-by-4.0", message="first") == "hub/someone/birds/commit/first"
    kinds = {path.suffix for path in hub.rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors", ".md"}
    assert str(run) not in "".join(
        path.read_text() for path in hub.rglob("*.[jm][sd]*") if path.suffix != ".safetensors"
    )
    (hub / "someone" / "birds" / "code.py").write_text("raise SystemExit")
    shared = DinoQPM.from_pretrained("someone/birds")
    assert not list(Path("cached").rglob("*.py"))
    assert all(
        torch.equal(a, b) for a, b in zip(shared.state_dict().values(), model.state_dict().values(), strict=True)
    )
    picture = next((run / "snapshot").rglob("*.jpg"))
    assert main(["predict", "someone/birds", str(picture), "--json", "answers.json", "--confidence", "0.5"]) == 0
    assert main(["predict", str(run), str(picture), "--json", "local.json", "--confidence", "0.5"]) == 0
    assert (
        json.loads(Path("answers.json").read_text())["pictures"]
        == json.loads(Path("local.json").read_text())["pictures"]
    )
    capsys.readouterr()


@pytest.mark.chain
def test_the_card_has_metadata_that_the_hub_reads(smoke_copy, hub):
    model = DinoQPM.load(smoke_copy / "model")
    model.push_to_hub("someone/birds")
    card = ModelCard((hub / "someone" / "birds" / "README.md").read_text())
    about = card.data
    assert (about.license, about.pipeline_tag, about.library_name) == ("mit", "image-classification", "qpm_lib")
    assert about.metrics == ["accuracy"]
    assert "interpretability" in about.tags
    [result] = about.eval_results
    said = json.loads((smoke_copy / "result.json").read_text())["04_fine_tuning"]["figures"]["accuracy"]
    assert result.metric_value == pytest.approx(said, abs=6e-4)
    assert result.dataset_name == about.datasets[0]
    assert "examples/" not in card.text
    assert card.text.count("\n| feature ") == len(model.feature_names) + 1
    assert all(line.count(" | ") == 1 for line in card.text.splitlines() if line.startswith("| feature "))
    assert 'DinoQPM.from_pretrained("someone/birds")' in card.text
    model.push_to_hub("someone/birds", license="other")
    assert ModelCard((hub / "someone" / "birds" / "README.md").read_text()).data.license == "other"


@pytest.mark.chain
def test_what_cannot_be_shared_or_had_is_one_clear_error(smoke_copy, hub, capsys, monkeypatch):
    model = DinoQPM.load(smoke_copy / "model")
    for name in ("birds", "a/b/c", "some one/birds", "../birds"):
        with pytest.raises(ValueError, match="must look like owner/name"):
            model.push_to_hub(name)
    with pytest.raises(ValueError, match=r"license .='mine'. must be one of mit"):
        model.push_to_hub("someone/birds", license="mine")
    assert not [path for path in hub.rglob("*") if path.is_file()]
    (smoke_copy / "model" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config.json is missing.*run chapter 4"):
        model.push_to_hub("someone/birds")
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="there is no folder someone/nothing, and the Hub could not be reached"):
        DinoQPM.from_pretrained("someone/nothing")
    picture = next((smoke_copy / "snapshot").rglob("*.jpg"))
    assert main(["predict", "someone/nothing", str(picture)]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_folders_come_before_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_repository("owner/name")
    for name in ("name", "a/b/c", "/owner/name", "./owner/name/", "owner/na me"):
        assert is_repository(name) is (name == "./owner/name/"), name
    (tmp_path / "owner" / "name" / "model").mkdir(parents=True)
    (tmp_path / "owner" / "name" / "model" / "model.json").write_text("{}")
    assert not is_repository("owner/name")
    assert model_folder("owner/name") == Path("owner/name/model")
