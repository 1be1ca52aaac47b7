import json
import pickle
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from cst_operator.datasets import TrajectoryDataset, generate, read_manifest
from cst_operator.datasets import generation as generation_module
from cst_operator.datasets._workers import map_unordered
from cst_operator.datasets.generation import describe
from cst_operator.datasets.store import read_attributes
from cst_operator.errors import InputError, MeshError, SolverError
from cst_operator.fields import PointField, Trajectory
from cst_operator.solvers import (
    CheckedStep,
    FixedStep,
    GaussianField,
    Geometry,
    Heat,
    KortewegDeVries,
    NavierStokes,
    Poisson,
    System,
    Wakes,
    disk,
    rectangle,
)

_COARSE = Poisson(h=0.1)


@dataclass(frozen=True)
class Ramp:
    """A user's own system: u = slope x on a line; every ``fails``-th sample fails."""

    points: int = 5
    fails: int = 0
    name: str = "ramp"
    version: str = "1"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        if self.fails and index % self.fails == self.fails - 1:
            raise SolverError(f"sample {index} of seed {seed} diverged")
        slope = np.random.default_rng([seed, index]).normal()
        x = torch.linspace(0, 1, self.points * 2**refine, dtype=torch.float64)[:, None]
        return Trajectory(
            mesh=PointField(x), times=torch.zeros(1), u=slope * x[None], channels=("u",)
        )


def test_a_system_of_the_user_needs_a_name_a_version_and_sample(tmp_path):
    assert isinstance(Ramp(), System)
    dataset = generate(Ramp(), 4, out=tmp_path / "ramps", progress=False)
    assert len(dataset) == 4
    assert torch.equal(dataset[2].u, Ramp().sample(0, 2).u)


def test_generated_samples_are_those_of_the_system(tmp_path):
    dataset = generate(_COARSE, 3, seed=4, out=tmp_path, refine=1, progress=False)
    expected = _COARSE.sample(4, 1, refine=1)
    assert torch.equal(dataset[1].u, expected.u)
    assert torch.equal(dataset[1].gradient, expected.gradient)
    assert dataset[1].parameters == expected.parameters


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    one = generate(Heat(h=0.15, num_frames=3), 4, out=tmp_path / "1", progress=False)
    two = generate(Heat(h=0.15, num_frames=3), 4, out=tmp_path / "2", workers=2, progress=False)
    assert one.manifest == two.manifest
    one.verify()
    for shard in one.manifest["shards"]:
        name = shard["file"]
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_a_failed_sample_is_recorded_and_the_others_are_made(tmp_path):
    dataset = generate(Ramp(fails=3), 7, seed=5, out=tmp_path, progress=False)
    manifest = read_manifest(tmp_path)
    assert dataset.indices == (0, 1, 3, 4, 6)
    assert manifest["failures"] == [
        {"index": i, "seed": 5, "reason": f"sample {i} of seed 5 diverged"} for i in (2, 5)
    ]
    # 5 samples at the first draw, 2 given up after 3
    assert manifest["draws"] == 11
    assert manifest["rejection_rate"] == pytest.approx(6 / 11)


@dataclass(frozen=True)
class _Gap:
    """Two holes, of which some nearly touch."""

    def sample(self, rng: np.random.Generator) -> Geometry:
        gap = rng.choice([1e-4, 0.2])
        holes = [disk(0.15, (0.5 + side * (0.15 + gap / 2), 0.5)).loops[0] for side in (-1, 1)]
        return rectangle(holes=holes)


@pytest.mark.parametrize(
    "system, reason",
    [
        (Poisson(h=0.1, domain=_Gap()), " could not be meshed in 3 attempts: .* use a smaller h"),
        (NavierStokes(h=0.2, near=0.01, viscosity=(1e-4, 0.1)), ": the flow did not converge"),
        (
            Wakes(h=0.2, near=(), viscosity=(1e-6, 0.01), dt=0.1, final_time=10.0, num_frames=2),
            ": the flow diverges: after",
        ),
        (
            KortewegDeVries(final_time=2.0, num_frames=3, step=CheckedStep(dt=0.1, max_halvings=3)),
            ": with steps of 0.0125, the estimated error .* above the tolerance",
        ),
        (
            KortewegDeVries(num_points=64, final_time=2.0, num_frames=3, step=FixedStep(0.1)),
            " is not resolved by 64 points",
        ),
    ],
    ids=["mesh", "Newton", "divergence", "time step", "resolution"],
)
def test_what_solvers_refuse_is_recorded_with_its_seed_and_the_others_are_made(
    tmp_path, system, reason
):
    dataset = generate(system, 8, seed=5, out=tmp_path, progress=False)
    failures = read_manifest(tmp_path)["failures"]
    refused = [failure["index"] for failure in failures]
    assert refused and len(dataset)
    assert sorted([*refused, *dataset.indices]) == list(range(8))
    for failure in failures:
        assert failure["seed"] == 5
        assert re.match(f"sample {failure['index']} of seed 5{reason}", failure["reason"])
    dataset.verify()


