"""Pages of the report about the model as a whole: what each feature answers to, and what each class consists of."""

import html
import shutil
from pathlib import Path

import numpy as np

from qpm_lib.model import DinoQPM
from qpm_lib.plotting import feature_colours

PAGES = {"features": "Features", "classes": "Classes"}


def _chip(f: int, model: DinoQPM, colours: list[str], weight: float) -> str:
    name = html.escape(model.feature_names[f])
    against = " (against)" if weight < 0 else ""
    return f'<a class="chip" style="border-color:{colours[f]}" href="features.html#f{f}">{name}{against}</a>'


def features_page(model: DinoQPM) -> str:
    """Every feature with its examples and the classes that use it."""
    weight = model.class_weight.cpu().numpy()
    parts = [
        "<h1>Features</h1><p>Each strip shows the training pictures on which a feature is strongest, with its map; the classes below it have "
        "this feature. A name can be given in the explorer (chapter 7).</p>"
    ]
    for f, name in enumerate(model.feature_names):
        users = [(c, model.class_names[c]) for c in np.flatnonzero(weight[:, f]).tolist()]
        links = ", ".join(f'<a href="classes.html#c{c}">{html.escape(text)}</a>' for c, text in users)
        title = html.escape(name)
        picture = f'<img src="examples/feature_{f:02d}.jpg" alt="{title}: its map over the training pictures on which it is strongest">'
        parts.append(f'<section id="f{f}"><h2>{title}</h2>{picture}<p>{len(users)} classes: {links or "none"}.</p></section>')
    return "".join(parts)


def classes_page(model: DinoQPM) -> str:
    """Every class with its features and the classes that differ from it least."""
    weight = model.class_weight.cpu().numpy()
    used, colours = weight != 0, feature_colours(weight)
    shared = used.astype(int) @ used.T.astype(int)
    parts = [
        "<h1>Classes</h1><p>The features of each class, and the classes that have most of them in common: there, one feature decides.</p>"
    ]
    for c, name in enumerate(model.class_names):
        chips = " ".join(_chip(f, model, colours, float(weight[c, f])) for f in np.flatnonzero(used[c]).tolist())
        others = [d for d in np.argsort(-shared[c], kind="stable").tolist() if d != c and shared[c, d] > 0][:3]
        near = "; ".join(
            f'<a href="classes.html#c{d}">{html.escape(model.class_names[d])}</a> has {shared[c, d]} of them, without '
            + (", ".join(html.escape(model.feature_names[f]) for f in np.flatnonzero(used[c] & ~used[d])) or "none")
            for d in others
        )
        rest = f"<p>Nearest: {near}.</p>" if near else ""
        parts.append(f'<section id="c{c}"><h2>{html.escape(name)}</h2><p>{chips or "no features"}</p>{rest}</section>')
    return "".join(parts)


def model_pages(model_folder: Path, report: Path) -> dict[str, str]:
    """Bodies of the two pages by name, their pictures copied into the report; empty while there is no described model."""
    if not (model_folder / "README.md").exists():
        return {}
    try:
        model = DinoQPM.load(model_folder)
    except ValueError:  # from another version, or damaged: the chapter that makes it says so
        return {}
    shutil.copytree(model_folder / "examples", report / "examples", dirs_exist_ok=True)
    return {"features": features_page(model), "classes": classes_page(model)}
