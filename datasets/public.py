"""Public data sets by name: fetched once, checked, and read from the cache from then on.

Every entry has a fixed address and digest. Digests of PDEBench are the MD5 sums that its authors
publish with the addresses (pdebench_data_urls.csv); the others are SHA-256. For the files inside of
the archives of neuraloperator's records at Zenodo, whose versions never change, they are those that
projects which use the files have published. The Well has a client of its own
(``the-well-download`` of the package ``the_well``), whose files
:func:`~cst_operator.datasets.readers.the_well.read_the_well` reads.
"""

import hashlib
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from cst_operator.datasets.readers import read_comsol, read_dfsu, read_neuraloperator, read_pdebench
from cst_operator.errors import InputError
from cst_operator.mesh_files import read_mesh

__all__ = ["PUBLIC", "PublicFile", "fetch", "load_public"]


@dataclass(frozen=True, kw_only=True)
class PublicFile:
    """A file that others publish.

    Args:
        url: its fixed address.
        digest: ``sha256:`` or ``md5:`` and the hexadecimal digest of its content; of a file in an
            archive, that of the file.
        licence: under which it may be used.
        source: whom to cite.
        read: the reader of its format.
        file: its name in the cache; the last part of the address if omitted.
        archived: whether the address is that of a tar archive, in which the file has this name.
    """

    url: str
    digest: str
    licence: str
    source: str
    read: Callable[..., Any]
    file: str = ""
    archived: bool = False

    @property
    def name(self) -> str:
        """Name of the file in the cache."""
        return self.file or self.url.rpartition("/")[2]


def fetch(
    name: str, *, cache: str | Path | None = None, registry: Mapping[str, PublicFile] | None = None
) -> Path:
    """The path of a public file, which is downloaded if it is nowhere yet (needs ``public``).

    A file of that name below the folder ``CST_DATA`` is taken first, then one in the cache; both
    only with the right digest. Without either, the file is downloaded to the cache, after a line on
    standard error with its licence and source. Once it is there, no network is needed. All files of
    an archive that have an entry are kept, the archive is not.

    Args:
        name: a key of :data:`PUBLIC`.
        cache: folder of downloads; by default the environment variable ``CST_CACHE``, else the
            user's cache folder.
        registry: other entries than :data:`PUBLIC`.

    Raises:
        InputError: if the name is unknown, pooch is not installed, or the file cannot be had or
            has another content.
    """
    entries = PUBLIC if registry is None else registry
    if name not in entries:
        raise InputError(f"there is no public data set {name!r}; choose from {', '.join(entries)}")
    entry = entries[name]
    given = _given(entry)
    if given is not None:
        return given
    try:
        import pooch
    except ImportError as error:
        raise InputError(
            f"{name} is fetched by pooch, which is not installed; "
            "pip install 'cst-operator[public]', or set CST_DATA to a folder that holds "
            f"{entry.name}"
        ) from error
    folder = Path(cache or os.environ.get("CST_CACHE") or pooch.os_cache("cst_operator"))
    if (folder / entry.name).is_file() and _digest(folder / entry.name, entry) == entry.digest:
        return folder / entry.name
    print(f"{name}: {entry.licence}; {entry.source}; from {entry.url}", file=sys.stderr)
    pooch.get_logger().setLevel("WARNING")
    try:
        if entry.archived:
            archive = Path(pooch.retrieve(entry.url, None, fname=f"{entry.name}.tar", path=folder))
            of_it = (other for other in entries.values() if other.url == entry.url)
            _unpack(archive, entry.name, of_it)
        else:
            pooch.retrieve(entry.url, entry.digest, fname=entry.name, path=folder)
    except Exception as error:  # of requests, urllib3, ftplib or pooch itself
        words = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name} cannot be fetched ({words}); try again, or put {entry.name} into a folder and "
            "name that folder in CST_DATA"
        ) from error
    return folder / entry.name


def load_public(name: str, *, cache: str | Path | None = None, **options: Any) -> Any:
    """Fetch a public file and read it with its format's reader.

    Args:
        name: a key of :data:`PUBLIC`.
        cache: as in :func:`fetch`.
        options: further arguments of the reader.

    Returns:
        What the reader returns: a trajectory, a sequence of them, or the field of a mesh file.

    Raises:
        InputError: as :func:`fetch` and the reader.
    """
    path = fetch(name, cache=cache)
    return PUBLIC[name].read(path, **options)


