"""`qpm explain`: maps of several explanation methods beside each other."""

import argparse
import sys
from pathlib import Path
from typing import Any

from qpm_lib.cli.output import check_place, printable, show, show_table

NAME, SHORT = "explain", "compare explanation methods on pictures"
DESCRIPTION = """Where does the evidence for a class lie, according to several methods? A figure per picture with all
maps beside each other, the numbers (maps.json) and the raw maps (maps.safetensors). Methods that have a sign show
evidence for the class in orange and evidence against it in blue. For example:
  qpm explain runs/toy my_pictures --methods intrinsic,cdam,rollout --out maps
  qpm explain runs/toy bird.png --target 003.Cone_beak --methods all --out maps
  qpm explain runs/toy bird.png --methods ranking,intrinsic --out maps        (after chapter 10)
  qpm explain runs/toy bird.png --concept pictures_of_crowns --methods cdam,grad_cam --out maps"""


class _ListMethods(argparse.Action):
    """Print the methods and stop, as --help does; so that nothing heavy is imported before."""

    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print and exit."""
        from qpm_lib.explain import METHODS

        head = ("method", "knows the class", "signed", "forward passes", "source")
        rows = [
            (name, *("yes" if x else "no" for x in (m.class_specific, m.signed)), m.cost, m.source or "none: no idea")
            for name, m in METHODS.items()
        ]
        show_table([head, *rows])
        parser.exit()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = DESCRIPTION
    parser.add_argument("model", type=Path, metavar="RUN", help="run folder, or a model as for predict")
    parser.add_argument("images", nargs="+", type=Path, metavar="PICTURE", help="pictures, or folders of pictures")
    some = "separated by commas, or all (default: intrinsic,cdam,relevance_propagation,rollout; not intrinsic for a "
    parser.add_argument("--methods", metavar="NAMES", help=some + "concept)")
    parser.add_argument("--list-methods", action=_ListMethods, help="say which methods there are, and what they cost")
    asked = parser.add_mutually_exclusive_group()
    named = "class to explain: its name, or its number, from 0 on (default: predicted)"
    asked.add_argument("--target", metavar="CLASS", help=named)
    concept = "explain likeness to the pictures in this folder instead of a class"
    asked.add_argument("--concept", type=Path, metavar="FOLDER", help=concept)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where figures and maps go")
    parser.add_argument("--weights", metavar="FILE", help="weights of the backbone, where they cannot be downloaded")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="pictures at a time (default: 16)")


def execute(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from qpm_lib.core import write_atomically
    from qpm_lib.explain import Target, explain_files, make, map_figure
    from qpm_lib.model import DinoQPM, Skipped, attach_backbone, find_pictures, model_folder

    if arguments.batch_size < 1:
        raise ValueError(f"--batch-size (={arguments.batch_size}) must be at least 1")
    files = find_pictures(arguments.images)
    folder = model_folder(arguments.model)
    kept = [folder, *(folder.parent / name for name in ("explanations", "explainers"))]
    check_place(arguments.out, arguments.images, kept)
    model = DinoQPM.load(folder)
    wanted = _class_number(arguments.target, model.class_names)
    model = attach_backbone(model, weights=arguments.weights, device=arguments.device)
    target, names = Target(model, model.backbone), model.class_names
    if arguments.concept:
        names, wanted = [f"concept {arguments.concept.resolve().name}"], 0
        target = _concept(model.backbone, arguments.concept)
    explainer = folder.parent / "explainers" / "model"
    methods = {}
    for name in _names(arguments.methods, target, explainer):
        options = {"explainer": explainer} if name == "ranking" else {}
        try:
            methods[name] = make(name, target, batch_size=arguments.batch_size, **options)
        except ValueError as error:
            if arguments.methods != "all":
                raise
            sys.stderr.write(f"left out {name}: {error}\n")
    if arguments.methods == "all" and "ranking" in methods:  # what it says of classes it never met is better than none
        methods["ranking"].seen = None
    found, skipped = [], []
    try:
        explained = explain_files(target, methods, files, names, wanted=wanted, batch_size=arguments.batch_size)
        for number, one in enumerate(explained, 1):
            if isinstance(one, Skipped):
                skipped.append(one)
                sys.stderr.write(f"skipped {printable(one.file)}: {one.reason}\n")
                continue
            if not found:
                _forget(arguments.out)
            stem = printable(Path(one.file).stem).encode()[:200].decode(errors="ignore")
            path = arguments.out / f"{number:04d}_{stem}.png"
            found.append((number, one.maps, {"figure": path.name, **one.numbers(model.backbone.aspect)}))
            figure = map_figure(one, target)
            write_atomically(path, lambda p, f=figure: f.savefig(p, dpi=110, bbox_inches="tight", format="png"))
            show(f"{printable(one.file)}: why {one.target} ({one.score:.2f}) in {path}")
    finally:  # what was explained before an error or Ctrl-C is kept
        if found:
            _write(arguments.out, folder, found, skipped)
    return 0 if found else 1


def _forget(out: Path) -> None:
    """Take away the figures of an earlier call, which would lie beside the numbers of this one."""
    from qpm_lib.core import read_object

    if (out / "maps.json").exists():
        for told in read_object(out / "maps.json").get("pictures", []):
            (out / Path(str(told.get("figure", "maps.json"))).name).unlink(missing_ok=True)
        (out / "maps.json").unlink(missing_ok=True)


def _write(out: Path, folder: Path, found: list[tuple[int, Any, Any]], skipped: list[Any]) -> None:
    import torch
    from safetensors.torch import save_file

    from qpm_lib.core import write_atomically, write_json

    maps = {f"{n:04d}/{name}": torch.from_numpy(m).contiguous() for n, own, _ in found for name, m in own.items()}
    write_atomically(out / "maps.safetensors", lambda path: save_file(maps, path))
    pictures = [{"number": f"{number:04d}", **numbers} for number, _, numbers in found]
    content = {"model": str(folder), "pictures": pictures, "skipped": [one._asdict() for one in skipped]}
    write_json(out / "maps.json", content)


def _class_number(text: str | None, names: Any) -> int | None:
    """The class that a name or number means.

    Raises
    ------
    ValueError : for a class that the model does not know.
    """
    from difflib import get_close_matches

    if text is None:
        return None
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    near = get_close_matches(text, names, 1, 0.3)
    hint = f"did you mean {near[0]}? Give " if near else "give "
    numbers = f"its name, or a number from 0 to {len(names) - 1}"
    raise ValueError(f"--target {text!r} is no class of this model: {hint}{numbers}")


def _names(text: str | None, target: Any, explainer: Path) -> list[str]:
    from qpm_lib.explain import possible

    if text == "all":
        trained = (explainer / "model.json").exists() and target.n_classes > 1
        return [*possible(target), *(["ranking"] if trained else [])]
    usual = "cdam,relevance_propagation,rollout" if target.backbone.is_transformer else "grad_cam,class_activation_map"
    usual = f"intrinsic,{usual}" if "intrinsic" in possible(target) else usual
    names = [name.strip() for name in (usual if text is None else text).split(",") if name.strip()]
    if not names:
        raise ValueError(f"--methods {text!r} names no method: write for example --methods intrinsic,cdam")
    return list(dict.fromkeys(names))


def _concept(backbone: Any, folder: Path) -> Any:
    """A target from the pictures of a concept.

    Raises
    ------
    ValueError : for a folder without pictures, or with one that cannot be read.
    """
    from qpm_lib.data import UnreadableError, read_image
    from qpm_lib.explain import concept_target
    from qpm_lib.model import find_pictures

    if not folder.is_dir():
        raise ValueError(f"--concept {folder} is no folder: put a few pictures that show the concept into one")
    images = []
    for path in find_pictures([folder]):
        try:
            images.append(read_image(path))
        except UnreadableError as error:
            raise ValueError(f"--concept: {path} is {error.reason}: take it out of the folder") from error
    return concept_target(backbone, images)
