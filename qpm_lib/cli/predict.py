"""`qpm predict`: class and reasons for pictures."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qpm_lib.cli.output import printable, show

NAME, SHORT = "predict", "explain predictions for pictures"
DESCRIPTION = """Class, score and reasons for pictures: the features of the class with what each adds to the score and
where it was seen, the runner-up, and the features that separate the two. Files that cannot be read are reported and
skipped. For example:
  qpm predict runs/toy/model my_pictures --json answers.json --heatmaps maps
With --confidence, also the classes that are still possible: the true one is among them as often as asked, over many
pictures like those the model was calibrated on (chapter 13 does that). For example:
  qpm predict runs/toy my_pictures --confidence 0.9
A model that somebody shared on the Hugging Face Hub is named by its owner and name:
  qpm predict owner/name picture.jpg"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = DESCRIPTION
    model = "model folder, the run folder it lies in, or owner/name of the Hugging Face Hub"
    parser.add_argument("model", type=Path, metavar="MODEL", help=model)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="pictures, or folders of pictures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all answers and skipped files")
    figures = "write a figure per picture: maps of the features and what they add"
    parser.add_argument("--heatmaps", type=Path, metavar="FOLDER", help=figures)
    sure = "name the classes that are still possible with this confidence, such as 0.9"
    parser.add_argument("--confidence", type=float, metavar="C", help=sure)
    parser.add_argument("--weights", metavar="FILE", help="weights of the backbone, where they cannot be downloaded")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="pictures at a time (default: 16)")


def execute(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from qpm_lib.core import write_json
    from qpm_lib.model import (
        DinoQPM,
        Skipped,
        attach_backbone,
        find_pictures,
        load_calibration,
        model_folder,
        predict_files,
        save_heat_map,
        supported_rule,
    )

    if arguments.batch_size < 1:
        raise ValueError(f"--batch-size (={arguments.batch_size}) must be at least 1")
    files = find_pictures(arguments.images)
    folder = model_folder(arguments.model)
    model = DinoQPM.load(folder)
    _check_places(arguments, folder)
    promised: dict[str, Any] = {}
    if arguments.confidence is not None:
        promised = {"sets": load_calibration(folder, model), "confidence": arguments.confidence}
        supported_rule(**promised)
    model = attach_backbone(model, weights=arguments.weights, device=arguments.device)
    answers, skipped = [], []
    try:
        results = predict_files(model, files, batch_size=arguments.batch_size, **promised)
        for number, result in enumerate(results, 1):
            if isinstance(result, Skipped):
                skipped.append(result)
                sys.stderr.write(f"skipped {printable(result.file)}: {result.reason}\n")
                continue
            answers.append(result.answer)
            _show_answer(result.answer)
            if arguments.heatmaps:
                name = f"{number:04d}_{printable(Path(result.answer.file).stem)}.png"
                save_heat_map(result, model, arguments.heatmaps / name)
    finally:  # what was answered before an error or Ctrl-C is kept
        if arguments.json and (answers or skipped):
            content = {"pictures": [asdict(a) for a in answers], "skipped": [s._asdict() for s in skipped]}
            write_json(arguments.json, {"model": str(folder), **content})
    if skipped:
        show(f"{len(answers)} of {len(files)} pictures answered, {len(skipped)} skipped")
    return 0 if answers else 1


def _check_places(arguments: argparse.Namespace, folder: Path) -> None:
    """Refuse places for answers that would destroy something, or cannot be written, before anything is computed."""
    from qpm_lib.data import is_picture

    target = arguments.json
    if target and target.is_dir():
        raise ValueError(f"--json {target} is a folder: name a file")
    if target and (is_picture(target) or folder.resolve() in target.resolve().parents):
        raise ValueError(f"--json {target} is a picture or lies in the model folder: name a file for the answers first")
    if arguments.heatmaps and arguments.heatmaps.is_file():
        raise ValueError(f"--heatmaps {arguments.heatmaps} is a file: name a folder")
    for option, place in (("--json", target and target.parent), ("--heatmaps", arguments.heatmaps)):
        try:
            if place:
                place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{option}: {place} cannot be made ({error.strerror}): choose another place") from error


def _show_answer(answer: Any) -> None:
    second = f"runner-up {answer.runner_up}, {answer.runner_up_score:.2f}"
    because = [f"{u.name} {u.contribution:+.2f} at ({u.x:.0f}, {u.y:.0f})" for u in answer.features]
    deciding = [f"{u.name} {u.contribution:+.2f} (of {u.of_class})" for u in answer.deciding]
    show(f"{printable(answer.file)}: {answer.class_name} ({answer.score:.2f}; {second})")
    show("  because  " + ", ".join([*because, f"constant of the class {answer.constant:+.2f}"]))
    show("  decided by  " + ", ".join([*deciding, f"constants {answer.constant_lead:+.2f}"]))
    if possible := answer.possible:
        names = ", ".join(possible.class_names) or "no class (nothing like it was seen in the calibration)"
        path = " > ".join(possible.path) or "no feature is on"
        promise = f"confidence {possible.confidence:g}, calibrated on {possible.calibrated_on} pictures"
        strong = f", or {100 * possible.share:.1f} % as strong together" if possible.share is not None else ""
        show(f"  possible  {names} ({promise}; same path down to level {possible.level} of {path}{strong})")
