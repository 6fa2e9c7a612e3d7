"""Optimal transport between two clouds of voxels, by Sinkhorn's iteration, never storing the plan.

In log space, so that a small ε cannot underflow; every product of voxels with voxels is made in
blocks of rows and forgotten. Cuturi, NeurIPS 2013; Peyré & Cuturi, Computational Optimal Transport,
2019, §4.4.

What makes a small ε affordable: both potentials are renewed in one sweep over the blocks; ε is
halved step by step down to the one asked for; the updates are over-relaxed (Lehmann, von Renesse,
Sambale & Uschmajew, Optimization Letters 2022); and the sweeps run in float32 until its rounding
would show. The last ones, and all that is kept of the plan, are float64.

Written here although `ott-jax` exists: its blockwise geometry (0.6.0, the newest) calls a function
that jax 0.10 no longer has, its other geometries store the n × m cost, and importing it warns.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jaxfer.metrics.sums import product

FIRST_EPSILON = 0.5
"""Where ε starts, in the cost's unit, unless the one asked for is larger."""
STAGE_ERROR = 0.05
STAGE_SWEEPS = 8
"""A stage of an ε that is not the last ends at this marginal error, or after so many sweeps."""
LARGEST_RELAXATION = 1.9
ROUNDING = 8 * float(np.finfo(np.float32).eps)
"""Over ε: the marginal error below which sweeps in float32 are not trusted."""
SMALLEST_SHARE = 1e-30
"""A source voxel that receives less of its mass than this is treated as if it received this."""


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


class _Problem(NamedTuple):
    """The part of a cost that pairs its sides, and both masses, in one precision.

    The targets are cut into blocks, filled up with targets that carry no mass. The cost's offsets
    are left to the potentials: P_ij = a_i b_j exp((f_i + g_j − ⟨rows_i, columns_j⟩) / ε).
    """

    rows: Float[Array, "n k"]
    columns: Float[Array, "blocks b k"]
    a: Float[Array, " n"]
    b: Float[Array, "blocks b"]

    def cast(self, dtype: type) -> _Problem:
        """The problem in another precision."""
        return jax.tree.map(lambda x: x.astype(dtype), self)


class _Sweep(NamedTuple):
    """What one sweep over the targets finds.

    Attributes:
        g: potentials of the targets, moved.
        received: mass of each source in the plan whose targets are right.
        relaxed: mass of each source under `g`.
        sent: mass that each target gets from each source class; none unless asked for.
        log_affinity: Σ_i P_ij ⟨rows_i, columns_j⟩ / −ε of each target; 0 unless asked for.
    """

    g: Float[Array, "blocks b"]
    received: Float[Array, " n"]
    relaxed: Float[Array, " n"]
    sent: Float[Array, "blocks b s"]
    log_affinity: Float[Array, "blocks b"]


