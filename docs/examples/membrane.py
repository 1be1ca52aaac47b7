"""Stands for a program that is not ours: python membrane.py case.json result.vtu.

The case has the number of edges a side, the load and the place where it presses on a membrane over
the unit square; the result is the deflection on a mesh.
"""

import json
import sys

import meshio
import numpy as np


def main(case: str, result: str) -> None:
    """Read the case, solve, write the result."""
    with open(case) as file:
        wanted = json.load(file)
    n, load, centre = wanted["edges"], wanted["load"], wanted["centre"]
    if load > 10:
        sys.exit("the membrane tears")
    x, y = (axis.ravel() for axis in np.meshgrid(*[np.linspace(0, 1, n + 1)] * 2, indexing="ij"))
    u = np.zeros_like(x)
    for i in range(1, 9):  # the first waves of the Green's function
        for j in range(1, 9):
            size = 4 * np.sin(i * np.pi * centre[0]) * np.sin(j * np.pi * centre[1])
            u += size * np.sin(i * np.pi * x) * np.sin(j * np.pi * y) / (np.pi**2 * (i**2 + j**2))
    first = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).reshape(-1, 1)
    cells = first + np.array([0, n + 1, n + 2, 1])
    points = np.stack([x, y, np.zeros_like(x)], axis=1)
    meshio.Mesh(points, {"quad": cells}, point_data={"u": load * u}).write(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
