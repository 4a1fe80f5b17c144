"""Archives fetched from a server on this machine, unpacked, and the scripts around them. No network."""

import hashlib
import importlib.util
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from qpm_lib.data import download
from qpm_lib.data.download import Archive, fetch, obtain, unpack
from qpm_lib.data.toy.scenes import write_toybirds

SCRIPTS = Path(__file__).resolve().parents[2] / "data_scripts"
CONTENT = np.random.default_rng(0).bytes(10_000)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, content = self.server, self.server.files.get(self.path)
        wanted = self.headers.get("Range")
        server.ranges.append(wanted)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.knows_ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : server.breaks_at])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server with `files`; `ranges` collects the Range of every request, `breaks_at` is where it hangs up."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "_CHUNK", 1000)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.files, running.ranges, running.knows_ranges, running.breaks_at = {}, [], True, None
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def offer(server, monkeypatch):
    """Put a file on the server and into the table of archives."""

    def put(name, content=CONTENT, file="small.tgz", makes="small"):
        server.files[f"/{file}"] = content
        url = f"http://127.0.0.1:{server.server_port}/{file}?download=1"
        server.files[f"/{file}?download=1"] = content
        monkeypatch.setitem(download.ARCHIVES, name, Archive(url, hashlib.sha256(content).hexdigest(), makes))

    return put


