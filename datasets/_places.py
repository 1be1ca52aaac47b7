"""Where files of third-party data lie."""

import os
from pathlib import Path

from cst_operator.errors import InputError

__all__ = ["find"]


def find(name: str, file: str, folder: str | Path | None) -> Path:
    """A file of the data set ``name``.

    Args:
        name: folder of the data set below the folder of all third-party data.
        file: name of the file.
        folder: folder of the file or of all third-party data. By default the environment variable
            ``CST_DATA``, else ``../shared/data`` seen from the working directory, else from the
            repository.

    Raises:
        InputError: if it is in none of these.
    """
    if folder is not None:
        roots = [Path(folder)]
    elif "CST_DATA" in os.environ:
        roots = [Path(os.environ["CST_DATA"])]
    else:
        repository = Path(__file__).resolve().parents[1]
        roots = [base.parent / "shared" / "data" for base in (Path.cwd(), repository)]
    for root in roots:
        for path in (root / file, root / name / file):
            if path.is_file():
                return path
    raise InputError(
        f"{file} is not in {' or '.join(map(str, roots))}; set CST_DATA to the folder of "
        "third-party data, or give the folder"
    )