def _given(entry: PublicFile) -> Path | None:
    root = os.environ.get("CST_DATA")
    if not root:
        return None
    for path in sorted(Path(root).rglob(entry.name)):
        if path.is_file() and _digest(path, entry) == entry.digest:
            return path
    return None


def _unpack(archive: Path, name: str, entries: Iterable[PublicFile]) -> None:
    """Take files out of an archive, each kept only with the right content, and remove it."""
    wanted = {entry.name: entry for entry in entries}
    temporary = archive.with_suffix(".part")
    try:
        with tarfile.open(archive) as content:
            for item in content:
                entry = wanted.get(PurePosixPath(item.name).name)
                source = content.extractfile(item) if item.isreg() else None
                if entry is None or source is None:
                    continue
                with temporary.open("wb") as file:
                    shutil.copyfileobj(source, file)
                if _digest(temporary, entry) == entry.digest:
                    os.replace(temporary, archive.parent / entry.name)
                    del wanted[entry.name]
    finally:
        temporary.unlink(missing_ok=True)
        archive.unlink()
    if name in wanted:
        raise ValueError(f"the archive holds no {name} with {wanted[name].digest}")


def _digest(path: Path, entry: PublicFile) -> str:
    kind = entry.digest.partition(":")[0]
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"


def _neuraloperator(file: str, digest: str) -> PublicFile:
    return PublicFile(
        url="https://github.com/neuraloperator/neuraloperator/raw/93d3f06/neuralop/data/datasets/"
        f"data/{file}",
        digest=f"sha256:{digest}",
        licence="MIT",
        source="neuraloperator (Kossaifi et al., arXiv:2412.10354)",
        read=read_neuraloperator,
    )


def _zenodo(
    record: int, archive: str, file: str, digest: str, licence: str, **options: Any
) -> PublicFile:
    return PublicFile(
        url=f"https://zenodo.org/records/{record}/files/{archive}?download=1",
        digest=f"sha256:{digest}",
        licence=licence,
        source=f"NeuralOperator Team, doi:10.5281/zenodo.{record}",
        read=partial(read_neuraloperator, **options),
        file=file,
        archived=True,
    )


def _darcy(file: str, digest: str) -> PublicFile:
    licence = "as its Zenodo record states"
    return _zenodo(12784353, "darcy_128.tgz", file, digest, licence)


def _navier_stokes(file: str, digest: str) -> PublicFile:
    return _zenodo(12825163, "nsforcing_128.tgz", file, digest, "CC BY 4.0", placement="periodic")


def _pdebench(file: str, number: int, digest: str) -> PublicFile:
    return PublicFile(
        url=f"https://darus.uni-stuttgart.de/api/access/datafile/{number}",
        digest=f"md5:{digest}",
        licence="CC BY 4.0",
        source="PDEBench (Takamoto et al., doi:10.18419/darus-2986)",
        read=read_pdebench,
        file=file,
    )


