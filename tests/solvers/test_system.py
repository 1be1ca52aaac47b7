import sys
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from cst_operator.errors import SolverError
from cst_operator.solvers import (
    SYSTEMS,
    Constant,
    FixedDomain,
    Heat,
    Poisson,
    RandomDomain,
    Wave,
    disk,
)


@dataclass
class _Unlucky:
    """Fails a number of times before it draws a geometry."""

    failures: int
    calls: list[float] = field(default_factory=list)

    def sample(self, rng: np.random.Generator):
        self.calls.append(rng.random())
        if len(self.calls) <= self.failures:
            raise SolverError("out of luck")
        return RandomDomain(num_holes=(1, 1)).sample(rng)


def test_a_rejected_draw_is_repeated_with_other_numbers_and_recorded():
    domain = _Unlucky(2)
    sample = Poisson(domain=domain).sample(0, 4)
    assert sample.parameters["attempts"] == 3
    assert len(set(domain.calls)) == 3


def test_refinement_keeps_the_attempt():
    coarse, fine = (Poisson(domain=_Unlucky(1)).sample(0, 4, refine=r) for r in (0, 1))
    assert coarse.parameters["attempts"] == fine.parameters["attempts"] == 2
    assert coarse.parameters["area"] == fine.parameters["area"]


def test_three_rejected_draws_are_an_error_that_names_seed_and_index():
    with pytest.raises(SolverError, match="sample 4 of seed 9 .* 3 attempts: out of luck"):
        Poisson(domain=_Unlucky(3)).sample(9, 4)


@pytest.mark.parametrize("make", [Poisson, Heat, Wave])
def test_a_solution_that_is_not_finite_is_an_error_that_names_seed_and_index(make):
    system = make(h=0.15, a=Constant(1e-300), f=Constant(1e300))
    with pytest.raises(SolverError, match="sample 4 of seed 9: the solution is not finite"):
        system.sample(9, 4)


@pytest.mark.parametrize("make", [Poisson, Heat, Wave])
def test_a_matrix_that_is_singular_is_an_error_that_names_seed_and_index(make, monkeypatch):
    def singular(matrix):
        raise SolverError("the matrix is singular")

    monkeypatch.setattr(sys.modules[make.__module__], "factorize", singular)
    with pytest.raises(SolverError, match="sample 4 of seed 9: the matrix is singular"):
        make(h=0.15).sample(9, 4)


def test_a_fixed_domain_has_other_coefficients_and_meshes_each_time():
    system = Poisson(domain=FixedDomain(disk(0.5)), h=0.1)
    one, two = system.sample(0, 0), system.sample(0, 1)
    assert one.parameters["area"] == two.parameters["area"]
    assert not torch.equal(one.mesh.pos[-5:], two.mesh.pos[-5:])


def test_registered_systems_go_by_their_own_name():
    assert {"poisson", "darcy", "heat"} <= set(SYSTEMS)
    assert all(system.name == name for name, system in SYSTEMS.items())
