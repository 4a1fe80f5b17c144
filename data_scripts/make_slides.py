"""Make slides of a finished run: one page for each executed chapter, to be shown in a browser (reveal.js).

    python data_scripts/make_slides.py runs/toy --out runs/toy/slides

A section begins a slide; the arrow down leads to its figures and what was printed; S opens the speaker's notes, which
are the text between the figures. Figures and formulas are in the page; reveal.js and require.js come from the network
when it is shown (`--reveal` names a copy of the first).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from qpm_lib.core import write_atomically
from qpm_lib.data import told_by
from qpm_lib.report import slides_html


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the arguments, write the pages, and list them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--out", type=Path, help="where the pages go (default: slides, in the run folder)")
    parser.add_argument("--reveal", help="address or folder of reveal.js (default: the public one)")
    arguments = parser.parse_args(argv)
    out = arguments.out or arguments.run / "slides"
    with told_by(parser):
        chapters = sorted((arguments.run / "notebooks").glob("*.ipynb"))
        if not chapters:
            raise ValueError(
                f"{arguments.run} has no executed chapters: finish the run first (qpm run --out {arguments.run})"
            )
        out.mkdir(parents=True, exist_ok=True)
        for chapter in chapters:
            page = slides_html(chapter, reveal=arguments.reveal)
            to = out / f"{chapter.stem}.slides.html"
            write_atomically(to, lambda temporary, page=page: temporary.write_text(page, encoding="utf-8"))
            print(f"{to}: {to.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
