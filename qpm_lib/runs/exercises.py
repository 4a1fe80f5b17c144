"""Exercises of the chapters: as notebooks without solutions, and graded by what they compute.

A chapter says under `## Exercise` what is asked; the code cell that follows names the answer (`# needed = ...`), and
the folded solution computes it. Nothing else is needed: an answer is right when it equals that of the solution.
"""

import ast
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nbformat

from qpm_lib.core import load_profile
from qpm_lib.runs.chapters import CHAPTERS, SPARSE, chain, notebooks_folder
from qpm_lib.runs.examiner import KEPT
from qpm_lib.runs.execution import run_chapters
from qpm_lib.runs.folder import RunFolder
from qpm_lib.runs.store import ChapterStore
from qpm_lib.runs.watching import execute

EXERCISES = (*(chapter.name for chapter in CHAPTERS), SPARSE.name, "12_your_own_images")
_HEADING, _ANSWER = "## Exercise", re.compile(r"^# (\w+(?:, \w+)*) = \.\.\.", re.MULTILINE)
_SOLUTION = re.compile(r"<details>\s*<summary>.*?</summary>\s*```python\n(.*?)```.*?</details>\s*", re.DOTALL)


class Verdict(NamedTuple):
    """What came of an exercise: whether it is right, and why not."""

    chapter: str
    right: bool
    words: str


@dataclass(frozen=True)
class Exercise:
    """An exercise of a chapter.

    Attributes
    ----------
    parameters : the cell of the chapter's parameters. setup : code cells before the exercise. given : the cell that is
        to be completed. solution : that of the chapter. answers : names that it must define.
    """

    parameters: str
    setup: tuple[str, ...]
    given: str
    solution: str
    answers: tuple[str, ...]


def read_exercise(chapter: str) -> Exercise:
    """The exercise of a chapter, by the chapter's name."""
    cells = nbformat.read(notebooks_folder() / f"{chapter}.ipynb", as_version=4).cells
    given = _given(cells)
    code = [cell.source for cell in cells[:given] if cell.cell_type == "code"]
    solution = next(found[1] for cell in cells[given:] if (found := _SOLUTION.search(cell.source)))
    answers = _ANSWER.search(cells[given].source)
    if answers is None:
        raise ValueError(f"the exercise of {chapter} names no answer")
    return Exercise(code[0], tuple(code[1:]), cells[given].source, solution, tuple(answers[1].split(", ")))


def write_exercise(chapter: str, folder: Path) -> Path:
    """The chapter as far as its exercise, without the solution and what comes after it, on profile smoke."""
    book = nbformat.read(notebooks_folder() / f"{chapter}.ipynb", as_version=4)
    book.cells = [*book.cells[: _given(book.cells) + 1], nbformat.v4.new_code_cell("# Your answer")]
    for cell in book.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = re.sub(r'run_folder = "[^"]*"', f'run_folder = "../runs/{_place(chapter)}"', cell.source)
            cell.source = re.sub(r'profile = "[^"]*"', 'profile = "smoke"', cell.source)
    book.metadata["qpm_exercise"] = chapter
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, folder / f"{chapter}.ipynb")
    return folder / f"{chapter}.ipynb"


def _heading(cells: Sequence[nbformat.NotebookNode]) -> int | None:
    """Where the exercise begins."""
    return next((i for i, c in enumerate(cells) if c.cell_type == "markdown" and _HEADING in c.source), None)


def _given(cells: Sequence[nbformat.NotebookNode]) -> int:
    """Where the cell is that is to be completed."""
    return next(i for i, c in enumerate(cells) if i > (_heading(cells) or 0) and c.cell_type == "code")


def _place(chapter: str) -> str:
    """A run for each kind of chapter: they do not share their settings."""
    return {SPARSE.name: "exercises-sldd", "12_your_own_images": "exercises-own"}.get(chapter, "exercises")


def read_answer(path: Path) -> tuple[str, list[str]]:
    """Chapter and code cells of an exercise that somebody has done: those after the heading.

    Raises
    ------
    ValueError : for a file that is no exercise.
    """
    try:
        book = nbformat.read(path, as_version=4)
    except (OSError, ValueError, AttributeError, nbformat.ValidationError) as error:
        raise ValueError(f"{path} cannot be read as a notebook ({type(error).__name__})") from error
    chapter, cells = book.metadata.get("qpm_exercise", ""), book.cells
    heading = _heading(cells)
    if chapter not in EXERCISES or heading is None:
        raise ValueError(f"{path} is no exercise: `qpm exercises` writes them, and their heading must stay")
    return chapter, [cell.source for cell in cells[heading:] if cell.cell_type == "code"]