PUBLIC: dict[str, PublicFile] = {
    "neuraloperator/darcy_train_16": _neuraloperator(
        "darcy_train_16.pt", "0be662acdb1dab7dfd1a1da0b140e97f75cc94f98a14edcf768abe6968b3b418"
    ),
    "neuraloperator/darcy_test_16": _neuraloperator(
        "darcy_test_16.pt", "d2b19af9d4a6ae04ba2de54b8ecccc8b89766472faf6ce7f506c0b2a60f69a4c"
    ),
    "neuraloperator/darcy_test_32": _neuraloperator(
        "darcy_test_32.pt", "bcbd10622373e94df84a17fcdb72ac4317d76e024c2499d21fd1fd34d0742cfd"
    ),
    "neuraloperator/burgers_train_16": _neuraloperator(
        "burgers_train_16.pt", "d12335adc0d96357a893dc39d72957fa89fda852b00902d94da95aa06af23fa0"
    ),
    "neuraloperator/burgers_test_16": _neuraloperator(
        "burgers_test_16.pt", "70bb1591e31b254e74ac6097a5520de299da38115cb3f814e8d0f6f19057d201"
    ),
    "neuraloperator/mini_car": _neuraloperator(
        "mini_car.pt", "cc4941066a1abe0d10461aec5069eea0f0e595248469e1522a4f873965f784f2"
    ),
    "neuraloperator/darcy_train_128": _darcy(
        "darcy_train_128.pt", "b0b98f29679459f9eeb03657835b683140abf186f62bcc92efb886f022d1447c"
    ),
    "neuraloperator/darcy_test_128": _darcy(
        "darcy_test_128.pt", "549ac096e1a772ac355297deed98955f7ca6d03c97295705f66e3c194cf20382"
    ),
    "neuraloperator/navier_stokes_train_128": _navier_stokes(
        "nsforcing_train_128.pt", "6c145749f40aa1f00c2088e662f6668e1ca98018353a0f27a814732278c1a964"
    ),
    "neuraloperator/navier_stokes_test_128": _navier_stokes(
        "nsforcing_test_128.pt", "a7e1ed8ebc050317b8ccb7ef35dfc488e835337fcdefc62f56e01596accccbe5"
    ),
    "pinnacle/heat_darcy": PublicFile(
        url="https://github.com/i207M/PINNacle/raw/6f8d69c/ref/heat_darcy.dat",
        digest="sha256:c28092b1b7073841940909e87ef55c1d92cc492e83b526e803645e1415eefb30",
        licence="MIT",
        source="PINNacle (Hao et al., arXiv:2306.08827)",
        read=read_comsol,
    ),
    "mike/north_sea_surge": PublicFile(
        url="https://github.com/DHI/mikeio/raw/b50d59c/tests/testdata/NorthSea_HD_and_windspeed.dfsu",
        digest="sha256:e7321900fdac7d9e9a55f39d13f49704ef842c29291391b8cf24837f5d0fe900",
        licence="BSD-3-Clause",
        source="DHI mikeio",
        read=read_dfsu,
    ),
    "datasiftml/cylinder_frame_5000": PublicFile(
        url="https://github.com/at-aaims/DataSiftML/raw/"
        "0f8075b4b66dfa768276d8413879e37be67175b1/VTK/data_5000.vtk",
        digest="sha256:91b44f264f54336cecd2a98d8c5e3a33f77a399f044f3da092f493a00ab92f94",
        licence="MIT",
        source="DataSiftML",
        read=read_mesh,
    ),
    "pdebench/advection_beta0.1": _pdebench(
        "1D_Advection_Sols_beta0.1.hdf5", 255672, "b4be2fc3383f737c76033073e6d2ccfb"
    ),
    "pdebench/advection_beta1.0": _pdebench(
        "1D_Advection_Sols_beta1.0.hdf5", 255675, "1fe41923a4123db55bf4e89bea32e142"
    ),
    "pdebench/burgers_nu0.001": _pdebench(
        "1D_Burgers_Sols_Nu0.001.hdf5", 268190, "44cb784d5a07aa2b1c864cabdcf625f9"
    ),
    "pdebench/burgers_nu0.01": _pdebench(
        "1D_Burgers_Sols_Nu0.01.hdf5", 281363, "e6d9a4f62baf9a29121a816b919e2770"
    ),
    "pdebench/burgers_nu0.1": _pdebench(
        "1D_Burgers_Sols_Nu0.1.hdf5", 268185, "660ba1008d3843bf4e28d2895eb607ce"
    ),
    "pdebench/diffusion_sorption": _pdebench(
        "1D_diff-sorp_NA_NA.h5", 133020, "9d466d1213065619d087319e16d9a938"
    ),
    "pdebench/diffusion_reaction_2d": _pdebench(
        "2D_diff-react_NA_NA.h5", 133017, "b8d0b86064193195ddc30c33be5dc949"
    ),
    "pdebench/darcy_beta0.01": _pdebench(
        "2D_DarcyFlow_beta0.01_Train.hdf5", 133217, "d05c287d4c0b7d3178b0097084238251"
    ),
    "pdebench/darcy_beta1.0": _pdebench(
        "2D_DarcyFlow_beta1.0_Train.hdf5", 133219, "81694ed31306ff2e5f6b76349b0b4389"
    ),
}
"""Public files by the name under which :func:`fetch` knows them."""
