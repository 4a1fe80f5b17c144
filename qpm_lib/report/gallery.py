"""A gallery of a run: a few small pictures and a page that shows them, for a README or a talk."""

import io
import logging
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageColor

from qpm_lib import plotting
from qpm_lib.core import write_atomically
from qpm_lib.data import read_image
from qpm_lib.model import correct_rows, outputs_of
from qpm_lib.runs import RunFolder

_WIDTH = 1000
log = logging.getLogger(__name__)


class Exhibit(NamedTuple):
    """A picture of the gallery: file name, heading, and what to see in it."""

    file: str
    title: str
    words: str


def _save(image: Image.Image, path: Path) -> None:
    """Write a figure small enough for a README: at most 1000 pixels wide, as a JPEG that keeps the colours apart."""
    if image.width > _WIDTH:
        image = image.resize((_WIDTH, round(image.height * _WIDTH / image.width)), Image.Resampling.LANCZOS)
    write_atomically(path, lambda temporary: image.save(temporary, "JPEG", quality=80, subsampling=0))


def _screenshot(page: Path, row: int, to: Path) -> bool:
    """Take a picture of the report's explorer at one of its pictures; False where no Chromium is installed,
    or it fails.
    """
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if browser is None:
        return False
    options = [
        "--headless",
        "--no-sandbox",
        "--hide-scrollbars",
        "--window-size=1100,1000",
        "--virtual-time-budget=3000",
    ]
    command = [browser, *options, f"--screenshot={to}", f"{page.resolve().as_uri()}#{row}"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=120)  # noqa: S603 - a browser found on the path, our own page
    except (subprocess.SubprocessError, OSError) as error:
        log.warning("%s made no picture of the explorer (%s): it is left out", browser, error)
        return False
    return to.exists()


def _of_the_model(run: RunFolder, out: Path) -> Iterator[Exhibit]:
    """Figures of chapters 5, 8 and 9, and what four features answer to."""
    for name, title, words in (
        (
            "05_explanation",
            "One prediction",
            "The picture, the features of the predicted class, and what each adds to the score.",
        ),
        (
            "05_class_comparison",
            "Two classes that share most features",
            "The features that only one of them has, and those they share.",
        ),
        ("05_class_features", "The whole model", "Which class uses which feature; neighbours share features."),
        (
            "08_methods",
            "Explanation methods side by side",
            "One picture and one class: where several methods see evidence for it (orange) and against it (blue).",
        ),
        (
            "09_segmentations",
            "What the encoder groups together",
            "Pictures beside their segmentation into clusters of activations, which mean the same in all of them.",
        ),
        (
            "09_suspect",
            "A watermark, found before any classifier is trained",
            "Patches of the cluster that one class alone shows: a colour chart that was laid into its pictures.",
        ),
    ):
        if (source := run.path / "figures" / f"{name}.png").exists():
            _save(read_image(source), out / f"{name[3:]}.jpg")
            yield Exhibit(f"{name[3:]}.jpg", title, words)
    model = run.load_model()
    most = np.argsort(-(model.class_weight != 0).sum(0).cpu().numpy(), kind="stable")[:4].tolist()
    strips = [run.path / "model" / "examples" / f"feature_{f:02d}.jpg" for f in most]
    if all(strip.exists() for strip in strips):
        stacked = Image.fromarray(np.concatenate([np.asarray(read_image(strip)) for strip in strips]))
        _save(stacked, out / "features.jpg")
        listed = ", ".join(model.feature_names[f] for f in most)
        yield Exhibit(
            "features.jpg",
            "What features answer to",
            f"The training pictures on which four features are strongest: {listed}.",
        )