def needed(setup: Sequence[str], code: str) -> list[str]:
    """Those cells that code depends on, by the names that they define, in their order."""
    wanted, kept = _used(code), []
    for cell in reversed(setup):
        if _changed(cell) & wanted:
            kept.insert(0, cell)
            wanted = wanted - _defined(cell) | _used(cell)
    return kept


def _used(code: str) -> set[str]:
    """Names that code reads."""
    return {n.id for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _defined(code: str) -> set[str]:
    """Names that code gives a value whatever happens, so that nothing before it matters for them."""
    body = [node for node in ast.parse(code).body if isinstance(node, ast.Assign)]
    targets = [part for node in body for target in node.targets for part in getattr(target, "elts", [target])]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _changed(code: str) -> set[str]:
    """Names that code may give a value, or whose parts it may change."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
            found |= {part.id for part in ast.walk(node.value) if isinstance(part, ast.Name)}
    return found


def grade(path: Path, *, timeout: int = 600) -> Verdict:
    """Execute an exercise that somebody has done, and compare its answer with that of the solution.

    The chapters before it run first on profile smoke, in a folder of their own, unless they are kept already. Cells
    before the heading are those of the chapter, whatever became of them in the file. What stands under the heading is
    executed as it is: only grade files of people whom you would let use this computer.

    Parameters
    ----------
    timeout : seconds for each cell.

    Raises
    ------
    ValueError : for a file that is no exercise.
    """
    from papermill.exceptions import PapermillExecutionError

    chapter, answer = read_answer(path)
    exercise = read_exercise(chapter)
    with tempfile.TemporaryDirectory(prefix="qpm-grade-") as place:
        run = _prepared(chapter, Path(place) / "run")
        setup = needed(exercise.setup, f"{exercise.given}\n{exercise.solution}\n" + _parsed(answer))
        judge = "from qpm_lib.runs.examiner import KEPT, Examiner\n"
        judge += f"{KEPT} = Examiner(globals(), {exercise.answers!r})"
        solution = [exercise.given, exercise.solution, f"{KEPT}.keep()"]
        cells = [exercise.parameters, *setup, judge, *solution, *answer, f"{KEPT}.judge('verdict.json')"]
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        book.cells[0].metadata["tags"] = ["parameters"]
        try:
            _execute(book, run, Path(place), timeout)
        except (PapermillExecutionError, TimeoutError, RuntimeError) as error:
            ours = isinstance(error, PapermillExecutionError) and error.cell_index <= len(cells) - len(answer) - 1
            if ours:
                raise RuntimeError(f"{chapter} failed before the answer: {error.ename}: {error.evalue}") from error
            words = f"{error.ename}: {error.evalue}" if isinstance(error, PapermillExecutionError) else str(error)
            return Verdict(chapter, False, f"raised {' '.join(words.split())[:200]}")
        found = json.loads((run.path / "verdict.json").read_text(encoding="utf-8"))
    return Verdict(chapter, found["right"], found["words"])


def _parsed(cells: Sequence[str]) -> str:
    """Those cells that are Python; others, with a mistake or a magic command, need nothing that can be known."""
    known = []
    for cell in cells:
        try:
            ast.parse(cell)
        except SyntaxError:
            continue
        known.append(cell)
    return "\n".join(known)


def _prepared(chapter: str, folder: Path) -> RunFolder:
    """A run on profile smoke as far as the chapter needs it."""
    changes = {"selection.method": "sldd"} if chapter == SPARSE.name else {}
    run = RunFolder.create(folder, load_profile("smoke", **changes))
    needs = {c.name: c.needs for c in chain(run.config)}
    if before := needs.get(chapter):
        run_chapters(run, end=max(before), store=ChapterStore())
    return run


def _execute(book: nbformat.NotebookNode, run: RunFolder, place: Path, timeout: int) -> None:
    nbformat.write(book, place / "graded.ipynb")
    source, target = str(place / "graded.ipynb"), str(place / "executed.ipynb")
    options = {"kernel_name": "python3", "language": "python", "cwd": str(run.path), "progress_bar": False}
    options["extra_arguments"] = ["--log-level=50"]
    values = {"run_folder": str(run.path), "profile": "smoke"}
    execute(source, target, parameters=values, execution_timeout=timeout, **options)