@dataclass(frozen=True)
class Breaking(Ramp):
    """Raises what it is given at sample 1."""

    error: type[Exception] = SolverError
    name: str = "breaking"

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        if index == 1:
            raise self.error("the problem")
        return super().sample(seed, index, refine=refine)


@pytest.mark.parametrize(
    "error",
    [MeshError, ZeroDivisionError, FloatingPointError, np.linalg.LinAlgError,
     torch.linalg.LinAlgError],
)  # fmt: skip
def test_a_sample_without_a_solution_does_not_end_the_generation(tmp_path, error):
    data = generate(Breaking(error=error), 3, out=tmp_path, progress=False)
    assert data.indices == (0, 2)
    (failure,) = data.manifest["failures"]
    named = "" if error is MeshError else f"{error.__name__}: "
    assert failure == {"index": 1, "seed": 0, "reason": f"{named}the problem"}


def test_a_mistake_in_a_system_ends_the_generation_and_names_the_sample(tmp_path):
    with pytest.raises(TypeError, match="the problem") as caught:
        generate(Breaking(error=TypeError), 3, seed=7, out=tmp_path, progress=False)
    assert caught.value.__notes__ == ["this was sample 1 of seed 7"]


def test_workers_that_all_die_are_told_of_what_a_script_needs():
    class Dying:
        def attempt(self, function, items):
            return iter(())

    with pytest.raises(SolverError, match="none of the 3 .*under if __name__ == '__main__':"):
        list(map_unordered(abs, [4, 5, 6], Dying()))


def test_a_set_without_any_solution_is_an_error(tmp_path):
    with pytest.raises(InputError, match="the first failure was: sample 0 of seed 0 diverged"):
        generate(Ramp(fails=1), 2, out=tmp_path, progress=False)


class _Stop(Exception):
    pass


def _stopping(monkeypatch, after):
    """Break off at the given number of written files, as a kill would."""
    write, made = generation_module.write_trajectory, []

    def counted(path, *args, **kwargs):
        if len(made) == after:
            raise _Stop
        made.append(path.name)
        write(path, *args, **kwargs)

    monkeypatch.setattr(generation_module, "write_trajectory", counted)
    return made


@pytest.mark.parametrize("listed", [True, False])
def test_an_interrupted_run_makes_only_what_is_missing(tmp_path, monkeypatch, listed):
    whole = generate(_COARSE, 5, out=tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        _stopping(patch, 2)
        if not listed:  # a kill also keeps the manifest from being written at the end
            patch.setattr(generation_module, "_entry", None)
        with pytest.raises(_Stop if listed else TypeError):
            generate(_COARSE, 5, out=tmp_path / "part", progress=False)
    with pytest.raises(InputError, match="interrupted; run it again"):
        TrajectoryDataset(tmp_path / "part")
    (tmp_path / "part" / ".000003.h5.0123.tmp").write_text("of a killed worker")
    with monkeypatch.context() as patch:
        made = _stopping(patch, 99)
        part = generate(_COARSE, 5, out=tmp_path / "part", progress=False)
    assert made == [f"{i:06d}.h5" for i in range(2 if listed else 1, 5)]
    assert part.manifest == whole.manifest
    assert not list((tmp_path / "part").glob(".*"))


def test_missing_and_damaged_files_are_made_again_and_more_can_be_added(tmp_path, monkeypatch):
    before = generate(Ramp(), 4, out=tmp_path, progress=False)
    (tmp_path / "000001.h5").unlink()
    with pytest.raises(InputError, match="000001.h5 is missing"):
        before.verify()
    changed = bytearray((tmp_path / "000002.h5").read_bytes())
    changed[-1] ^= 1
    (tmp_path / "000002.h5").write_bytes(changed)
    with pytest.raises(InputError, match="000002.h5 was changed"):
        before[2:].verify()
    made = _stopping(monkeypatch, 99)
    after = generate(Ramp(), 6, out=tmp_path, progress=False)
    assert made == ["000001.h5", "000002.h5", "000004.h5", "000005.h5"]
    assert after.manifest["shards"][:4] == before.manifest["shards"]
    after.verify()


@pytest.mark.parametrize(
    "system, options, words",
    [
        (Ramp(points=6), {}, r"config.points \(5, asked for 6\)"),
        (replace(Ramp(), version="2"), {}, "another version"),
        (replace(Ramp(), name="slope"), {}, "another system"),
        (Ramp(), {"seed": 1}, r"another seed \(0, asked for 1\)"),
        (Ramp(), {"refine": 1}, "another refine"),
        (Ramp(), {"dtype": "float32"}, "another dtype"),
        (Ramp(), {"licence": "CC0-1.0"}, r"another licence \(None, asked for 'CC0-1.0'\)"),
    ],
)
def test_a_folder_with_another_set_is_refused(tmp_path, system, options, words):
    generate(Ramp(), 2, out=tmp_path, progress=False)
    with pytest.raises(InputError, match=words):
        generate(system, 2, out=tmp_path, progress=False, **options)


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="not empty"):
        generate(Ramp(), 2, out=tmp_path, progress=False)
    with pytest.raises(InputError, match="is a file"):
        generate(Ramp(), 2, out=tmp_path / "thesis.tex", progress=False)
    generate(Ramp(), 3, out=tmp_path / "ramps", progress=False)
    with pytest.raises(InputError, match="take the first 2"):
        generate(Ramp(), 2, out=tmp_path / "ramps", progress=False)
    for numbers in ({"n": 0}, {"n": 1, "workers": 0}, {"n": 1, "refine": -1}, {"n": 1, "seed": -1}):
        with pytest.raises(InputError, match="expected at least"):
            generate(Ramp(), out=tmp_path / "new", **numbers)
    with pytest.raises(InputError, match="dtype is 'float16'; expected 'float64' or 'float32'"):
        generate(Ramp(), 1, out=tmp_path / "new", dtype="float16")
    assert not (tmp_path / "new").exists()  # so that the right call finds no other set there


