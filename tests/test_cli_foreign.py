"""``cst inspect`` of data files that others wrote."""

from pathlib import Path

import pytest
import torch

from cst_operator.cli import main
from cst_operator.fields import PointField, Trajectory
from cst_operator.mesh_files import write_series
from tests.reader_samples import FORMATS

# A missing value is refused until the reader is told to drop it, and arrays have no named axes.
_REFUSED = {
    "curvilinear": "not finite",
    "npy": "does not name its axes; read it with cst_operator.datasets.read_numpy",
    "npz": "does not name its axes; read it with cst_operator.datasets.read_numpy",
    "movie_npy": "does not name its axes; read it with cst_operator.datasets.read_numpy",
}


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


def test_a_series_of_meshes_is_inspected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mesh = PointField(
        torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
        cells={"triangle": torch.tensor([[0, 1, 2]])},
    )
    u = torch.arange(6.0).reshape(2, 3, 1)
    series = Trajectory(mesh=mesh, times=torch.tensor([0.0, 1.0]), u=u, channels=("T",))
    write_series(tmp_path / "a.pvd", series)
    assert main(["inspect", str(tmp_path / "a.pvd")]) == 0
    assert "frames" in capsys.readouterr().out


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
