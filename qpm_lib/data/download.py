"""Official archives: fetched with a checksum, going on after a break, and unpacked whole or not at all."""

import argparse
import gzip
import lzma
import posixpath
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from qpm_lib.core import progress
from qpm_lib.data.dataset import ImageDataset
from qpm_lib.data.official import leads_out

_CHUNK = 2**20
_DAMAGED = (tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)


@dataclass(frozen=True)
class Archive:
    """An official archive: its address, its SHA-256, and the folder it makes, relative to where data sets are kept."""

    url: str
    sha256: str
    makes: str

    @property
    def file(self) -> str:
        """Name of the archive's file."""
        return PurePosixPath(urlsplit(self.url).path).name


ARCHIVES: dict[str, Archive] = {
    "cub": Archive(  # 1.15 GB
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
        "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
        "CUB_200_2011",
    ),
    "cub_segmentations": Archive(  # 39 MB
        "https://data.caltech.edu/records/w9d68-gec53/files/segmentations.tgz?download=1",
        "dc77f6cffea0cbe2e41d4201115c8f29a6320ecb04fffd2444f51b8066e4b84f",
        "CUB_200_2011/segmentations",
    ),
    "aircraft": Archive(  # 2.75 GB
        "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
        "e4e323d410e29f0370c81eabdcbb0e2b813acea1de22891b70b58ff41bfc9834",
        "fgvc-aircraft-2013b",
    ),
}


def _archive(name: str) -> Archive:
    if name not in ARCHIVES:
        raise ValueError(f"archive {name!r} is unknown: choose from {', '.join(ARCHIVES)}")
    return ARCHIVES[name]


def _download(url: str, output: Any, _pooch: Any, *, part: Path) -> None:
    """Fill `part`, from its end where the server can do that, and rename it to `output` once it is whole (a downloader
    for pooch).
    """
    import requests

    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=60) as response:
        if not (
            start and response.status_code == requests.codes.requested_range_not_satisfiable
        ):  # else it is whole: the checksum tells
            response.raise_for_status()
            start = start if response.status_code == requests.codes.partial_content else 0
            total = start + int(response.headers.get("Content-Length", 0))
            with part.open("ab" if start else "wb") as file:
                chunks = response.iter_content(_CHUNK)
                for chunk in progress(
                    chunks, f"{part.stem} (MiB)", total=-(-total // _CHUNK) or None, initial=start // _CHUNK
                ):
                    file.write(chunk)
            if total > start and part.stat().st_size < total:
                raise requests.ConnectionError(f"the connection ended after {part.stat().st_size} of {total} bytes")
    part.replace(output)


def fetch(name: str, folder: Path) -> Path:
    """Fetch an official archive into a folder, and check its SHA-256; a file that is there and right is not fetched
    again.

    What has arrived is kept in `<file>.part`: after a break, the next call goes on from there,
    or starts over where the server cannot.

    Parameters
    ----------
    name : a key of `ARCHIVES`.

    Returns
    -------
    Path of the archive.

    Raises
    ------
    ValueError : for an unknown name, an address that does not answer, a broken connection, or a file with another
        checksum.
    """
    import pooch
    import requests

    archive, folder = _archive(name), folder.expanduser()  # pooch expands `~` too
    downloader = partial(_download, part=folder / f"{archive.file}.part")
    try:
        path = pooch.retrieve(
            archive.url, f"sha256:{archive.sha256}", fname=archive.file, path=folder, downloader=downloader
        )
    except requests.RequestException as error:
        raise ValueError(
            f"{archive.url} could not be fetched ({error}): run this again to go on, "
            f"or put the file into {folder} yourself"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"what came from {archive.url} is not the official file ({error}) It was deleted: run this again; "
            "if that does not help, "
            f"put the official {archive.file} into {folder} yourself"
        ) from error
    return Path(path)


def _refuse(archive: Path, member: str, link: str) -> None:
    where = f" -> {link!r}" if link else ""
    raise ValueError(
        f"{archive} holds {member!r}{where}, which leads out of the folder: it was not unpacked; "
        "take the official archive"
    )


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in progress(tar, f"unpacking {archive.name}"):
            link = member.linkname if member.islnk() or member.issym() else ""
            target = posixpath.join(posixpath.dirname(member.name), link) if member.issym() else link
            if leads_out(member.name) or posixpath.isabs(link) or leads_out(posixpath.normpath(target)):
                _refuse(archive, member.name, link)
            try:
                tar.extract(member, folder, filter="data")
            except tarfile.FilterError:
                _refuse(archive, member.name, link)
        while tar.fileobj.read(_CHUNK):  # to the end, where gzip keeps its checksum
            pass


def _move_in(work: Path, folder: Path) -> None:
    """Rename the unpacked entries into place, folders last: where they stand, everything does."""
    entries = sorted(work.iterdir(), key=lambda entry: entry.is_dir())
    for entry in entries:
        if entry.is_dir() and (folder / entry.name).exists():
            raise ValueError(f"{folder / entry.name} exists already: move it away to unpack it again")
    for entry in entries:
        entry.replace(folder / entry.name)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive; its top-level entries appear in `folder` only when all of it is unpacked.

    Raises
    ------
    ValueError : for a damaged archive, a member or link that leads out of the folder, or a top-level folder that exists
        already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder, prefix=".unpacking."))
    try:
        if not tarfile.is_tarfile(archive):
            raise ValueError(f"{archive} is no tar archive, or is damaged: delete it and fetch it again")
        _untar(archive, work)
        _move_in(work, folder)
    except _DAMAGED as error:
        raise ValueError(f"{archive} is damaged ({error}): delete it and fetch it again") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def obtain(name: str, folder: Path) -> Path:
    """The folder an archive makes inside `folder`: as it stands, or else fetched and unpacked.

    Raises
    ------
    ValueError : as `fetch` and `unpack` do, and when the archive did not hold that folder.
    """
    made = folder.expanduser() / _archive(name).makes
    if not made.is_dir():
        archive = fetch(name, folder)
        unpack(archive, made.parent)
        if not made.is_dir():
            raise ValueError(f"{archive} holds no folder {made.name}: delete it and fetch it again")
    return made


def inventory(dataset: ImageDataset) -> str:
    """One line of counts, after a look that every listed picture and segmentation is there.

    Raises
    ------
    ValueError : when files are missing; the message says how many and names the first.
    """
    for kind, names in (("pictures", dataset.files), ("segmentations", dataset.masks or ())):
        missing = [name for name in names if not (dataset.root / name).is_file()]
        if missing:
            raise ValueError(
                f"{dataset.root} lacks {len(missing)} of {len(names)} {kind}, the first is {missing[0]}: restore them, "
                "or unpack the data set again"
            )
    n_train, extra = int(dataset.is_train.sum()), ", with segmentations" if dataset.masks else ""
    return (
        f"{len(dataset)} pictures ({n_train} training, {len(dataset) - n_train} test), "
        f"{len(dataset.class_names)} classes{extra}"
    )


@contextmanager
def told_by(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Around the work of a script: errors become one line and exit status 1, Ctrl-C becomes 130 and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        parser.exit(130, "\ninterrupted; run the same command again to go on\n")
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n")