class _State(NamedTuple):
    """Where the iteration stands.

    Attributes:
        done: sweeps.
        in_stage: sweeps with this ε.
        epsilon: the present one.
        f: potentials of the sources.
        g: potentials of the targets.
        relaxation: ω; 1 is Sinkhorn's own step.
        cap: the largest ω that has not been seen to fail.
        error: marginal error of the last sweep's plan.
        table: of that plan.
        cost: of that plan.
    """

    done: Int[Array, ""]
    in_stage: Int[Array, ""]
    epsilon: Float[Array, ""]
    f: Float[Array, " n"]
    g: Float[Array, "blocks b"]
    relaxation: Float[Array, ""]
    cap: Float[Array, ""]
    error: Float[Array, ""]
    table: Float[Array, "s c"]
    cost: Float[Array, ""]


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

    Memory O((n + m) k + block_size · n), time O(n m k) per iteration.

    Args:
        cost: of pairs; finite, its mean near 1.
        source_classes: one-hot rows; a row of 0 carries no mass.
        target_classes: likewise.
        epsilon: in the cost's unit, above 0.
        max_iterations: at which to give up.
        threshold: of the marginal error, at which to stop.
        block_size: targets whose costs exist at a time, static.
    """
    a, b = (_uniform(classes.sum(1)) for classes in (source_classes, target_classes))
    width = max(min(block_size, len(b)), 1)
    missing = -len(b) % width
    of_blocks = (-(-len(b) // width), width)
    problem = _Problem(
        cost.rows,
        jnp.pad(cost.columns, ((0, missing), (0, 0))).reshape(*of_blocks, cost.columns.shape[1]),
        a,
        jnp.pad(b, (0, missing)).reshape(of_blocks),
    )
    wanted = jnp.asarray(epsilon, jnp.float64)

    def improve(state: _State, problem: _Problem, *, keep: bool) -> _State:
        dtype = problem.a.dtype
        now, omega = state.epsilon, state.relaxation.astype(dtype)
        found = _sweep(
            problem, state.f, state.g, now.astype(dtype), omega, source_classes if keep else None
        )
        error = jnp.abs(found.received - problem.a).sum().astype(jnp.float64)
        share = jnp.maximum(found.relaxed, SMALLEST_SHARE) / jnp.where(problem.a > 0, problem.a, 1)
        step = jnp.where(problem.a > 0, jnp.log(jnp.maximum(share, SMALLEST_SHARE)), 0)
        over = (now > wanted) & ((error <= STAGE_ERROR) | (state.in_stage + 1 >= STAGE_SWEEPS))
        relaxation, cap = _relaxation(state, error)
        state = state._replace(
            done=state.done + 1,
            in_stage=jnp.where(over, 0, state.in_stage + 1),
            epsilon=jnp.where(over, jnp.maximum(now / 2, wanted), now),
            f=state.f - omega * now.astype(dtype) * step,
            g=found.g,
            relaxation=jnp.where(over, 1.0, relaxation),
            cap=cap,
            error=jnp.where(over, jnp.inf, error),
        )
        if not keep:
            return state
        sent = found.sent.reshape(of_blocks[0] * width, -1)[: len(b)]
        outside = (found.received * cost.row_offsets).sum() + (b * cost.column_offsets).sum()
        return state._replace(
            table=product(sent.T, target_classes),
            cost=jnp.maximum(outside - now * found.log_affinity.sum(), 0),
        )

    def unfinished(state: _State, goal: Float[Array, ""]) -> Bool[Array, ""]:
        waiting = (state.error > goal) | (state.epsilon > wanted)
        return (state.done < max_iterations) & waiting

    one, never = jnp.ones((), jnp.float64), jnp.full((), jnp.inf, jnp.float64)
    narrow = problem.cast(jnp.float32)
    start = _State(
        done=jnp.zeros((), jnp.int32),
        in_stage=jnp.zeros((), jnp.int32),
        epsilon=jnp.maximum(wanted, FIRST_EPSILON),
        f=-cost.row_offsets.astype(jnp.float32),
        g=jnp.zeros(of_blocks, jnp.float32),
        relaxation=one,
        cap=LARGEST_RELAXATION * one,
        error=never,
        table=jnp.zeros((source_classes.shape[1], target_classes.shape[1]), jnp.float64),
        cost=jnp.zeros((), jnp.float64),
    )
    near = jnp.maximum(threshold, ROUNDING / wanted)
    rough = jax.lax.while_loop(
        # One sweep is left to float64, which judges.
        lambda state: unfinished(state, near) & (state.done < max_iterations - 1),
        lambda state: improve(state, narrow, keep=False),
        start,
    )
    end = jax.lax.while_loop(
        lambda state: unfinished(state, jnp.asarray(threshold, jnp.float64)),
        lambda state: improve(state, problem, keep=True),
        rough._replace(f=rough.f.astype(jnp.float64), g=rough.g.astype(jnp.float64), error=never),
    )
    return Transport(
        table=end.table,
        cost=end.cost,
        iterations=end.done,
        marginal_error=end.error,
        converged=end.error <= threshold,
    )


def _sweep(
    problem: _Problem,
    f: Float[Array, " n"],
    g: Float[Array, "blocks b"],
    epsilon: Float[Array, ""],
    relaxation: Float[Array, ""],
    source_classes: Float[Array, "n s"] | None,
) -> _Sweep:
    """Move the targets' potentials block by block, and what that leaves the sources to correct.

    A target's potential does not depend on the other targets', so the masses of the sources under
    the moved potentials are summed in the same sweep: half of the work of two half-steps.
    """
    rows = -problem.rows / epsilon
    there = problem.a > 0
    log_mass = jnp.where(there, f / epsilon + jnp.log(jnp.where(there, problem.a, 1)), 0)

    def of_block(
        totals: Float[Array, "2 n"],
        block: tuple[Float[Array, "b k"], Float[Array, " b"], Float[Array, " b"]],
    ) -> tuple[Float[Array, "2 n"], tuple[Array, Array, Array]]:
        columns, b, before = block
        affinity = product(columns, rows.T)
        logits = jnp.where(there[None, :], affinity + log_mass[None, :], -jnp.inf)
        largest = logits.max(1)
        largest = jnp.where(jnp.isfinite(largest), largest, 0)
        weights = jnp.exp(logits - largest[:, None])
        total = weights.sum(1)
        shift = largest + jnp.log(jnp.where(total > 0, total, 1))
        right = -epsilon * shift
        moved = before + relaxation * (right - before)
        exact = b / jnp.where(total > 0, total, 1)
        relaxed = exact * jnp.exp((moved - right) / epsilon)
        totals = totals + product(jnp.stack([exact, relaxed]), weights)
        if source_classes is None:
            nothing = jnp.zeros((len(b), 0), weights.dtype)
            return totals, (moved, nothing, jnp.zeros_like(b))
        sent = exact[:, None] * product(weights, source_classes)
        return totals, (moved, sent, exact * (weights * affinity).sum(1))

    nowhere = jnp.zeros((2, len(f)), f.dtype)
    totals, (g, sent, log_affinity) = jax.lax.scan(
        of_block, nowhere, (problem.columns, problem.b, g)
    )
    return _Sweep(g, totals[0], totals[1], sent, log_affinity)


def _relaxation(
    state: _State, error: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """ω for the next sweep, and its cap.

    With relaxation ω an error that shrinks by λ > ω − 1 a sweep belongs to an eigenvalue η =
    (λ + ω − 1)²/(λω²) of Sinkhorn's own step, for which 2/(1 + √(1 − η)) is best (Young's theory of
    successive over-relaxation). An error that grows lowers the cap: in the end the step is
    Sinkhorn's own, which always converges.
    """
    omega = state.relaxation
    settled = state.in_stage >= 2
    ratio = error / jnp.where(jnp.isfinite(state.error), state.error, jnp.inf)
    grew = settled & (ratio >= 1)
    cap = jnp.where(grew, jnp.maximum(state.cap - 0.02, 1), state.cap)
    known = settled & (ratio > omega - 1) & (ratio < 1)
    rate = jnp.where(known, ratio, 1)
    slowest = jnp.minimum((rate + omega - 1) ** 2 / (rate * omega**2), 1)
    best = jnp.where(known, 2 / (1 + jnp.sqrt(1 - slowest)), 1)
    return jnp.minimum(jnp.where(grew, omega - 0.1, jnp.maximum(omega, best)), cap), cap


def _uniform(present: Float[Array, " n"]) -> Float[Array, " n"]:
    """Equal masses that sum to 1; 0 for all when nothing is present."""
    return present / jnp.maximum(present.sum(), 1)
