"""`qpm inspect`: what an encoder groups together in any pictures, without labels."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qpm_lib.cli.output import check_place, printable, show, show_table

NAME, SHORT = "inspect", "what an encoder groups together in pictures, without labels"
DESCRIPTION = """What does the encoder see, before any class is named? Activations of several depths are clustered over
all pictures (NAVE). Leaves a sheet of segmented pictures (pictures.png), the most typical patches of each cluster
(clusters.png), the numbers (inspection.json) and the labels of all patches in up to 20 clusters
(clusters.safetensors, clusters.json), from which any smaller number follows by merging:
qpm_lib.explain.Inspection.load(FOLDER).at(8) gives them as an array. Where tokens have an unusually high norm
(artefacts), artefacts.png shows the pictures with most of them. For example:
  qpm inspect runs/toy --out inside
  qpm inspect my_pictures --backbone dinov2_vits14_reg --weights FILE --k 8 --out inside
Where the pictures have classes (a run, or a folder with a folder for each class), it also looks for clusters that one
class alone shows in early layers: a part that it alone has, or a watermark, a ruler, the background of one day."""


_ENOUGH = 8  # pictures of a class, so that what they share is not chance


class _Pictures(Sequence):
    """Pictures that are read when they are asked for."""

    def __init__(self, read: Any, rows: Sequence[Any]) -> None:
        self._read, self._rows = read, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: Any) -> Any:
        return self._read(self._rows[position])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = DESCRIPTION
    what = "run folder (its training pictures and its backbone), a folder of pictures, or pictures"
    parser.add_argument("source", nargs="+", type=Path, metavar="RUN|FOLDER|PICTURE", help=what)
    parser.add_argument("--k", type=int, default=5, metavar="K", help="clusters that are drawn, 2 to 20 (default: 5)")
    parser.add_argument("--pictures", type=int, default=400, metavar="N", help="at most so many, by lot (default: 400)")
    parser.add_argument("--backbone", metavar="NAME", help="see qpm backbones (default: that of the run, or toy)")
    parser.add_argument("--weights", metavar="FILE", help="weights of the backbone, where they cannot be downloaded")
    parser.add_argument("--seed", type=int, default=0, help="of the lot and of the clusters (default: 0)")
    parser.add_argument("--device", help="auto, cpu, cuda (default: that of the run, or auto)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="pictures at a time (default: 32)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where figures and numbers go")


def execute(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if not 2 <= arguments.k <= 20:
        raise ValueError(f"--k (={arguments.k}) must be from 2 to 20")
    for option in ("pictures", "batch_size"):
        if getattr(arguments, option) < 1:
            raise ValueError(f"--{option.replace('_', '-')} (={getattr(arguments, option)}) must be at least 1")
    if arguments.seed < 0:
        raise ValueError(f"--seed (={arguments.seed}) must not be negative")
    images, names, classes, skipped, backbone = _source(arguments)
    check_place(arguments.out, arguments.source)
    for one in skipped:
        sys.stderr.write(f"skipped {printable(one)}\n")

    from qpm_lib.core import write_atomically
    from qpm_lib.explain import NAVE, inspect_pictures

    nave = NAVE(backbone, k=arguments.k, seed=arguments.seed, batch_size=arguments.batch_size)
    shared = nave.fit(images, finest=min(20, len(images) * nave.grid**2))
    found = inspect_pictures(shared, images, names)
    own, figure = _of_one_class(nave, images, classes) if len(set(classes)) > 1 else ([], None)
    _write(arguments, nave, found, images, own, skipped)
    for name, drawn in (("of_one_class.png", figure), ("artefacts.png", _artefacts(nave, found, images))):
        path = arguments.out / name
        path.unlink(missing_ok=True)
        if drawn is not None:
            write_atomically(path, lambda place, f=drawn: f.savefig(place, dpi=110, bbox_inches="tight", format="png"))
    return 0


def _source(arguments: argparse.Namespace) -> tuple[Any, list[str], list[str], list[str], Any]:
    """Pictures, their names, their classes where they have any, what could not be read, and the backbone."""
    from dataclasses import replace

    import numpy as np

    import qpm_lib
    from qpm_lib.core import choose_device, config_from_dict, read_json
    from qpm_lib.data import UnreadableError, read_image
    from qpm_lib.model import find_pictures
    from qpm_lib.runs import RunFolder

    def by_lot(count: int) -> list[int]:
        rng = np.random.default_rng(arguments.seed)
        return sorted(rng.choice(count, min(count, arguments.pictures), replace=False).tolist())

    first = arguments.source[0]
    if len(arguments.source) == 1 and (first / "config.json").is_file():
        config = config_from_dict(read_json(first / "config.json"))
        run = RunFolder(first.resolve(), replace(config, **_encoder(arguments, config)))
        dataset = run.dataset()
        chosen = dataset.train_rows[by_lot(len(dataset.train_rows))].tolist()
        backbone = run.backbone()
        classes = [dataset.class_names[c] for c in dataset.labels[chosen]]
        return _Pictures(dataset.image, chosen), [dataset.files[row] for row in chosen], classes, [], backbone
    if missing := [str(path) for path in arguments.source if not path.exists()]:
        raise ValueError(f"{missing[0]} does not exist: name a run folder, a folder of pictures, or pictures")
    files, readable, skipped = find_pictures(arguments.source), [], []
    for number in by_lot(len(files)):
        try:
            extrema = read_image(files[number]).getextrema()
        except UnreadableError as error:
            skipped.append(f"{files[number]}: {error.reason}")
            continue
        if all(low == high for low, high in extrema):
            skipped.append(f"{files[number]}: one colour throughout, in which there is nothing to tell apart")
        else:
            readable.append(files[number])
    if not readable:
        raise ValueError(f"none of {len(skipped)} pictures can be used: {skipped[0]}")
    options = {"weights": arguments.weights, "device": choose_device(arguments.device or "auto")}
    backbone = qpm_lib.load_backbone(arguments.backbone or "toy", **options)
    folders = [path.parent.name for path in readable]
    return _Pictures(read_image, readable), [str(path) for path in readable], folders, skipped, backbone


def _encoder(arguments: argparse.Namespace, config: Any) -> dict[str, Any]:
    """What of a run's settings is changed for another backbone, other weights or another device."""
    from dataclasses import replace

    encoder, changed = config.backbone, {}
    if arguments.backbone and arguments.backbone != encoder.name:
        encoder = replace(encoder, name=arguments.backbone, weights="", image_size=0, depth=0)
    if arguments.weights:
        encoder = replace(encoder, weights=arguments.weights)
    if arguments.device:
        changed["device"] = arguments.device
    return {"backbone": encoder, **changed}


