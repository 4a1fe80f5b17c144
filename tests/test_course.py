"""What every chapter offers its reader: quizzes that the chapter itself answers, and a first page that is complete."""

import itertools
import re
import shlex
from pathlib import Path

import nbformat
import pytest

from qpm_lib.cli.command import COMMANDS, parser
from qpm_lib.core import load_profile
from qpm_lib.plotting.course import course_figure
from qpm_lib.runs import notebooks_folder

NOTEBOOKS = sorted(notebooks_folder().glob("*.ipynb"))
ANSWER = re.compile(r"<details><summary>Answer</summary>\s*(.*?)\s*</details>", re.DOTALL)


def texts(path):
    """The text of a chapter without its quiz, and the quiz."""
    cells = nbformat.read(path, as_version=4).cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    quiz = re.search(r"## Quiz\n(.*?)(?=\n## )", text, re.DOTALL)
    assert quiz, f"{path.name} has no quiz"
    return text.replace(quiz[0], ""), quiz[1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_quiz_is_answered_by_the_text_of_its_chapter(path):
    """What an answer rests on is in bold, and stands in the chapter in these words."""
    text, quiz = texts(path)
    questions, answers = re.findall(r"^\d\. .*\?.*$", quiz, re.MULTILINE), ANSWER.findall(quiz)
    assert len(questions) == len(answers) >= 2
    plain = " ".join(text.replace("*", "").split()).lower()
    for answer in answers:
        claims = re.findall(r"\*\*(.+?)\*\*", answer, re.DOTALL)
        assert claims, answer
        for claim in claims:
            assert " ".join(claim.replace("*", "").split()).lower() in plain, f"{path.name}: {claim}"


def test_every_chapter_says_where_it_stands():
    lines = set()
    for path in NOTEBOOKS:
        first = nbformat.read(path, as_version=4).cells[0].source
        line = next(line for line in first.splitlines() if line.startswith("*You are here:*"))
        assert re.findall(r"\*\*(\d+) [^*]*\*\*", line) == [str(int(path.name[:2]))]
        lines.add(line.replace("**", ""))
        assert f"you_are_here({int(path.name[:2])})" in path.read_text(encoding="utf-8")
    assert len(lines) == 1
    names = re.split(r" [→·] (?:beside the chain: )?", lines.pop().removeprefix("*You are here:* "))
    shown = [text.get_text() for text in course_figure(5).axes[0].texts if text.get_weight() == "bold"]
    assert shown == names


def test_all_chapters_choose_the_same_picture():
    chosen = {
        path.stem: re.findall(r"^picture = (\d+) ", cell.source, re.MULTILINE)
        for path in NOTEBOOKS
        for cell in nbformat.read(path, as_version=4).cells
        if "parameters" in cell.metadata.get("tags", [])
    }
    assert sum(map(bool, chosen.values())) >= 6
    assert set(itertools.chain(*chosen.values())) == {"0"}, chosen


def test_the_first_page_lists_all_chapters_and_explains_words_that_they_use():
    page = (notebooks_folder() / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in NOTEBOOKS] == sorted(set(re.findall(r"\]\((\w+\.ipynb)\)", page)))
    course = " ".join(" ".join(texts(path)) for path in NOTEBOOKS).lower()
    glossary = page.partition("## Glossary")[2]
    terms = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", glossary, re.MULTILINE)[1:]
    assert len(terms) >= 30
    assert [term.lower() for term, _ in terms] == sorted(term.lower() for term, _ in terms)
    for term, _ in terms:
        assert any(word.strip() in course for word in term.lower().split(",")), term
    makefile = (Path(__file__).resolve().parent.parent / "Makefile").read_text(encoding="utf-8")
    known = {command.NAME for command in COMMANDS} | set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    assert set(re.findall(r"`(?:qpm|make) (\w+)", page)) <= known


PAGES = ("README.md", "notebooks/README.md", "benchmarks/README.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_a_page_is_one(page):
    """With all its options, whatever stands in the place of files."""
    root = Path(__file__).resolve().parent.parent
    text = (root / page).read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    commands = [line.partition(" #")[0].strip() for line in blocks] + re.findall(r"`([^`\n]+)`", text)
    commands = [re.sub(r"^([A-Z_]+=\S+ |sudo )+", "", command) for command in commands]
    ours = [shlex.split(command) for command in commands if re.match(r"qpm [a-z]+ .", command)]
    assert len(ours) >= 1
    for _, *words in ours:
        if not {"--help", "--list-methods"} & set(words):
            known, unknown = parser().parse_known_args(words)
            assert not unknown, words
            for setting in getattr(known, "set", None) or []:
                load_profile(getattr(known, "profile", "toy"), **dict([setting.split("=", 1)]))
    for command in commands:
        if found := re.match(r"(?:\S*python|pytest) ((?:benchmarks|data_scripts|tests)/\S+\.py)(.*)", command):
            source = (root / found[1]).read_text(encoding="utf-8")
            assert all(f'"{option}"' in source for option in re.findall(r"--[a-z-]+", found[2])), command