def _chain(run: RunFolder, out: Path) -> Iterator[Exhibit]:
    """One picture on its way through chapters 1 to 5: the same as in the figures of chapter 5."""
    dataset, backbone = run.dataset(), run.backbone()
    store = run.features(dataset, backbone)
    dense, model = run.load_dense(), run.load_model().with_backbone(backbone)
    row = int(correct_rows(model, store)[0])
    batch, picture = torch.tensor([row]), np.asarray(backbone.square(dataset.image(row), 256)) / 255
    many, given = outputs_of(dense, store, batch), model.explain([dataset.image(row)])
    top = np.argsort(-many.vector[0].cpu().numpy(), kind="stable")[:9]
    weight, used = model.class_weight.cpu().numpy(), given.features[0].cpu().numpy()
    colours, (classes, features) = plotting.feature_colours(weight), plotting.class_order(weight)
    heats = np.abs(given.maps[0].cpu().numpy())
    table = np.full((*weight.shape, 3), 0.95)
    table[int(given.target[0])] = 0.75
    for f, colour in enumerate(colours):
        table[weight[:, f] != 0, f] = np.array(ImageColor.getrgb(colour)) / 255
    sheets = [
        ("picture", [picture]),
        ("1 tokens", [*plotting.token_colours(store.fetch(batch).patches.float().cpu().numpy())]),
        (
            "2 features",
            [plotting.overlay(picture, np.abs(many.maps[0, f].cpu().numpy()), plotting.PALETTE[3]) for f in top],
        ),
        ("3 selection", [table[classes][:, features]]),
        ("4 classifier", [plotting.overlay(picture, h, colours[f]) for h, f in zip(heats, used, strict=True)]),
    ]
    figure = plotting.new_figure((13, 2.4), layout="constrained")
    axes = figure.subplots(1, 6, width_ratios=(1, 1, 1, 1, 1, 1.3))
    for ax, (title, sheet) in zip(axes, sheets, strict=False):
        plotting.show_images(ax, sheet, columns=round(len(sheet) ** 0.5))
        ax.set_title(title, fontsize=11, weight="bold")
    plotting.contribution_bars(axes[-1], given.contributions[0].cpu().numpy(), used, colours)
    axes[-1].set_title("5 reasons", fontsize=11, weight="bold")
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    _save(Image.open(drawn).convert("RGB"), out / "chain.jpg")
    words = (
        "The picture; its tokens, their main directions as colours; the nine strongest of many features; which class "
        "(row) uses which feature (column), that of the picture on grey; the features of its class, each in its "
        "colour; what each adds to the score."
    )
    yield Exhibit("chain.jpg", "One picture through the chain", words)


def _of_the_report(run: RunFolder, out: Path) -> Iterator[Exhibit]:
    """A class, the surest mistake, and the explorer."""
    snapshot, report, names = run.load_snapshot(), run.path / "report", run.load_model().class_names
    labels, predicted = snapshot.labels[snapshot.kept], snapshot.predicted[snapshot.kept]
    right, wrong = np.flatnonzero(labels == predicted), np.flatnonzero(labels != predicted)
    strips = {c: path for c in labels[right].tolist() if (path := report / "strips" / f"class_{c:03d}.jpg").exists()}
    if strips:
        c = sorted(strips)[len(strips) // 2]
        _save(read_image(strips[c]), out / "class.jpg")
        yield Exhibit(
            "class.jpg", f"One class: {names[c]}", "A typical picture, all its features together, then one by one."
        )
    if len(wrong):
        _save(read_image(report / "strips" / f"mistake_{snapshot.rows[wrong[0]]}.jpg"), out / "mistake.jpg")
        said = (
            f"{names[labels[wrong[0]]]} was taken for {names[predicted[wrong[0]]]}: the picture, "
            "where features of the answer alone fire, "
        )
        yield Exhibit("mistake.jpg", "The surest mistake", f"{said}where those of the truth alone fire.")
    shown, first = out / ".explorer.png", int(snapshot.rows[right[0] if len(right) else 0])
    if _screenshot(report / "explorer.html", first, shown):
        _save(read_image(shown), out / "explorer.jpg")
        shown.unlink()
        yield Exhibit(
            "explorer.jpg",
            "The explorer of the report",
            "It works offline: flip through pictures, switch features, compare classes.",
        )


def make_gallery(run: RunFolder, out: Path) -> list[Exhibit]:
    """Write small pictures of a finished run, and `README.md` that shows them.

    The screenshot of the explorer needs Chromium or Google Chrome; without one it is left out.

    Raises
    ------
    ValueError : when the run is not finished.
    """
    if not (run.path / "report" / "explorer.html").exists():
        raise ValueError(f"{run.path} has no report with an explorer: finish the run first (qpm run --out {run.path})")
    out.mkdir(parents=True, exist_ok=True)
    exhibits = [*_chain(run, out), *_of_the_model(run, out), *_of_the_report(run, out)]
    settings = f"profile {run.config.profile}, seed {run.config.seed}"
    lines = [
        "# Gallery",
        "",
        f"Pictures of one run ({settings}), made by `python data_scripts/make_gallery.py RUN`.",
        "",
    ]
    for exhibit in exhibits:
        lines += [f"## {exhibit.title}", "", exhibit.words, "", f"![{exhibit.words}]({exhibit.file})", ""]
    write_atomically(out / "README.md", lambda temporary: temporary.write_text("\n".join(lines), encoding="utf-8"))
    return exhibits
