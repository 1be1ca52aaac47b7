"""Child process that reads every attribute of an HDF5 file.

``python _hdf5_check.py FILE`` imports nothing of the library, so that it starts fast. In a damaged
heap of strings HDF5 can loop for ever; then the parent stops this process instead of hanging.
"""

import sys

import h5py

__all__: list[str] = []


def _read(name: str, item: h5py.HLObject) -> None:
    for key in item.attrs:
        item.attrs[key]


if __name__ == "__main__":
    with h5py.File(sys.argv[1], "r") as file:
        _read("/", file)
        file.visititems(_read)