def tgz(entries):
    """Bytes of a .tgz: name to content, or to a function that changes the TarInfo."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            if callable(content):
                content(member)
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def link(target, kind=tarfile.SYMTYPE):
    def change(member):
        member.type, member.linkname = kind, target

    return change


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


def test_a_file_is_fetched_once(server, offer, tmp_path):
    offer("small")
    path = fetch("small", tmp_path / "new")
    assert path == (tmp_path / "new" / "small.tgz").resolve()
    assert path.read_bytes() == CONTENT
    assert fetch("small", tmp_path / "new") == path
    assert server.ranges == [None]
    assert names(tmp_path) == ["new/small.tgz"]


def test_a_broken_download_goes_on_where_it_stopped(server, offer, tmp_path):
    offer("small")
    server.breaks_at = 5500
    with pytest.raises(ValueError, match=r"small\.tgz.* could not be fetched.*run this again to go on"):
        fetch("small", tmp_path)
    kept = (tmp_path / "small.tgz.part").stat().st_size
    assert 5000 <= kept <= 5500
    server.breaks_at = None
    assert fetch("small", tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={kept}-"]
    assert names(tmp_path) == ["small.tgz"]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_partial_file_is_continued_or_replaced(server, offer, tmp_path, knows_ranges):
    offer("small")
    server.knows_ranges = knows_ranges
    (tmp_path / "small.tgz.part").write_bytes(CONTENT[:4000])
    assert fetch("small", tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=4000-"]


def test_a_partial_file_that_is_whole_needs_nothing_more(server, offer, tmp_path):
    offer("small")
    (tmp_path / "small.tgz.part").write_bytes(CONTENT)
    assert fetch("small", tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing_and_the_next_call_starts_over(server, offer, tmp_path):
    offer("small")
    (tmp_path / "small.tgz.part").write_bytes(b"x" * 4000)
    with pytest.raises(ValueError, match=r"not the official file.*does not match.*run this again"):
        fetch("small", tmp_path)
    assert names(tmp_path) == []
    assert fetch("small", tmp_path).read_bytes() == CONTENT


def test_a_damaged_archive_on_disk_is_fetched_again(server, offer, tmp_path):
    offer("small")
    (tmp_path / "small.tgz").write_bytes(b"half")
    assert fetch("small", tmp_path).read_bytes() == CONTENT


def test_addresses_that_do_not_answer(server, offer, tmp_path, monkeypatch):
    offer("small")
    server.files.clear()
    with pytest.raises(ValueError, match="could not be fetched.*404"):
        fetch("small", tmp_path)
    monkeypatch.setitem(download.ARCHIVES, "nowhere", Archive("http://127.0.0.1:9/a.tgz", "0" * 64, "a"))
    with pytest.raises(ValueError, match=r"a\.tgz could not be fetched.*put the file into"):
        fetch("nowhere", tmp_path)
    assert names(tmp_path) == []
    with pytest.raises(ValueError, match="'dogs' is unknown: choose from cub, cub_segmentations, aircraft"):
        fetch("dogs", tmp_path)


def test_the_table_of_archives_is_well_formed():
    for archive in download.ARCHIVES.values():
        assert archive.url.startswith("https://")
        assert archive.file.endswith((".tgz", ".tar.gz"))
        assert len(bytes.fromhex(archive.sha256)) == 32


@pytest.mark.parametrize("kind", ["tgz", "tar"])
def test_an_archive_is_unpacked_whole(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    with tarfile.open(path, "w:gz" if kind == "tgz" else "w") as tar:
        for name, text in (("birds/one.txt", b"1"), ("attributes.txt", b"a")):
            member = tarfile.TarInfo(f"./{name}")
            member.size = 1
            tar.addfile(member, io.BytesIO(text))
    unpack(path, tmp_path / "data")
    assert names(tmp_path / "data") == ["attributes.txt", "birds/one.txt"]
    assert (tmp_path / "data" / "birds" / "one.txt").read_text() == "1"
    with pytest.raises(ValueError, match="birds exists already: move it away"):
        unpack(path, tmp_path / "data")
    assert len(list((tmp_path / "data").iterdir())) == 2


def test_links_inside_an_archive_are_kept(tmp_path):
    (tmp_path / "a.tgz").write_bytes(
        tgz({"d/x": b"1", "d/e/soft": link("../x"), "d/hard": link("d/x", tarfile.LNKTYPE)})
    )
    unpack(tmp_path / "a.tgz", tmp_path / "data")
    assert (
        (tmp_path / "data" / "d" / "e" / "soft").read_bytes() == (tmp_path / "data" / "d" / "hard").read_bytes() == b"1"
    )


def device(member):
    member.type = tarfile.CHRTYPE


@pytest.mark.parametrize(
    "entries",
    [
        {"../evil": b"x"},
        {"d/../../evil": b"x"},
        {"/evil/file": b"x"},
        {"C:\\evil": b"x"},
        {"..\\evil": b"x"},
        {"d/soft": link("../../evil")},
        {"soft": link("/etc/passwd")},
        {"hard": link("../evil", tarfile.LNKTYPE)},
        {"hard": link("/etc/passwd", tarfile.LNKTYPE)},
        {"a/b/l": link("../.."), "m": link("a/b/l/../evil")},
        {"device": device},
    ],
    ids=lambda entries: ",".join(entries),
)
def test_a_tar_archive_that_leads_out_is_refused(tmp_path, entries):
    (tmp_path / "a.tgz").write_bytes(tgz({"first": b"1", **entries}))
    with pytest.raises(ValueError, match="leads out of the folder"):
        unpack(tmp_path / "a.tgz", tmp_path / "data")
    assert names(tmp_path) == ["a.tgz"]
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "empty", "zip"])
def test_a_damaged_archive_leaves_nothing(tmp_path, damage):
    content = tgz({"d/x": CONTENT, "d/y": CONTENT[::-1]})
    middle = len(content) // 2
    damaged = {
        "truncated": content[:middle],
        "flipped": content[:-8] + bytes(8),
        "text": b"<html>not found</html>",
        "empty": b"",
        "zip": b"PK\x05\x06" + bytes(18),
    }
    (tmp_path / "a.tgz").write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=r"a\.tgz is .*damaged.*delete it and fetch it again"):
        unpack(tmp_path / "a.tgz", tmp_path / "data")
    assert names(tmp_path) == ["a.tgz"]


def test_obtain_fetches_and_unpacks_what_is_not_there(server, offer, tmp_path):
    offer("small", tgz({"small/x": b"1"}))
    assert obtain("small", tmp_path) == tmp_path / "small"
    (tmp_path / "small.tgz").unlink()
    assert obtain("small", tmp_path) == tmp_path / "small"
    assert server.ranges == [None]
    offer("odd", tgz({"other/x": b"1"}), "odd.tgz", "odd")
    with pytest.raises(ValueError, match="holds no folder odd"):
        obtain("odd", tmp_path)


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def packed(folder, *leave_out):
    return tgz(
        {f"{folder.name}/{n}": (folder / n).read_bytes() for n in names(folder) if n.split("/")[0] not in leave_out}
    )


def test_fetch_cub_puts_the_segmentations_where_they_belong(server, offer, tmp_path, capsys):
    birds = tmp_path / "CUB_200_2011"
    write_toybirds(birds, n_species=2, train_per_class=2, test_per_class=1)
    offer("cub", packed(birds, "segmentations"), "CUB_200_2011.tgz", "CUB_200_2011")
    offer("cub_segmentations", packed(birds / "segmentations"), "segmentations.tgz", "CUB_200_2011/segmentations")
    out = tmp_path / "data"
    server.files["/segmentations.tgz?download=1"], whole = b"", server.files["/segmentations.tgz?download=1"]
    with pytest.raises(SystemExit, match="1"):
        script("fetch_cub")(["--out", str(out)])
    assert capsys.readouterr().err.startswith("error: ")
    server.files["/segmentations.tgz?download=1"] = whole
    script("fetch_cub")(["--out", str(out)])
    text = capsys.readouterr().out
    assert "6 pictures (4 training, 2 test), 2 classes, with segmentations" in text
    assert f"qpm run --profile cub --set data.root={out / 'CUB_200_2011'}" in text
    next((out / "CUB_200_2011" / "segmentations").rglob("*.png")).unlink()
    with pytest.raises(SystemExit, match="1"):
        script("fetch_cub")(["--out", str(out)])
    assert "lacks 1 of 6 segmentations" in capsys.readouterr().err


def test_fetch_aircraft(server, offer, tmp_path, capsys):
    content = {
        "variants.txt": b"A\nB C\n",
        "images_variant_trainval.txt": b"1 A\n2 B C\n",
        "images_variant_test.txt": b"3 A\n4 B C\n",
    }
    content |= {"images_box.txt": b"".join(b"%d 1 1 9 9\n" % k for k in range(1, 5))} | {
        f"images/{k}.jpg": b"-" for k in range(1, 5)
    }
    offer(
        "aircraft",
        tgz({f"fgvc-aircraft-2013b/data/{k}": v for k, v in content.items()}),
        "fgvc-aircraft-2013b.tar.gz",
        "fgvc-aircraft-2013b",
    )
    script("fetch_aircraft")(["--out", str(tmp_path)])
    text = capsys.readouterr().out
    assert "4 pictures (2 training, 2 test), 2 classes\n" in text
    assert f"qpm run --profile aircraft --set data.root={tmp_path / 'fgvc-aircraft-2013b'}" in text


def test_fetch_cars_explains_what_is_missing(tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        script("fetch_cars")(["--root", str(tmp_path)])
    text = capsys.readouterr().err
    assert "holds no devkit" in text
    assert "kaggle.com" in text
    assert "renamed to" in text


@pytest.mark.parametrize("name", ["fetch_cub", "fetch_cars", "fetch_aircraft"])
def test_help_teaches(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        script(name)(["--help"])
    text = capsys.readouterr().out
    assert f"python data_scripts/{name}.py" in text
    assert "research" in text
