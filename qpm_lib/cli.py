"""The `qpm` command."""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

EPILOG = """examples:
  qpm doctor                                             is everything here that is needed?
  qpm run --profile toy --out runs/toy                   the whole course on rendered birds, on a laptop
  qpm run --profile toy --out runs/toy --set dense.epochs=30    change a setting: only what depends on it runs again
  qpm run --profile toy --out runs/toy --from 03         run chapters 03 to 07 again
  qpm run --profile cub --set data.root=CUB_200_2011 --set backbone.weights=dinov2_vitb14_reg4_pretrain.pth
  qpm run --profile toy --out runs/sldd --set selection.method=sldd      a baseline: sldd or qsenn
  qpm predict runs/toy PICTURE... --heatmaps maps        class and reasons for pictures
  qpm evaluate --table runs/toy runs/sldd                the comparison table of these runs
  qpm backbones                                          which backbones there are
  qpm run --profile folder --set data.root=my_pictures --set backbone.name=toy --set adapter.hidden=256
"""
RUN_HELP = """Runs the chapters 01 to 07 through papermill into a run folder: settings, results, figures, the model, the executed
notebooks and report/index.html. Finished chapters whose settings did not change are skipped, so a stopped run goes on."""

TABLE_HELP = """Puts finished runs into the published comparison table: table.md, table.csv and table.png. Runs that differ in nothing but the
seed become one row with mean and spread, for example:
  for s in 0 1 2; do for m in qpm sldd qsenn; do
    qpm run --profile toy --out runs/$m-$s --set seed=$s --set selection.method=$m; done; done
  qpm evaluate --table runs/*-[012]"""

PREDICT_HELP = """Class, score and reasons for pictures: the features of the class with what each adds to the score and where it was seen, the
runner-up, and the features that separate the two. Files that cannot be read are reported and skipped. For example:
  qpm predict runs/toy/model my_pictures --json answers.json --heatmaps maps"""


def _parser() -> argparse.ArgumentParser:
    from qpm_lib.config import PROFILES, setting_names

    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="qpm", description="Interpretable image classification on frozen vision transformers.", epilog=EPILOG, formatter_class=raw
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="run | predict | evaluate | backbones | doctor")
    run = commands.add_parser(
        "run",
        help="run the chapters into a run folder",
        description=RUN_HELP,
        epilog="settings for --set:\n  " + "\n  ".join(setting_names()),
        formatter_class=raw,
    )
    run.add_argument("--profile", default="toy", metavar="NAME", help=f"settings to start from: {', '.join(PROFILES)} (default: toy)")
    run.add_argument("--out", type=Path, metavar="FOLDER", help="run folder (default: runs/<profile>)")
    run.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="change a setting; may be given more than once"
    )
    run.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NN.NAME=VALUE",
        help="change a notebook parameter, for example 05.n_features_shown=6",
    )
    which = run.add_mutually_exclusive_group()
    which.add_argument("--from", dest="start", metavar="NN", help="run from this chapter on, even where nothing changed")
    which.add_argument("--only", metavar="NN", help="run just this chapter")
    run.add_argument(
        "--skip-damaged", action="store_true", help="leave out pictures that cannot be read, and record them (data.skip_damaged=true)"
    )
    run.add_argument("--verbose", action="store_true", help="show the log of every step")
    compare = commands.add_parser("evaluate", help="tables of finished runs", description=TABLE_HELP, formatter_class=raw)
    compare.add_argument("--table", nargs="+", type=Path, required=True, metavar="RUN", help="run folders")
    compare.add_argument("--out", type=Path, default=Path("runs/table"), metavar="FOLDER", help="where the files go (default: runs/table)")
    predict = commands.add_parser("predict", help="explain predictions for pictures", description=PREDICT_HELP, formatter_class=raw)
    predict.add_argument("model", type=Path, metavar="MODEL", help="model folder, or the run folder it lies in")
    predict.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="pictures, or folders of pictures")
    predict.add_argument("--json", type=Path, metavar="FILE", help="write all answers and skipped files")
    predict.add_argument(
        "--heatmaps", type=Path, metavar="FOLDER", help="write a figure per picture: maps of the features and what they add"
    )
    predict.add_argument("--weights", metavar="FILE", help="weights of the backbone, where they cannot be downloaded")
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    predict.add_argument("--batch-size", type=int, default=16, metavar="N", help="pictures at a time (default: 16)")
    commands.add_parser(
        "backbones", help="list the backbones", description="Name, sizes, licence, and whether the weights are on this machine."
    )
    commands.add_parser(
        "doctor", help="check this machine", description="One line per check; exit status 1 with the remedy when something is unusable."
    )
    return parser


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise ValueError(f"{option} {text!r} must look like KEY=VALUE")
        pairs[key.strip()] = value.strip()
    return pairs


