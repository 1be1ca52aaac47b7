"""Sparse factorizations with the settings that suit each kind of matrix."""

from scipy.sparse import csr_matrix
from scipy.sparse.linalg import SuperLU, splu

from cst_operator.errors import SolverError

__all__ = ["factorize", "factorize_unsymmetric"]


def factorize(matrix: csr_matrix) -> SuperLU:
    """Factorization of a symmetric positive definite matrix.

    Raises:
        SolverError: if the matrix is singular.
    """
    try:
        return splu(
            matrix.tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
    except RuntimeError as error:
        raise SolverError(f"the matrix of {matrix.shape[0]} unknowns is singular") from error


def factorize_unsymmetric(matrix: csr_matrix) -> SuperLU:
    """Factorization of a matrix with symmetric pattern and a dominant symmetric part.

    Pivots leave the diagonal only where it is a thousand times smaller than its column.

    Raises:
        SolverError: if the matrix is singular.
    """
    try:
        return splu(
            matrix.tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=1e-3,
            options={"SymmetricMode": True},
        )
    except RuntimeError as error:
        raise SolverError(f"the matrix of {matrix.shape[0]} unknowns is singular") from error
