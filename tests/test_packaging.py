"""The package installs as ``cst_operator`` alone, from a wheel and in editable mode.

``solvers/`` and ``datasets/`` lie beside ``cst_operator/`` and install inside it: a top-level
module of either name would shadow other people's (``datasets`` is Hugging Face's).
"""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
MAPPED = SETUPTOOLS["package-dir"]

# What an installed package must answer from any folder but the repository's.
PROBE = """
import importlib.util, pathlib, site, sys
folder, ours = sys.argv[1:3]
# The environment of this test may hold an editable installation of its own: put it out of the way.
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
for name in [name for name in sys.modules if name.startswith("__editable__")]:
    del sys.modules[name]
sys.path.insert(0, folder)
site.addsitedir(folder)  # follows the .pth file of an editable installation
for name in ("datasets", "solvers"):
    found = importlib.util.find_spec(name)
    assert found is None or not str(found.origin).startswith(ours), found
import cst_operator.datasets, cst_operator.solvers, cst_operator.nn
for module in (cst_operator, cst_operator.datasets, cst_operator.solvers):
    place = str(pathlib.Path(module.__file__).resolve())
    assert place.startswith(ours), f"{module.__name__} comes from {place}"
"""


def run(code: str, *arguments: object, cwd: Path) -> str:
    """Run code in another interpreter that sees neither the repository nor our PYTHONPATH."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what goes into a build, so that building leaves nothing in the repository."""
    copy = tmp_path_factory.mktemp("sources")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("cst_operator", *MAPPED.values()):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def build(sources: Path, kind: str) -> Path:
    """Build a wheel with the hook that pip calls, and unpack it as an installation would."""
    out = sources / f"dist-{kind}"
    out.mkdir()
    code = "import sys, setuptools.build_meta as hooks; getattr(hooks, sys.argv[1])(sys.argv[2])"
    run(code, f"build_{kind}", out, cwd=sources)
    (archive,) = out.glob("*.whl")
    unpacked = out / "site"
    with zipfile.ZipFile(archive) as wheel:
        wheel.extractall(unpacked)
    return unpacked


def test_every_mapped_folder_is_the_target_of_its_link() -> None:
    for package, folder in MAPPED.items():
        link = ROOT / package.replace(".", "/")
        assert link.is_symlink()
        assert not Path(os.readlink(link)).is_absolute()
        assert link.resolve() == (ROOT / folder).resolve()


def test_every_package_is_listed() -> None:
    found = set()
    for top, name in ((ROOT / "cst_operator", "cst_operator"),) + tuple(
        (ROOT / folder, package) for package, folder in MAPPED.items()
    ):
        for init in top.rglob("__init__.py"):  # does not follow links
            found.add(".".join((name, *init.parent.relative_to(top).parts)))
    assert found == set(SETUPTOOLS["packages"])


def test_wheel_installs_cst_operator_alone(sources: Path, tmp_path: Path) -> None:
    unpacked = build(sources, "wheel")
    names = {p.name for p in unpacked.iterdir() if not p.name.endswith(".dist-info")}
    assert names == {"cst_operator"}
    assert (unpacked / "cst_operator" / "py.typed").is_file()
    packed = {p.relative_to(unpacked) for p in unpacked.rglob("*.py")}
    listed = set()
    for package in SETUPTOOLS["packages"]:
        folder = ROOT / MAPPED.get(package, package.replace(".", "/"))
        listed |= {Path(package.replace(".", "/"), p.name) for p in folder.glob("*.py")}
    assert packed == listed
    run(PROBE, unpacked, unpacked, cwd=tmp_path)


def test_editable_installation_finds_cst_operator_alone(sources: Path, tmp_path: Path) -> None:
    run(PROBE, build(sources, "editable"), sources, cwd=tmp_path)


def test_other_folders_do_not_find_ours_in_this_environment(tmp_path: Path) -> None:
    code = """
import importlib.util, sys
for name in ("datasets", "solvers"):
    found = importlib.util.find_spec(name)
    assert found is None or not str(found.origin).startswith(sys.argv[1]), found
"""
    run(code, ROOT, cwd=tmp_path)


def test_constraints_pin_one_torch_for_cpu_and_gpu_machines() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(line.count("==") == 1 for line in pins)
    # A local version such as +cpu would exclude the builds for GPUs.
    assert [line for line in pins if line.startswith("torch==")] == ["torch==2.13.0"]