def test_single_precision_is_a_choice(tmp_path):
    dataset = generate(Ramp(), 1, out=tmp_path, dtype="float32", progress=False)
    assert dataset[0].u.dtype == torch.float32


def test_the_licence_is_written_to_every_file(tmp_path):
    dataset = generate(Ramp(), 2, out=tmp_path, licence="CC-BY-4.0", progress=False)
    assert dataset.manifest["licence"] == "CC-BY-4.0"
    for shard in dataset.manifest["shards"]:
        assert read_attributes(tmp_path / shard["file"])["licence"] == "CC-BY-4.0"
    with pytest.raises(InputError, match=r"another licence \('CC-BY-4.0', asked for None\)"):
        generate(Ramp(), 2, out=tmp_path, progress=False)


def test_a_data_set_is_a_sequence_that_slices_and_splits(tmp_path):
    dataset = generate(Ramp(), 6, out=tmp_path, progress=False)
    train, test = dataset.split(4, 1)
    assert train.indices == (0, 1, 2, 3) and test.indices == (4,)
    assert dataset[::2].indices == (0, 2, 4)
    assert torch.equal(dataset[-1].u, Ramp().sample(0, 5).u)
    assert len(list(train)) == 4
    assert pickle.loads(pickle.dumps(test)).indices == (4,)  # loaders send it to workers
    with pytest.raises(IndexError):
        dataset[6]
    with pytest.raises(InputError, match="add up to 7"):
        dataset.split(5, 2)


def test_a_folder_without_a_sound_manifest_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no manifest.json"):
        TrajectoryDataset(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        TrajectoryDataset(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "other", "format_version": 1}')
    with pytest.raises(InputError, match="format other"):
        TrajectoryDataset(tmp_path)


def test_a_description_is_json_and_tells_configurations_apart():
    text = json.dumps(describe(Poisson()), sort_keys=True)
    assert text == json.dumps(describe(Poisson()), sort_keys=True)
    other = Poisson(f=GaussianField(length_scale=0.31, mean_std=1.0))
    assert text != json.dumps(describe(other), sort_keys=True)
    geometry = describe({"domain": rectangle(), "f": describe, "array": torch.ones(2)})
    assert geometry["domain"]["loops"][0].startswith("array [4, 2] sha256")
    assert geometry["f"] == "cst_operator.datasets.generation.describe"


def test_the_progress_bar_goes_to_stderr_with_rate_and_time_left(tmp_path, capsys):
    generate(Ramp(), 2, out=tmp_path)
    captured = capsys.readouterr()
    assert captured.out == "" and "generate ramp" in captured.err and "2/2" in captured.err
    assert re.search(
        r"2/2 [\d.e+]+/s \d:\d\d:\d\d \d:\d\d:\d\d", captured.err
    )  # rate, time, time left