def _of_one_class(nave: Any, images: Any, classes: Sequence[str]) -> tuple[list[dict[str, Any]], Any]:
    """For each class, the cluster of early activations that it shows most often before all others; and a figure of the
    one that leads most.
    """
    import numpy as np

    from qpm_lib.explain import NAVE, marked_sheet
    from qpm_lib.metrics import exclusive_clusters

    names, numbers = np.unique(np.array(classes), return_inverse=True)
    few = int(np.bincount(numbers).min())
    if few < _ENOUGH:
        show(f"no search for clusters of one class: some class has {few} pictures here, and {_ENOUGH} are needed")
        return [], None
    finest = min(150, len(images) * nave.grid**2 // 20)
    early = NAVE(nave.backbone, taps=(1 / len(nave.backbone.blocks),), seed=nave.seed, batch_size=nave.batch_size)
    unusual = early.describe(images).unusual()
    labels = early.fit(unusual, finest=finest).transform(unusual, finest).numpy()
    own = exclusive_clusters(labels, numbers)
    rows = zip(names.tolist(), own.present.tolist(), own.elsewhere.tolist(), own.lead.tolist(), strict=True)
    made = [{"class": name, "present": a, "elsewhere": b, "lead": c, "by_lot": own.chance} for name, a, b, c in rows]
    first = int(own.lead.argmax())
    shown = np.flatnonzero(numbers == first)[:12].tolist()
    squares = [nave.backbone.square(images[i]) for i in shown]
    figure = marked_sheet(squares, labels[shown] == own.cluster[first], str(names[first]))
    return sorted(made, key=lambda row: -row["lead"]), figure


def _artefacts(nave: Any, found: Any, images: Any) -> Any:
    """A figure of the pictures with most tokens of high norm, which are marked; None where there are none."""
    from qpm_lib.explain import marked_sheet

    most = [int(i) for i in (-found.artefacts).argsort(kind="stable")[:12] if found.artefacts[i]]
    if not most:
        return None
    shown = [images[i] for i in most]
    marked = nave.laid_out(nave.describe(shown).artefacts.cpu()).numpy()
    return marked_sheet([nave.backbone.square(one) for one in shown], marked, "tokens of high norm")


def _write(
    arguments: argparse.Namespace, nave: Any, found: Any, images: Any, own: list[dict[str, Any]], skipped: list[str]
) -> None:
    from qpm_lib.core import write_atomically, write_json
    from qpm_lib.explain import ARTEFACT, cluster_sheet, contact_sheet

    out, k = arguments.out, min(arguments.k, len(found.sizes))
    squares = _Pictures(lambda i: nave.backbone.square(images[i]), range(len(images)))
    figures = {
        "pictures.png": contact_sheet(found, squares, k),
        "clusters.png": cluster_sheet(found, squares, k),
    }
    for name, figure in figures.items():
        write_atomically(out / name, lambda path, f=figure: f.savefig(path, dpi=110, bbox_inches="tight", format="png"))
    found.save(out)
    total = int(found.sizes.sum())
    rows = [
        {
            "cluster": number,
            "share": int(found.sizes[inside].sum()) / total,
            "at_border": float((found.sizes * found.border)[inside].sum() / found.sizes[inside].sum()),
            "object": bool(found.is_object[inside].any()),
        }
        for number, inside in enumerate(found.members(k))
    ]
    artefacts = float(found.artefacts.sum() / found.labels.size)
    content = {"backbone": nave.backbone.name, "depths": nave.depths, "k": k, "clusters": rows}
    content |= {"tokens_of_high_norm": artefacts, "classes": own, "pictures": found.names, "skipped": skipped}
    write_json(out / "inspection.json", content)
    head = ("cluster", "of all patches", "of them at the border", "object")
    cells = [[f"{100 * row[name]:.1f} %" for name in ("share", "at_border")] for row in rows]
    show_table([head, *((str(i), *c, "yes" if rows[i]["object"] else "") for i, c in enumerate(cells))])
    show("object: of the last two groups that merging leaves, the one that touches the border less")
    where = " (artefacts.png)" if artefacts else ""
    show(f"tokens of high norm (over {ARTEFACT:g} times the median of their picture): {100 * artefacts:.2f} %{where}")
    if own and own[0]["lead"] > 0:
        best = own[0]
        show(
            f"most of one class alone: {printable(best['class'])} shows a cluster of early layers in "
            f"{100 * best['present']:.0f} % of its pictures, no other class in more than "
            f"{100 * best['elsewhere']:.0f} % (of_one_class.png). That lead of {100 * best['lead']:.0f} points "
            f"{'exceeds' if best['lead'] > best['by_lot'] else 'is not more than'} what classes drawn by lot reach "
            f"({100 * best['by_lot']:.0f})"
        )
    show(f"{len(found.names)} pictures: {out / 'pictures.png'}, {out / 'clusters.png'}, {out / 'inspection.json'}")
