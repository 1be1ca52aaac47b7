import hashlib
import io
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch

from cst_operator.datasets import public
from cst_operator.datasets.public import fetch, load_public
from cst_operator.datasets.public_files import PUBLIC, PublicFile
from cst_operator.datasets.readers import read_comsol, read_mat
from cst_operator.errors import InputError
from tests.reader_samples import comsol, mat5


class _Quiet(SimpleHTTPRequestHandler):
    asked: list[str] = []

    def log_message(self, *args: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server of files on this machine."""
    (tmp_path / "www").mkdir()
    comsol(tmp_path / "www" / "plate.txt")
    _Quiet.asked.clear()
    handler = partial(_Quiet, directory=str(tmp_path / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CST_DATA", "CST_CACHE"):
        monkeypatch.delenv(name, raising=False)


def entry(tmp_path: Path, server: str, **changes: str) -> dict[str, PublicFile]:
    content = (tmp_path / "www" / "plate.txt").read_bytes()
    options = {
        "url": f"{server}/plate.txt",
        "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "licence": "CC0",
        "source": "the tests",
        **changes,
    }
    return {"plate": PublicFile(read=read_comsol, **options)}


def test_a_file_is_fetched_once_and_its_licence_shown(
    tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = entry(tmp_path, server)
    path = fetch("plate", cache=tmp_path / "cache", registry=registry)
    assert path == tmp_path / "cache" / "plate.txt"
    assert path.read_bytes() == (tmp_path / "www" / "plate.txt").read_bytes()
    assert "plate: CC0; the tests; from http" in capsys.readouterr().err
    assert len(_Quiet.asked) == 1
    assert fetch("plate", cache=tmp_path / "cache", registry=registry) == path
    assert len(_Quiet.asked) == 1 and capsys.readouterr().err == ""


def test_what_is_cached_needs_no_network(tmp_path: Path, server: str) -> None:
    registry = entry(tmp_path, server)
    fetch("plate", cache=tmp_path / "cache", registry=registry)
    away = entry(tmp_path, server, url="http://127.0.0.1:9/plate.txt")
    assert fetch("plate", cache=tmp_path / "cache", registry=away).is_file()


def test_another_content_is_refused_and_not_kept(tmp_path: Path, server: str) -> None:
    registry = entry(tmp_path, server, digest="sha256:" + "0" * 64)
    with pytest.raises(InputError, match="plate cannot be fetched .*CST_DATA"):
        fetch("plate", cache=tmp_path / "cache", registry=registry)
    assert not (tmp_path / "cache" / "plate.txt").exists()


def test_a_changed_file_in_the_cache_is_fetched_again(tmp_path: Path, server: str) -> None:
    registry = entry(tmp_path, server)
    path = fetch("plate", cache=tmp_path / "cache", registry=registry)
    path.write_text("changed")
    fetch("plate", cache=tmp_path / "cache", registry=registry)
    assert path.read_bytes() == (tmp_path / "www" / "plate.txt").read_bytes()


def test_a_folder_of_the_user_comes_first_if_the_content_is_right(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = entry(tmp_path, server)
    own = tmp_path / "own" / "heat"
    own.mkdir(parents=True)
    (own / "plate.txt").write_bytes((tmp_path / "www" / "plate.txt").read_bytes())
    monkeypatch.setenv("CST_DATA", str(tmp_path / "own"))
    assert fetch("plate", cache=tmp_path / "cache", registry=registry) == own / "plate.txt"
    (own / "plate.txt").write_text("another")
    monkeypatch.setenv("CST_CACHE", str(tmp_path / "elsewhere"))
    assert fetch("plate", registry=registry) == tmp_path / "elsewhere" / "plate.txt"


def test_names_and_libraries_that_are_missing_are_said(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="no public data set 'darcy'; choose from neuraloperator/"):
        fetch("darcy")
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(InputError, match=r"pip install 'cst-operator\[public\]'"):
        fetch("plate", cache=tmp_path, registry=entry(tmp_path, server))


def stored(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object]
) -> PublicFile:
    """Write the file of an entry, whose digest becomes that of what was written."""
    path = folder / PUBLIC[name].name
    write(path)
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    monkeypatch.setitem(PUBLIC, name, replace(PUBLIC[name], digest=digest))
    monkeypatch.setenv("CST_DATA", str(folder))
    return PUBLIC[name]


def archive(tmp_path: Path, server: str, **contents: bytes) -> dict[str, PublicFile]:
    """Entries of files in one archive, of which the first has what the archive holds."""
    with tarfile.open(tmp_path / "www" / "all.tgz", "w:gz") as tar:
        for name, content in contents.items():
            item = tarfile.TarInfo(f"./data/{name}.txt")
            item.size = len(content)
            tar.addfile(item, io.BytesIO(content))
        link = tarfile.TarInfo("third.txt")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "www" / "plate.txt")
        tar.addfile(link)
    return {
        name: PublicFile(
            url=f"{server}/all.tgz?download=1",
            digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
            licence="CC0",
            source="the tests",
            read=read_comsol,
            file=f"{name}.txt",
            archived=True,
        )
        for name, content in contents.items()
    }


def test_all_files_of_an_archive_come_with_one_download(tmp_path: Path, server: str) -> None:
    registry = archive(tmp_path, server, one=b"1", other=b"2")
    cache = tmp_path / "cache"
    assert fetch("one", cache=cache, registry=registry).read_bytes() == b"1"
    assert fetch("other", cache=cache, registry=registry).read_bytes() == b"2"
    assert len(_Quiet.asked) == 1
    assert sorted(path.name for path in cache.iterdir()) == ["one.txt", "other.txt"]


def test_an_archive_with_another_content_leaves_nothing(tmp_path: Path, server: str) -> None:
    registry = archive(tmp_path, server, one=b"1")
    cache = tmp_path / "cache"
    for change, words in (
        ({"digest": "sha256:" + "0" * 64}, "the archive holds no one.txt with sha256:000"),
        ({"file": "two.txt"}, "the archive holds no two.txt"),
        ({"file": "third.txt"}, "the archive holds no third.txt"),  # a link to elsewhere
        ({"url": f"{server}/plate.txt"}, "file could not be opened"),  # no archive
    ):
        changed = {"one": replace(registry["one"], **change)}
        with pytest.raises(InputError, match=f"one cannot be fetched .*{words}.*CST_DATA"):
            fetch("one", cache=cache, registry=changed)
        assert list(cache.iterdir()) == []
    registry = archive(tmp_path, server, one=b"1", other=b"2")
    registry["other"] = replace(registry["other"], digest="sha256:" + "0" * 64)
    fetch("one", cache=cache, registry=registry)
    assert [path.name for path in cache.iterdir()] == ["one.txt"]  # and not what is wrong


def test_entries_are_complete_and_fixed() -> None:
    files = {item.name: (item.url, item.digest) for item in PUBLIC.values()}
    every = [*PUBLIC.values(), *(other for item in PUBLIC.values() for other in item.beside)]
    for item in every:
        assert files.setdefault(item.name, (item.url, item.digest)) == (item.url, item.digest)
        kind, _, digest = item.digest.partition(":")
        assert item.url.startswith("https://")
        assert len(digest) == {"sha256": 64, "md5": 32}[kind] and int(digest, 16)
        assert item.licence and item.source and item.name
        assert not any(branch in item.url for branch in ("/main/", "/master/"))


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, item in PUBLIC.items()
        if item.digest.startswith("sha256") and not item.archived and "fno/" not in name
    ],
)
def test_entries_agree_with_the_files_at_hand(
    name: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CST_DATA", str(shared_data))
    monkeypatch.setattr(public, "print", None, raising=False)  # nothing is downloaded
    path = fetch(name)
    assert path.is_relative_to(shared_data)
    if name.startswith("neuraloperator"):
        assert len(load_public(name)) > 0


def test_archived_files_of_neuraloperator_are_read_as_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, placement in (("darcy_test_128", 1.0), ("navier_stokes_test_128", 7 / 8)):
        key = f"neuraloperator/{name}"
        sample = {"x": torch.ones(3, 8, 8), "y": torch.zeros(3, 8, 8)}
        stored(key, tmp_path, monkeypatch, partial(torch.save, sample))
        found = load_public(key)
        assert len(found) == 3
        # Ends of the box, or the last point before it repeats.
        assert float(found[0].mesh.pos.max()) == placement


def test_files_of_fno_are_read_out_of_their_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = mat5(tmp_path / "a.mat").read_bytes()

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("__MACOSX/._burgers_data_R10.mat", b"of another system")
            file.writestr("data/burgers_data_R10.mat", content)

    stored("fno/burgers", tmp_path, monkeypatch, write)
    found = load_public("fno/burgers")
    assert len(found) == len(read_mat(tmp_path / "a.mat"))
    assert torch.equal(found[1].u, read_mat(tmp_path / "a.mat")[1].u)
    unpacked = tmp_path / "burgers_data_R10.mat"
    unpacked.write_bytes(content[:100])  # as a full disk leaves it
    assert torch.equal(load_public("fno/burgers")[1].u, found[1].u)
    assert unpacked.read_bytes() == content
    stored("fno/burgers", tmp_path, monkeypatch, lambda path: zipfile.ZipFile(path, "w").close())
    with pytest.raises(InputError, match="Burgers_R10.zip: it holds no burgers_data_R10.mat"):
        load_public("fno/burgers")


def test_a_reader_gets_the_files_beside_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, points = "geo_fno/elasticity", np.random.default_rng(0).random((20, 2, 3))
    entry = stored(name, tmp_path, monkeypatch, lambda path: np.save(path, points[:, 0]))
    (other,) = entry.beside
    np.save(tmp_path / other.name, points)
    digest = f"sha256:{hashlib.sha256((tmp_path / other.name).read_bytes()).hexdigest()}"
    changed = replace(entry, beside=(replace(other, digest=digest),))
    monkeypatch.setitem(PUBLIC, name, changed)
    found = load_public(name, dtype=torch.float64)
    assert len(found) == 3
    assert np.array_equal(found[2].mesh.pos, points[:, :, 2])
    assert np.array_equal(found[2].u[0, :, 0], points[:, 0, 2])
