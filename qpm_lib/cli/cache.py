"""`qpm cache`: what the cache folder holds, how large it is, and how to get rid of it."""

import argparse
import shutil
from pathlib import Path

from qpm_lib.cli.output import show, show_table

NAME, SHORT = "cache", "show what is kept between runs, and clear it"
DESCRIPTION = """Rendered birds, features, exact answers, maps, comparisons and finished chapters are kept in the cache
folder (QPM_CACHE names another one), so that nothing is computed twice. Everything in it can be made again: clearing it
costs time, and nothing else."""
KINDS = {
    "toybirds": "rendered birds",
    "features": "tokens of frozen backbones",
    "exact_parts": "answers to birds drawn without parts",
    "explanation_maps": "maps of explanation methods",
    "comparisons": "what qpm compare measured",
    "chapters": "finished chapters, taken by other runs with the same settings",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "--clear", nargs="+", default=[], metavar="KIND", help=f"delete these kinds: {', '.join(KINDS)}, or all"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from qpm_lib.core import cache_folder

    unknown = [kind for kind in arguments.clear if kind not in (*KINDS, "all")]
    if unknown:
        raise ValueError(f"--clear {unknown[0]!r} is no kind: choose from {', '.join(KINDS)}, or all")
    folder = cache_folder()
    found = {kind: sorted(path for path in folder.glob(f"{kind}*") if _is_of(path, kind)) for kind in KINDS}
    freed = 0
    for kind, paths in found.items():
        if kind in arguments.clear or "all" in arguments.clear:
            freed += sum(map(_size, paths))
            for path in paths:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            found[kind] = []
    sizes = {kind: sum(map(_size, paths)) for kind, paths in found.items()}
    show(f"{folder}")
    show_table([[kind, _text(size), KINDS[kind]] for kind, size in sizes.items()])
    show(f"  {_text(sum(sizes.values()))} in all" + (f", {_text(freed)} were deleted" if arguments.clear else ""))
    return 0


def _is_of(path: Path, kind: str) -> bool:
    """`features-<hash>` and its lock are of kind features, and so is a folder of that name alone."""
    return path.name == kind or path.name.startswith(f"{kind}-")


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(p.lstat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())


def _text(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
