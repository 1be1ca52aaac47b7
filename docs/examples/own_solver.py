"""A data set made by somebody else's program: python own_solver.py."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cst_operator import Trajectory
from cst_operator.datasets import TrajectoryDataset, generate
from cst_operator.errors import MeshError, SolverError
from cst_operator.mesh_files import read_mesh

PROGRAM = Path(__file__).with_name("membrane.py")


@dataclass(frozen=True, kw_only=True)
class Membrane:
    """Deflections of a membrane under a load that is uniform in ``load``, at a random place."""

    edges: int = 16
    load: tuple[float, float] = (1.0, 10.0)
    timeout: float = 60.0
    name: str = "membrane"
    version: str = "1"  # change it when the same seed and index would give other numbers

    def sample(self, seed: int, index: int, *, refine: int = 0) -> Trajectory:
        """Write the program's input, run it, read its output."""
        rng = np.random.default_rng([seed, index])  # nothing else may decide about the sample
        load = float(rng.uniform(*self.load))
        centre = rng.uniform(0.2, 0.8, 2).tolist()
        case = {"edges": self.edges * 2**refine, "load": load, "centre": centre}
        with tempfile.TemporaryDirectory() as folder:
            given, result = Path(folder, "case.json"), Path(folder, "result.vtu")
            given.write_text(json.dumps(case))
            try:
                subprocess.run(
                    [sys.executable, str(PROGRAM), str(given), str(result)],
                    check=True,
                    capture_output=True,
                    text=True,
                    timeout=self.timeout,
                )
                field = read_mesh(result, ["u"], dtype=torch.float64)
            except subprocess.CalledProcessError as error:
                reason = error.stderr.strip()
                raise SolverError(f"sample {index} of seed {seed}: {reason}") from error
            except (subprocess.TimeoutExpired, MeshError) as error:
                raise SolverError(f"sample {index} of seed {seed}: {error}") from error
        distance = torch.linalg.vector_norm(field.pos - torch.tensor(centre), dim=1, keepdim=True)
        return Trajectory(
            mesh=field.with_values(distance, ["distance_load"]),  # what a model may read
            times=torch.zeros(1, dtype=torch.float64),
            u=field.u[None],
            channels=field.channels,
            parameters={"seed": seed, "index": index, "refine": refine, "load": load},
        )


def main(
    samples: int = 20, largest_load: float = 12.0, out: str = "data/membrane", workers: int = 2
) -> TrajectoryDataset:
    """Some of the membranes tear: they are in the manifest, not in the set."""
    system = Membrane(load=(1.0, largest_load))
    return generate(system, samples, out=out, workers=workers, progress=False)


if __name__ == "__main__":
    found = main()
    print(f"{len(found)} solutions, {len(found.manifest['failures'])} failures")
