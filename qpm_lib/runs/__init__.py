"""Run folders, the chapters that fill them, and the tables made from them."""

from qpm_lib.runs.chapters import LESSON, Chapter, chain, check_parameters, find_chapter, notebooks_folder
from qpm_lib.runs.execution import ChapterError, ChapterReport, run_chapters
from qpm_lib.runs.exercises import EXERCISES, Verdict, grade, read_answer, write_exercise
from qpm_lib.runs.folder import RunFolder, open_run
from qpm_lib.runs.formats import cell_text, save_figure, to_csv, to_markdown
from qpm_lib.runs.inputs import check_inputs, load_run_backbone, load_run_dataset
from qpm_lib.runs.method_maps import MethodMaps, take_method_maps
from qpm_lib.runs.published import PUBLISHED
from qpm_lib.runs.snapshot import Snapshot, take_snapshot
from qpm_lib.runs.store import ChapterStore, this_computer
from qpm_lib.runs.table import read_runs, single_cell, table
from qpm_lib.runs.up_to_date import chapter_keys, current_chapters, is_whole
from qpm_lib.runs.watching import ChapterProgress, clock

__all__ = [
    "Chapter",
    "ChapterError",
    "ChapterProgress",
    "ChapterReport",
    "ChapterStore",
    "EXERCISES",
    "LESSON",
    "MethodMaps",
    "PUBLISHED",
    "RunFolder",
    "Snapshot",
    "Verdict",
    "cell_text",
    "chain",
    "chapter_keys",
    "check_inputs",
    "check_parameters",
    "clock",
    "current_chapters",
    "find_chapter",
    "grade",
    "is_whole",
    "load_run_backbone",
    "load_run_dataset",
    "notebooks_folder",
    "open_run",
    "read_answer",
    "read_runs",
    "run_chapters",
    "save_figure",
    "single_cell",
    "table",
    "take_method_maps",
    "take_snapshot",
    "to_csv",
    "this_computer",
    "to_markdown",
    "write_exercise",
]
