"""From the change of a control to the finished JPEG, in Python alone, and memory over 1,000 changes; with --browser,
to the picture on screen.

    python benchmarks/explorer.py RUN [--changes 1000] [--browser]

RUN is a finished run folder, for example runs/toy. `--browser` opens chapter 7 in JupyterLab with a headless Chromium
(which must be installed) and measures from a key press on the threshold slider to the next picture painted.
"""

import argparse
import logging
import resource
import runpy
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import qpm_lib
from qpm_lib.core import read_json
from qpm_lib.explorer import SIDE, explore
from qpm_lib.runs import notebooks_folder

log = logging.getLogger("benchmark")


def peak() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


# From the key press to the frame that shows the next picture, decoded.
_WAIT = """image => new Promise(done => {
  let began;
  new MutationObserver((_, watch) => {
    watch.disconnect();
    image.decode().then(() => requestAnimationFrame(() => done(performance.now() - began)));
  }).observe(image, { attributeFilter: ["src"] });
  window.addEventListener("keydown", () => { began = performance.now(); }, { once: true, capture: true });
})"""


def in_jupyterlab(run: Path, presses: int = 40) -> None:
    """Measure in the browser and print."""
    tools = runpy.run_path(str(Path(__file__).resolve().parent.parent / "tests" / "explorer" / "browser.py"))
    profile = read_json(run / "config.json")["profile"]
    with tempfile.TemporaryDirectory() as scratch, tools["chromium"]() as browser:
        (folder := Path(scratch) / "books").mkdir()
        chapter = tools["chapter_for"](run, folder, notebooks_folder() / "07_saliency_explorer.ipynb", profile)
        with tools["served"]("lab", folder, log=Path(scratch) / "lab.txt") as address:
            page = browser.new_page(viewport={"width": 1280, "height": 1200})
            explorer = tools["run_all"](page, f"{address}/lab/tree/{chapter.name}")
            page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=120_000)
            page.wait_for_timeout(5000)
            explorer.scroll_into_view_if_needed()
            images = explorer.locator("img")
            sides = images.evaluate_all("images => images.map(i => i.naturalWidth)")
            picture = images.nth(int(np.argmax(np.array(sides) == SIDE))).element_handle()
            explorer.locator(".noUi-handle").nth(1).focus()
            times = []
            for i in range(presses):
                # the promise is made first and kept, the key comes after it
                page.evaluate("([wait, image]) => { window.measured = eval(wait)(image); }", [_WAIT, picture])
                page.keyboard.press("ArrowRight" if i % 20 < 10 else "ArrowLeft")
                times.append(page.evaluate("() => window.measured"))
                page.wait_for_timeout(150)
    log.info(
        "key press to picture in JupyterLab: median %.0f ms, 95 %% below %.0f ms",
        np.median(times),
        np.percentile(times, 95),
    )


def main() -> None:
    """Measure and print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--browser", action="store_true", help="measure in JupyterLab instead")
    options = parser.parse_args()
    if options.browser:
        in_jupyterlab(options.run.resolve())
        return
    run = qpm_lib.open_run(options.run)
    dataset, backbone = run.dataset(), run.backbone()
    explorer = explore(run.load_model().with_backbone(backbone), dataset, store=run.features(dataset, backbone))
    n_classes, grid = len(dataset.class_names), explorer.store.grid
    changes: dict[str, Callable[[int], object]] = {
        "slider": lambda i: setattr(explorer.threshold, "value", 0.005 * (i % 100 + 1)),
        "feature on or off": lambda i: setattr(explorer.switches[0], "value", bool(i % 2)),
        "another class explained": lambda i: setattr(explorer.explained, "value", i % n_classes),
        "patch": lambda i: setattr(explorer.column, "value", i % grid),
        "feature shown": lambda i: setattr(explorer.feature, "value", i % len(explorer.names)),
        "new picture": lambda i: explorer.surprise.click(),
    }
    log.info("| change | median | 95 % below |")
    log.info("|---|---|---|")
    for name, change in changes.items():
        seconds = []
        for i in range(60):
            began = time.perf_counter()
            change(i)
            seconds.append(time.perf_counter() - began)
        log.info("| %s | %.1f ms | %.1f ms |", name, 1e3 * np.median(seconds), 1e3 * np.percentile(seconds, 95))
    before = peak()
    for i in range(options.changes):
        list(changes.values())[i % len(changes)](i)
    log.info("memory: %.0f MB, after %d more changes %.0f MB", before, options.changes, peak())


if __name__ == "__main__":
    main()