def _literal(text: str) -> Any:
    """A notebook parameter as papermill would read it from a command line."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _parameters(texts: Sequence[str], chapters: Sequence[Any]) -> dict[str, dict[str, Any]]:
    from qpm_lib.runner import find_chapter

    values: dict[str, dict[str, Any]] = {}
    for key, value in _pairs(texts, "--param").items():
        chapter, dot, name = key.partition(".")
        if not dot:
            raise ValueError(f"--param {key!r} must name a chapter and a parameter, for example 05.n_features_shown=6")
        values.setdefault(find_chapter(chapter, chapters), {})[name] = _literal(value)
    return values


def _show(text: str = "", end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        _show("  " + "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))))


def _print_results(run: Any) -> None:
    from qpm_lib.artifacts import read_json
    from qpm_lib.table import METHODS, cell_text, single_cell

    metrics = run.load_metrics()
    columns = {
        "accuracy": "accuracy",
        "plausibility": "plausibility",
        "plausibility_chance": "(chance)",
        "sid": "SID",
        "contrastiveness": "contrastiveness",
    }
    rows = [["", *columns.values()]]
    for key, name in METHODS.items():
        if key in metrics:
            rows.append([name, *(cell_text(single_cell(metrics[key], c)._replace(interval=()), c) for c in columns)])
    _print_table(rows)
    s = read_json(run.path / "selection.json")
    if "objective" in s:
        proof = f"objective {s['objective']:.4f}, proven bound {s['bound']:.4f}, gap {100 * s['gap']:.3f} % ({s['status']}, {s['seconds']:.1f} s)"
        _show(f"  selection: {proof}")


def _run(arguments: argparse.Namespace) -> int:
    from qpm_lib.config import load_profile
    from qpm_lib.report import build_report
    from qpm_lib.runner import ChapterError, chain, find_chapter, run_chapters
    from qpm_lib.runs import RunFolder
    from qpm_lib.seeding import choose_device

    settings = _pairs(arguments.settings, "--set") | ({"data.skip_damaged": "true"} if arguments.skip_damaged else {})
    for key in ("data.root", "backbone.weights"):  # chapters run in another folder
        if settings.get(key):
            settings[key] = str(Path(settings[key]).expanduser().resolve())
    config = load_profile(arguments.profile, **settings)
    choose_device(config.device)
    chapters = chain(config)
    start, only = (find_chapter(c, chapters) if c else None for c in (arguments.start, arguments.only))
    parameters = _parameters(arguments.param, chapters)
    run = RunFolder((arguments.out or Path("runs") / arguments.profile).resolve(), config)
    names = [c.name for c in chapters]

    def announce(name: str) -> None:
        _show(f"[{names.index(name) + 1}/{len(names)}] {name:<24} ", end="")

    def tell(report: Any) -> None:
        figures = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in report.figures.items())
        _show(f"{report.status:<8} {report.seconds:6.1f} s   {figures}")

    try:
        run_chapters(run, start=start, only=only, parameters=parameters, on_start=announce, on_chapter=tell)
    except BaseException as error:
        _show()
        if isinstance(error, ChapterError | KeyboardInterrupt):
            try:
                build_report(run, parameters)
            except (ValueError, RuntimeError, OSError) as reason:
                sys.stderr.write(f"the report could not be made: {reason}\n")
        raise
    index = build_report(run, parameters)
    _show()
    if (run.path / "metrics.json").exists():
        _print_results(run)
    _show(f"\nreport: {index}")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from qpm_lib.artifacts import write_atomically
    from qpm_lib.table import read_runs, save_figure, table, to_csv, to_markdown

    rows = table(read_runs(arguments.table))
    markdown, sheet = to_markdown(rows), to_csv(rows)
    write_atomically(arguments.out / "table.md", lambda temporary: temporary.write_text(markdown, encoding="utf-8"))
    write_atomically(arguments.out / "table.csv", lambda temporary: temporary.write_text(sheet, encoding="utf-8"))
    save_figure(rows, arguments.out / "table.png")
    _show(markdown)
    _show(f"written: {arguments.out / 'table.md'}, table.csv, table.png")
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    from qpm_lib.artifacts import write_json
    from qpm_lib.model import DinoQPM
    from qpm_lib.predict import Skipped, attach_backbone, find_pictures, model_folder, predict_files, save_heat_map

    if arguments.batch_size < 1:
        raise ValueError(f"--batch-size (={arguments.batch_size}) must be at least 1")
    if arguments.json and arguments.json.is_dir():
        raise ValueError(f"--json {arguments.json} is a folder: name a file")
    folder, files = model_folder(arguments.model), find_pictures(arguments.images)
    model = attach_backbone(DinoQPM.load(folder), weights=arguments.weights, device=arguments.device)
    answers, skipped = [], []
    try:
        for number, result in enumerate(predict_files(model, files, batch_size=arguments.batch_size), 1):
            if isinstance(result, Skipped):
                skipped.append(result)
                sys.stderr.write(f"skipped {_printable(result.file)}: {result.reason}\n")
                continue
            answers.append(result.answer)
            _show_answer(result.answer)
            if arguments.heatmaps:
                save_heat_map(result, model, arguments.heatmaps / f"{number:04d}_{_printable(Path(result.answer.file).stem)}.png")
    finally:  # what was answered before an error or Ctrl-C is kept
        if arguments.json and (answers or skipped):
            content = {"pictures": [asdict(a) for a in answers], "skipped": [s._asdict() for s in skipped]}
            write_json(arguments.json, {"model": str(folder), **content})
    if skipped:
        _show(f"{len(answers)} of {len(files)} pictures answered, {len(skipped)} skipped")
    return 0 if answers else 1


def _printable(name: str) -> str:
    """A file name without the bytes that are no text."""
    return name.encode("utf-8", "backslashreplace").decode()


def _show_answer(answer: Any) -> None:
    _show(
        f"{_printable(answer.file)}: {answer.class_name} ({answer.score:.2f}; runner-up {answer.runner_up}, {answer.runner_up_score:.2f})"
    )
    _show("  because  " + ", ".join(f"{u.name} {u.contribution:+.2f} at ({u.x:.0f}, {u.y:.0f})" for u in answer.features))
    _show("  decided by  " + ", ".join(f"{u.name} {u.contribution:+.2f} (of {u.of_class})" for u in answer.deciding))


def _backbones() -> int:
    from qpm_lib.backbones import weights_at_hand
    from qpm_lib.registry import BACKBONES

    rows = [["name", "patch", "width", "registers", "parameters", "memory", "weights", "licence of the weights"]]
    for name, entry in BACKBONES.items():
        size = [f"{entry.parameters:.1f} M", f"{entry.parameters * 4 / 1024:.2f} GB"]
        rows.append([name, f"{entry.patch_size} px", str(entry.width), str(entry.registers), *size, weights_at_hand(name), entry.licence])
    _print_table(rows)
    _show("\nuse one:  qpm run --set backbone.name=dinov2_vits14   (downloads the weights once)")
    _show("offline:  --set backbone.weights=FILE, an official .pth file or safetensors")
    return 0


def _doctor() -> int:
    from qpm_lib.doctor import examine

    healthy = True
    for check in examine():
        healthy &= not check.remedy
        _show(
            f"{'ok  ' if not check.remedy else 'FAIL'} {check.name:<15} {check.found}"
            + (f"\n     remedy: {check.remedy}" if check.remedy else "")
        )
    return 0 if healthy else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command: 0 is success, 1 an error that is told in one line, 2 wrong usage, 130 Ctrl-C."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO if getattr(arguments, "verbose", False) else logging.WARNING, format="%(name)s: %(message)s")
    try:
        return {
            "backbones": lambda _: _backbones(),
            "doctor": lambda _: _doctor(),
            "evaluate": _evaluate,
            "predict": _predict,
            "run": _run,
        }[arguments.command](arguments)
    except KeyboardInterrupt:
        again = "; run the same command again to go on" if arguments.command == "run" else ""
        sys.stderr.write(f"\ninterrupted{again}\n")
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
