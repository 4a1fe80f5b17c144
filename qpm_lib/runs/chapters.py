"""The chapters of a run: their order, what each needs and leaves, and where their notebooks are."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from qpm_lib.core import RunConfig


class Chapter(NamedTuple):
    """A notebook of the chain: the stage whose settings it depends on, the chapters before it,
    and the files it must leave.
    """

    name: str
    stage: str
    needs: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()


CHAPTERS = (
    Chapter("01_frozen_features", "features"),
    Chapter("02_dense_model", "dense", ("01_frozen_features",), ("dense/model.json", "dense/model.safetensors")),
    Chapter("03_quadratic_programme", "selection", ("02_dense_model",), ("selection.json",)),
    Chapter("04_fine_tuning", "model", ("03_quadratic_programme",), ("model/model.json", "model/model.safetensors")),
    Chapter("05_explanations", "model", ("04_fine_tuning",)),
    Chapter("06_evaluation", "model", ("04_fine_tuning",), ("metrics.json",)),
    Chapter(
        "07_saliency_explorer",
        "model",
        ("04_fine_tuning",),
        ("snapshot/snapshot.json", "snapshot/snapshot.safetensors"),
    ),
    Chapter(
        "08_attention_and_gradients",
        "model",
        ("04_fine_tuning", "07_saliency_explorer"),
        ("explanations/maps.json", "explanations/maps.safetensors"),
    ),
    Chapter(
        "09_inside_the_encoder",
        "model",
        ("04_fine_tuning", "07_saliency_explorer"),
        ("clusters/clusters.json", "clusters/clusters.safetensors"),
    ),
    Chapter(
        "10_importance_ranking",
        "ranking",
        ("04_fine_tuning", "08_attention_and_gradients"),
        ("explainers/model/model.json", "explainers/model/model.safetensors"),
    ),
    Chapter(
        "11_side_by_side",
        "ranking",
        ("09_inside_the_encoder", "10_importance_ranking"),
        ("comparison/comparison.json", "comparison/comparison.safetensors"),
    ),
    Chapter(
        "13_hierarchies_and_sets",
        "model",
        ("04_fine_tuning",),
        ("model/calibration.json", "model/calibration.safetensors", "hierarchical/model.safetensors"),
    ),
)
# Every chapter has this parameter: false leaves out the cells with this tag, which only teach.
LESSON = "lesson"
SPARSE = CHAPTERS[2]._replace(name="03_sparse_linear_model")


def chain(config: RunConfig) -> tuple[Chapter, ...]:
    """The chapters of a run. The baselines have their own chapter 3, and no chapter 13: their class layers are no
    hierarchies.
    """
    if config.selection.method == "qpm":
        return CHAPTERS
    names = {CHAPTERS[2].name: SPARSE.name}
    return tuple(
        c._replace(name=names.get(c.name, c.name), needs=tuple(names.get(n, n) for n in c.needs)) for c in CHAPTERS[:-1]
    )


def notebooks_folder() -> Path:
    """Where the chapters are: inside the installed package, or beside it in a checkout.

    Raises
    ------
    ValueError : when neither holds them.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if (folder / f"{CHAPTERS[0].name}.ipynb").exists():
            return folder
    raise ValueError(f"the chapters are missing in {package}: install the project again")


def find_chapter(text: str, chapters: Sequence[Chapter] = CHAPTERS) -> str:
    """Name of the chapter that starts with `text`, such as `03`.

    Raises
    ------
    ValueError : when there is none.
    """
    matches = [c.name for c in chapters if c.name == text or c.name.startswith(f"{text}_")]
    if len(matches) != 1:
        raise ValueError(f"unknown chapter {text!r}: choose from {', '.join(c.name[:2] for c in chapters)}")
    return matches[0]


def check_parameters(notebook: Path, parameters: Collection[str]) -> None:
    """Refuse parameters that a notebook does not declare; papermill would only warn. `lesson` is one of every chapter.

    Raises
    ------
    ValueError : naming the unknown parameter and the known ones.
    """
    from papermill import inspect_notebook

    known = [*inspect_notebook(str(notebook)), LESSON]
    for name in parameters:
        if name not in known:
            raise ValueError(f"{notebook.stem} has no parameter {name!r}: it has {', '.join(known)}")
