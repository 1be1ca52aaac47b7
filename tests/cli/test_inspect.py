"""``cst inspect``, also of data files that others wrote."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from cst_operator.cli import main
from cst_operator.datasets import write_trajectory
from cst_operator.fields import PointField, Trajectory
from cst_operator.mesh_files import write_mesh, write_series
from tests.cli_samples import ok
from tests.mesh_file_samples import SQUARE, TWO, write
from tests.mesh_samples import box
from tests.reader_samples import FORMATS

# A missing value is refused until the reader is told to drop it, and arrays have no named axes.
_REFUSED = {
    "curvilinear": "not finite",
    "npy": "does not name its axes; read it with cst_operator.datasets.read_numpy",
    "geo_fno": "does not name its axes; read it with cst_operator.datasets.read_numpy",
    "npz": "does not name its axes; read it with cst_operator.datasets.read_numpy",
    "movie_npy": "does not name its axes; read it with cst_operator.datasets.read_numpy",
}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("case.vtu", "quality"),
        ("data", "static channels"),
        ("run", "parameters"),
        ("run/step-00000004", "parameters"),
    ],
)
def test_inspect_tells_files_sets_and_runs_apart(
    what: str, words: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ok("inspect", work / what)
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_other_programs_are_inspected(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suffix, write, _ = FORMATS[name]
    path = write(tmp_path / f"a{suffix}")
    status = main(["inspect", str(path)])
    said = capsys.readouterr()
    if name in _REFUSED:
        assert status == 2 and _REFUSED[name] in said.err
        assert said.err.count("\n") == 1 and str(path) in said.err
    else:
        assert status == 0, said
        assert "usable" in said.out and "points" in said.out and "unusable" not in said.out


@pytest.mark.parametrize("suffix", [".pvd", ".xdmf"])
def test_a_series_of_meshes_is_inspected(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mesh = PointField(
        torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
        cells={"triangle": torch.tensor([[0, 1, 2]])},
    )
    u = torch.arange(6.0).reshape(2, 3, 1)
    series = Trajectory(mesh=mesh, times=torch.tensor([0.0, 1.0]), u=u, channels=("T",))
    write_series(tmp_path / f"a{suffix}", series)
    assert main(["inspect", str(tmp_path / f"a{suffix}")]) == 0
    assert "frames" in capsys.readouterr().out


def test_a_mesh_of_tecplot_is_no_export_of_comsol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"p": np.array([0.0, 1.0, 2.0, 4.0])}
    write(tmp_path / "a.dat", SQUARE, TWO, point_data=data)
    assert main(["inspect", str(tmp_path / "a.dat")]) == 0
    said = capsys.readouterr().out
    assert "usable" in said and "p " in said


def test_what_no_reader_takes_is_refused_with_what_each_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import h5py

    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["results"] = [1.0, 2.0]
    assert main(["inspect", str(path)]) == 2
    error = capsys.readouterr().err
    for words in ("of no format that is known", "the_well:", "pdebench:", "meshgraphnets:"):
        assert words in error
    assert error.count("\n") == 1


def _picture(path: Path, folder: Path) -> np.ndarray:
    """Pixels of the thumbnail of a file, [rows, columns, 4]."""
    assert main(["inspect", str(path), "--thumbnail", str(folder / "a.png")]) == 0
    return matplotlib.image.imread(folder / "a.png")


@pytest.mark.parametrize("kind", ["triangle", "mixed2", "tetra", "mixed3"])
@pytest.mark.parametrize("fields", [True, False])
def test_a_thumbnail_shows_fields_or_the_mesh(kind: str, fields: bool, tmp_path: Path) -> None:
    pos, cells = box(kind, 3)
    u = pos[:, :1] if fields else None
    write_mesh(tmp_path / "a.vtu", PointField(pos, u, channels=["p"] * fields, cells=cells))
    picture = _picture(tmp_path / "a.vtu", tmp_path)
    hues = np.ptp(picture[..., :3], axis=2) > 0.3
    assert bool((picture[..., :3] < 0.9).any())  # something is drawn
    assert bool(hues.any()) == fields  # colours are values; edges and plain surfaces are grey


@pytest.mark.parametrize("dim", [1, 3])
def test_a_thumbnail_shows_points_on_a_line_and_in_space(dim: int, tmp_path: Path) -> None:
    pos = torch.rand(40, dim)
    mesh = PointField(pos, weights=torch.ones(40))
    u = torch.stack([pos[:, :1], 2 * pos[:, :1]])
    one = Trajectory(mesh=mesh, times=torch.tensor([0.0, 1.0]), u=u, channels=("u",))
    write_trajectory(tmp_path / "a.h5", one)
    picture = _picture(tmp_path / "a.h5", tmp_path)
    middle = picture.shape[1] // 2
    for panel in (picture[:, :middle], picture[:, middle:]):  # one a frame
        assert bool((panel[..., :3] < 0.5).any())
