"""Optimal transport between two clouds of voxels, by Sinkhorn's iteration, never storing the plan.

In log space, so that a small ε cannot underflow; every product of voxels with voxels is made in
blocks of rows and forgotten. Cuturi, NeurIPS 2013; Peyré & Cuturi, Computational Optimal Transport,
2019, §4.4.

Written here although `ott-jax` exists: its blockwise geometry (0.6.0, the newest) calls a function
that jax 0.10 no longer has, its other geometries store the n × m cost, and importing it warns.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from jaxfer.metrics.sums import product


class Cost(NamedTuple):
    """A cost between n sources and m targets as the sum of two offsets and a product of rank k.

    c_ij = row_offsets_i + column_offsets_j + ⟨rows_i, columns_j⟩
    """

    rows: Float[Array, "n k"]
    columns: Float[Array, "m k"]
    row_offsets: Float[Array, " n"]
    column_offsets: Float[Array, " m"]

    @staticmethod
    def squared_distance(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Cost:
        """‖x_i − y_j‖²; bring the clouds' common mean to 0 first, or digits are lost."""
        return Cost(-2 * x, y, (x**2).sum(1), (y**2).sum(1))

    def plus(self, other: Cost) -> Cost:
        """The sum of two costs."""
        return Cost(
            jnp.concatenate([self.rows, other.rows], 1),
            jnp.concatenate([self.columns, other.columns], 1),
            self.row_offsets + other.row_offsets,
            self.column_offsets + other.column_offsets,
        )

    def times(self, factor: Float[Array, ""]) -> Cost:
        """The cost in another unit."""
        return Cost(
            factor * self.rows,
            self.columns,
            factor * self.row_offsets,
            factor * self.column_offsets,
        )

    def mean(self, a: Float[Array, " n"], b: Float[Array, " m"]) -> Float[Array, ""]:
        """The mean over all pairs, weighted by both masses: the cost of the independent plan."""
        inner = (product(a[None, :], self.rows) * product(b[None, :], self.columns)).sum()
        return (a * self.row_offsets).sum() + (b * self.column_offsets).sum() + inner


class Transport(NamedTuple):
    """What is kept of a plan P.

    Attributes:
        table: mass that goes from source class s to target class c, Y_sᵀ P Y_t.
        cost: ⟨c, P⟩.
        iterations: updates of both potentials.
        marginal_error: Σ_i |P1 − a|_i, the share of mass in the wrong rows; columns are exact.
        converged: whether that is within the threshold.
    """

    table: Float[Array, "s c"]
    cost: Float[Array, ""]
    iterations: Int[Array, ""]
    marginal_error: Float[Array, ""]
    converged: Bool[Array, ""]


class _State(NamedTuple):
    done: Int[Array, ""]
    f: Float[Array, " n"]
    g: Float[Array, " m"]
    error: Float[Array, ""]


def transport(
    cost: Cost,
    source_classes: Float[Array, "n s"],
    target_classes: Float[Array, "m c"],
    *,
    epsilon: float | Array,
    max_iterations: int | Array,
    threshold: float | Array,
    block_size: int,
) -> Transport:
    """The plan that minimises ⟨c, P⟩ + ε · KL(P | a bᵀ) between uniform masses a and b.

    Memory O((n + m) k + block_size · max(n, m)), time O(n m k) per iteration.

    Args:
        cost: of pairs; finite.
        source_classes: one-hot rows; a row of 0 carries no mass.
        target_classes: likewise.
        epsilon: in the cost's unit, above 0.
        max_iterations: at which to give up.
        threshold: of the marginal error, at which to stop.
        block_size: rows whose costs exist at a time, static.
    """
    a, b = (_uniform(classes.sum(1)) for classes in (source_classes, target_classes))
    log_a, log_b = jnp.log(a), jnp.log(b)
    # In units of ε. The offsets move into the potentials: P_ij = a_i b_j exp(f_i + g_j + u_i·v_j).
    rows = -cost.rows / epsilon
    columns = cost.columns

    def to_rows(g: Float[Array, " m"]) -> Float[Array, " n"]:
        return _soft_minimum(rows, columns, g + log_b, block_size)

    def to_columns(f: Float[Array, " n"]) -> Float[Array, " m"]:
        return _soft_minimum(columns, rows, f + log_a, block_size)

    def improve(state: _State) -> _State:
        f = to_rows(state.g)
        # f was right for the last g but one: what exp(f_old − f) is off from 1 is the rows' error.
        error = (a * jnp.abs(jnp.expm1(state.f - f))).sum()
        return _State(state.done + 1, f, to_columns(f), error)

    def unfinished(state: _State) -> Bool[Array, ""]:
        return (state.done < max_iterations) & (state.error > threshold)

    f = -cost.row_offsets / epsilon
    start = _State(jnp.zeros((), jnp.int32), f, to_columns(f), jnp.full((), jnp.inf, f.dtype))
    end = jax.lax.while_loop(unfinished, improve, start)

    def of_row(
        row: tuple[Float[Array, " k"], Float[Array, ""], Float[Array, ""]],
    ) -> tuple[Float[Array, " c"], Float[Array, ""]]:
        u, log_mass, offset = row
        affinity = _dot(columns, u)
        mass = jnp.exp(affinity + (end.g + log_b) + log_mass)
        price = cost.column_offsets + offset - epsilon * affinity
        return _dot(target_classes.T, mass), (mass * price).sum()

    sent, paid = jax.lax.map(of_row, (rows, end.f + log_a, cost.row_offsets), batch_size=block_size)
    marginal_error = jnp.abs(sent.sum(1) - a).sum()
    return Transport(
        table=product(source_classes.T, sent),
        cost=jnp.maximum(paid.sum(), 0),
        iterations=end.done,
        marginal_error=marginal_error,
        converged=marginal_error <= threshold,
    )


def _uniform(present: Float[Array, " n"]) -> Float[Array, " n"]:
    """Equal masses that sum to 1; 0 for all when nothing is present."""
    return present / jnp.maximum(present.sum(), 1)


def _soft_minimum(
    rows: Float[Array, "n k"],
    columns: Float[Array, "m k"],
    potential: Float[Array, " m"],
    block_size: int,
) -> Float[Array, " n"]:
    """−log Σ_j exp(potential_j + ⟨rows_i, columns_j⟩) for each i."""

    def of_row(row: Float[Array, " k"]) -> Float[Array, ""]:
        return -jax.nn.logsumexp(potential + _dot(columns, row))

    return jax.lax.map(of_row, rows, batch_size=block_size)


def _dot(matrix: Float[Array, "m k"], vector: Float[Array, " k"]) -> Float[Array, " m"]:
    return jnp.matmul(matrix, vector, precision="highest")
