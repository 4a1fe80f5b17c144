"""A headless Chromium, and JupyterLab or Voila for it to look at; used by the tests beside it and by
benchmarks/explorer.py.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import TimeoutError as PlaywrightTimeout
from playwright.sync_api import sync_playwright

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
IDLE = ".jp-StatusBar-Widget :text('| Idle')"  # of JupyterLab: its kernel is connected and has nothing to do


@contextlib.contextmanager
def chromium():
    """A browser; what its pages complain about is collected in `browser.complaints`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def served(application, folder, *arguments, log):
    """JupyterLab or Voila (`lab`, `voila`) in a folder; gives the address."""
    port = _free_port()
    options = {
        "lab": [
            "--no-browser",
            "--allow-root",
            "--ServerApp.token=",
            "--ServerApp.port_retries=0",
            "--ServerApp.terminals_enabled=False",
        ],
        "voila": ["--no-browser", "--Voila.ip=127.0.0.1"],
    }[application]
    command = [
        sys.executable,
        "-m",
        "jupyterlab" if application == "lab" else "voila",
        *arguments,
        *options,
        f"--port={port}",
    ]
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(log.parent / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(log.parent / "settings"),
    }
    environment |= {"JUPYTERLAB_WORKSPACES_DIR": str(log.parent / "workspaces"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    tracker = log.parent / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True, exist_ok=True)
    tracker.write_text(json.dumps({"windowingMode": "none"}))  # draw every cell, not only those on the screen
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(240):
                with contextlib.suppress(OSError, urllib.error.URLError):
                    if application == "voila":
                        with socket.create_connection(("127.0.0.1", port), timeout=1):
                            break
                    urllib.request.urlopen(f"{address}/api", timeout=2).close()
                    break
                if server.poll() is not None:
                    raise RuntimeError(f"{application} ended: {log.read_text()[-2000:]}")
                time.sleep(0.25)
            else:
                raise RuntimeError(f"{application} does not answer: {log.read_text()[-2000:]}")
            yield address
        finally:
            server.terminate()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def run_all(page, notebook_address):
    """Open a notebook in JupyterLab, run all its cells, and give the explorer in it."""
    page.goto(notebook_address)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
    # The notebook's own indicator says idle before there is a kernel; "run all" would then ask for one, or be dropped.
    page.wait_for_selector(IDLE, timeout=90_000)
    page.click(".lm-MenuBar-item:has-text('Run')")
    page.click(".lm-Menu-item[data-command='runmenu:run-all']")
    explorer = page.locator(".qpm-explorer").first
    try:
        explorer.locator("img").first.wait_for(timeout=120_000)
    except PlaywrightTimeout as late:
        places = ".jp-Notebook, .jp-Dialog, .jp-StatusBar-Widget, .jp-RenderedText[data-mime-type*=stderr]"
        shown = page.locator(places).all_inner_texts()
        late.add_note(f"What JupyterLab shows instead: {[text[-1500:] for text in shown]}")
        raise
    return explorer


def chapter_for(run_folder: Path, folder: Path, source: Path, profile: str) -> Path:
    """A copy of chapter 7 that looks at a run."""
    import nbformat

    book = nbformat.read(source, as_version=4)
    cell = next(c for c in book.cells if "parameters" in c.metadata.get("tags", []))
    cell.source = cell.source.replace('"../runs/toy"', repr(str(run_folder))).replace('"toy"', repr(profile))
    nbformat.write(book, folder / source.name)
    return folder / source.name
