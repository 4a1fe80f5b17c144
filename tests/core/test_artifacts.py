import json

import numpy as np
import pytest

from qpm_lib.core.artifacts import (
    clear_unfinished,
    content_hash,
    file_hash,
    read_json,
    without_nan,
    write_atomically,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(path, fail)
    assert read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_a_killed_write_left_is_found_and_nothing_else(tmp_path):
    seen = []
    write_atomically(tmp_path / "deep" / "a.png", lambda temporary: seen.append(temporary.name))
    for name in (seen[0], "a.part", ".hidden", "b.png"):
        (tmp_path / "deep" / name).write_bytes(b"x")
    clear_unfinished(tmp_path)
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == [".hidden", "a.part", "a.png", "b.png"]


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()
    with pytest.raises(TypeError, match="set"):
        write_json(tmp_path / "a.json", {"x": {1}})


def test_arrays_and_paths_become_plain_json(tmp_path):
    write_json(tmp_path / "a.json", {"array": np.arange(3), "path": tmp_path, "number": np.float32(0.5)})
    assert json.loads((tmp_path / "a.json").read_text())["array"] == [0, 1, 2]


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"x": ')
    with pytest.raises(ValueError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


def test_hashes_depend_on_content_only(tmp_path):
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1}) != content_hash({"a": 1, "b": 3})
    (tmp_path / "x").write_bytes(b"abc")
    assert file_hash(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_numbers_that_json_does_not_have_become_none_where_asked(tmp_path):
    value = {"a": np.float64("nan"), "b": [1.5, float("inf")], "c": {"d": "nan", "e": np.nanmean([1.0, np.nan])}}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", value)
    assert not list(tmp_path.iterdir())
    write_json(tmp_path / "a.json", without_nan(value))
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [1.5, None], "c": {"d": "nan", "e": 1.0}}
