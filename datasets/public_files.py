"""Public data sets by name: where each file is, what it must hold, and which reader reads it.

Every entry has a fixed address and digest. Digests of PDEBench are the MD5 sums that its authors
publish with the addresses (pdebench_data_urls.csv); the others are SHA-256. For the files inside of
the archives of neuraloperator's records at Zenodo, whose versions never change, and for those of
FNO and Geo-FNO, whose authors publish none, they are those that projects which use the files have
published. The Well has a client of its own (``the-well-download`` of the package ``the_well``),
whose files :func:`~cst_operator.datasets.readers.the_well.read_the_well` reads.
"""

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from cst_operator.datasets.readers import (
    read_comsol,
    read_dfsu,
    read_geo_fno,
    read_mat,
    read_neuraloperator,
    read_pdebench,
)
from cst_operator.errors import InputError
from cst_operator.mesh_files import read_mesh

__all__ = ["PUBLIC", "PublicFile"]


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
        beside: other files that its reader takes after it.
    """

    url: str
    digest: str
    licence: str
    source: str
    read: Callable[..., Any]
    file: str = ""
    archived: bool = False
    beside: tuple["PublicFile", ...] = ()

    @property
    def name(self) -> str:
        """Name of the file in the cache."""
        return self.file or self.url.rpartition("/")[2]


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


def _drive(
    file: str,
    number: str,
    digest: str,
    source: str,
    read: Callable[..., Any],
    beside: tuple[PublicFile, ...] = (),
) -> PublicFile:
    return PublicFile(
        url=f"https://drive.usercontent.google.com/download?id={number}&export=download&confirm=t",
        digest=f"sha256:{digest}",
        licence="not stated by its authors",
        source=source,
        read=read,
        file=file,
        beside=beside,
    )


def _fno(archive: str, number: str, digest: str, member: str) -> PublicFile:
    source = "Fourier neural operator (Li et al., arXiv:2010.08895)"
    return _drive(archive, number, digest, source, partial(_zipped, member))


def _darcy_421(member: str) -> PublicFile:
    return _fno(
        "Darcy_421.zip",
        "1Z1uxG9R8AdAGJprG5STcphysjm56_0Jf",
        "802825de9da7398407296c99ca9ceb2371c752f6a3bdd1801172e02ce19edda4",
        member,
    )


def _geo_fno(file: str, number: str, digest: str, *beside: PublicFile) -> PublicFile:
    source = "Geo-FNO (Li et al., arXiv:2207.05209)"
    return _drive(file, number, digest, source, read_geo_fno, beside)


def _zipped(member: str, archive: Path, **options: Any) -> Any:
    """What FNO's reader finds in a file of a zip archive, unpacked beside it at the first time."""
    path = archive.with_name(member)
    with zipfile.ZipFile(archive) as content:
        found = [i for i in content.infolist() if PurePosixPath(i.filename).name == member]
        if not found:
            raise InputError(f"{archive}: it holds no {member}")
        if not path.is_file() or path.stat().st_size != found[0].file_size:
            part = path.with_suffix(".part")
            with content.open(found[0]) as source, part.open("wb") as file:
                shutil.copyfileobj(source, file)
            os.replace(part, path)
    return read_mat(path, **options)


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
    "fno/burgers": _fno(
        "Burgers_R10.zip",
        "16a8od4vidbiNR3WtaBPCSZ0T3moxjhYe",
        "9cbbe5070556c777b1ba3bacd49da5c36ea8ed138ba51b6ee76a24b971066ecd",
        "burgers_data_R10.mat",
    ),
    "fno/darcy_train_421": _darcy_421("piececonst_r421_N1024_smooth1.mat"),
    "fno/darcy_test_421": _darcy_421("piececonst_r421_N1024_smooth2.mat"),
    "geo_fno/elasticity": _geo_fno(
        "Random_UnitCell_sigma_10.npy",
        "1Ia5izgUum-IQLdO6PW70HO8AdAqA_IVb",
        "eb8102b580001bab80ee99bfc33289f727491e1d8edab2a4a94abc37a348fa1a",
        _geo_fno(
            "Random_UnitCell_XY_10.npy",
            "1I-fO-RsFvD3nqBuFrg67R0yqTFdD_gpA",
            "29c615b7c8b0ef94252e4def4cd9999653b8759104619eb728b91a1cac5b665f",
        ),
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
"""Public files by the name under which :func:`~cst_operator.datasets.public.fetch` knows them."""
