"""Child process that lets meshio read foreign files.

``python _mesh_reader.py OUT MEMORY MODE FILE...`` imports nothing of the library, so that it starts
fast, and writes plain arrays and their names to OUT (.npz). What goes wrong, ``SystemExit``
included, becomes one line on standard error and exit status 3.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

__all__: list[str] = []


class _Unknown(Exception):
    """The suffix is not that of a mesh format."""


def _limit_memory(size: int) -> None:
    try:
        import resource
    except ImportError:  # not on this platform; the time limit still holds
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _frame(arrays: dict[str, np.ndarray], **parts: Any) -> dict[str, Any]:
    """A description of one mesh in which every array is replaced by its digest.

    So arrays that all frames of a series share, its mesh above all, are kept once.
    """

    def keep(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): keep(item) for key, item in value.items()}
        if isinstance(value, list):
            return [keep(item) for item in value]
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "iufb":
                raise ValueError(f"an array holds {value.dtype}, not numbers")
            array = value.astype(float if value.dtype.kind == "f" else np.int64, order="C")
            content = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
            content.update(array.data)
            arrays.setdefault(content.hexdigest(), array)
            return content.hexdigest()
        return value

    return {name: keep(value) for name, value in parts.items()}


def _blocks(cells: Any) -> list[list[Any]]:
    return [[block.type, np.asarray(block.data)] for block in cells]


def _numeric(point_data: dict[str, Any]) -> dict[str, np.ndarray]:
    return {k: v for k, v in point_data.items() if np.asarray(v).dtype.kind in "iufb"}


def _on_cells(cell_data: dict[str, Any]) -> dict[str, list[np.ndarray]]:
    return {
        name: [np.asarray(part) for part in parts]
        for name, parts in cell_data.items()
        if all(np.asarray(part).dtype.kind in "iufb" for part in parts)
    }


def _read(mode: str, files: list[str], arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    import meshio

    if mode == "xdmf":
        frames = []
        with meshio.xdmf.TimeSeriesReader(files[0]) as reader:
            points, cells = reader.read_points_cells()
            for step in range(reader.num_steps):
                if any(part.tag == "Geometry" for part in reader.collection[step]):
                    reader.mesh_grid = reader.collection[step]
                    points, cells = reader.read_points_cells()
                time, point_data, cell_data = reader.read_data(step)
                frames.append(
                    _frame(
                        arrays,
                        points=points,
                        cells=_blocks(cells),
                        point_data=_numeric(point_data),
                        cell_data=_on_cells(cell_data),
                        time=time,
                    )
                )
        return frames
    known = meshio.extension_to_filetypes
    frames = []
    for file in files:
        suffixes = Path(file.lower()).suffixes
        if not {"".join(suffixes[-n:]) for n in (1, 2)} & set(known):
            raise _Unknown(
                f"suffix {''.join(suffixes[-1:])!r} is unknown, known are {' '.join(sorted(known))}"
            )
        mesh = meshio.read(file)
        frames.append(
            _frame(
                arrays,
                points=np.asarray(mesh.points),
                cells=_blocks(mesh.cells),
                point_data=_numeric(mesh.point_data),
                cell_data=_on_cells(mesh.cell_data),
            )
        )
    return frames


def _main(out: str, memory: str, mode: str, *files: str) -> int:
    _limit_memory(int(memory))
    arrays: dict[str, Any] = {}
    try:
        index = json.dumps(_read(mode, list(files), arrays))
        with open(out, "wb") as file:
            np.savez(file, index=np.array(index), **arrays)
    except MemoryError:
        reason = f"it asks for more memory than {int(memory) / 2**30:.3g} GiB"
    except SystemExit:  # meshio's way to say that no reader of the suffix worked
        reason = "meshio found no valid mesh in it"
    except _Unknown as error:
        reason = str(error)
    except Exception as error:
        reason = f"meshio stopped with {type(error).__name__} {error}".strip()
    else:
        return 0
    sys.stderr.write("\n" + " ".join(reason.split())[:400])
    return 3


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
