"""Finished models on the Hugging Face Hub: what travels, and the metadata of the card.

Weights as safetensors and everything else as JSON; the card is text. Pictures stay at home: those of the card are
training pictures, which are somebody's.
"""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qpm_lib.backbones import BACKBONES
from qpm_lib.core import read_json
from qpm_lib.model.card_text import without_pictures
from qpm_lib.model.manifest import ModelManifest, read_manifest

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

FILES = ("model.json", "model.safetensors", "selection.json", "config.json")
OPTIONAL = ("calibration.json", "calibration.safetensors", "README.md")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LICENCES = ("mit", "apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0", "openrail", "other")
_ACCURACY = re.compile(r"^\| test accuracy \| ([\d.]+) % \|$", re.MULTILINE)


def is_repository(name: str | Path) -> bool:
    """Whether a name means a repository of the Hub: `owner/name`, where no such folder exists."""
    return bool(_REPOSITORY.fullmatch(Path(name).as_posix())) and not Path(name).exists()


def fetch_model(name: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """Bring a model of the Hub into its cache on this machine, and nothing but safetensors, JSON and the card.

    Parameters
    ----------
    name : `owner/name`. revision : branch, tag or commit. token : for private repositories; by default that of
        `hf auth login`.

    Raises
    ------
    ValueError : when there is no such repository, or it cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        files = [*FILES, *OPTIONAL]
        return Path(snapshot_download(name, revision=revision, token=token, allow_patterns=files))
    except RepositoryNotFoundError as error:
        words = f"there is no folder {name}, and no model {name} on the Hub that may be read: check the name; private "
        raise ValueError(words + "models need `hf auth login`") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        words = f"there is no folder {name}, and the Hub could not be reached for a model of that name"
        raise ValueError(f"{words} ({type(error).__name__}): give a folder, or try again with a network") from error


def model_folder(name: str | Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """The model folder that a name means: itself, `model/` of a run folder, or a model of the Hub (`fetch_model`).

    Raises
    ------
    ValueError : for a model of the Hub that cannot be had.
    """
    if is_repository(name):
        return fetch_model(Path(name).as_posix(), revision=revision, token=token)
    path = Path(name)
    return path / "model" if not (path / "model.json").exists() and (path / "model" / "model.json").exists() else path


def push_model(
    folder: Path,
    name: str,
    *,
    license: str | None = None,
    private: bool = False,
    token: str | None = None,
    message: str = "QPM",
) -> str:
    """Upload a model folder; its address.

    Parameters
    ----------
    name : `owner/name`; made if it does not exist. license : identifier of the Hub, such as `mit`; by default that of
        the backbone, without which the model says nothing.

    Raises
    ------
    ValueError : for another name, a folder without a finished model, or a Hub that refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if not _REPOSITORY.fullmatch(name):
        raise ValueError(f"{name!r} must look like owner/name")
    manifest = read_manifest(folder)
    missing = [file for file in FILES if not (folder / file).exists()]
    if missing:
        raise ValueError(f"{folder} is no finished model ({missing[0]} is missing): run chapter 4 first")
    with tempfile.TemporaryDirectory() as place:
        _prepare(folder, Path(place), manifest, name, license)
        try:
            api = HfApi(token=token)
            api.create_repo(name, private=private, exist_ok=True)
            done = api.upload_folder(repo_id=name, folder_path=place, commit_message=message)
        except (HfHubHTTPError, OSError) as error:
            raise ValueError(f"{name} could not be uploaded ({error}): `hf auth login`, and check the name") from error
    return str(done.commit_url)


def _prepare(folder: Path, place: Path, manifest: ModelManifest, name: str, licence: str | None) -> None:
    """What is uploaded, in a folder of its own: without pictures, and without places of this machine."""
    for file in (*FILES, *OPTIONAL):
        if (folder / file).exists():
            shutil.copyfile(folder / file, place / file)
    config = read_json(place / "config.json")
    for part, name_of in (("data", "root"), ("backbone", "weights")):
        config[part][name_of] = Path(config[part][name_of]).name
    (place / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    card = place / "README.md"
    text = card.read_text("utf-8") if card.exists() else f"# {name}\n"
    text = without_pictures(text).replace(f"qpm predict {folder.name} ", f"qpm predict {name} ")
    text = text.replace(f'DinoQPM.load("{folder.name}")', f'DinoQPM.from_pretrained("{name}")')
    about = card_metadata(manifest, config, name, card=text, licence=licence)
    card.write_text(f"---\n{about.to_yaml()}\n---\n\n{text}", encoding="utf-8")


def card_metadata(
    manifest: ModelManifest, config: dict[str, Any], name: str, *, card: str = "", licence: str | None = None
) -> "ModelCardData":
    """What the Hub reads of a card: licence, data, metrics with the accuracy that the card states, backbone and tags.

    Raises
    ------
    ValueError : for a licence that is not one of the Hub's short names that are known here.
    """
    from huggingface_hub import EvalResult, ModelCardData

    backbone, data = manifest.backbone["backbone"], config["data"]
    if licence is not None and licence not in _LICENCES:
        raise ValueError(f"license (={licence!r}) must be one of {', '.join(_LICENCES)}")
    known = BACKBONES[backbone].licence
    named = licence or (known.lower() if known.lower() in _LICENCES else "other")
    more = {"license_name": known} if named == "other" and licence is None else {}
    source = re.sub(r"[^\w.-]+", "-", data["root"] or data["kind"]).strip("-") or data["kind"]
    results = []
    if accuracy := _ACCURACY.search(card):
        test = {"dataset_type": source, "dataset_name": source, "dataset_split": "test"}
        value = round(float(accuracy[1]) / 100, 4)
        results = [EvalResult("image-classification", **test, metric_type="accuracy", metric_value=value)]
    if architecture := BACKBONES[backbone].architecture:
        more["base_model"] = f"timm/{architecture}"
    return ModelCardData(
        license=named,
        library_name="qpm_lib",
        pipeline_tag="image-classification",
        tags=["interpretability", "explainable-ai", "vision-transformer", config["selection"]["method"], backbone],
        datasets=[source],
        metrics=["accuracy"],
        model_name=name.partition("/")[2],
        eval_results=results or None,
        **more,
    )
