"""Optimal transport between two clouds of voxels, by Sinkhorn's iteration, never storing the plan.

In log space, so that a small ε cannot underflow; every product of voxels with voxels is made in
blocks of rows and forgotten. Cuturi, NeurIPS 2013; Peyré & Cuturi, Computational Optimal Transport,
2019, §4.4.

What makes a small ε affordable: both potentials are renewed in one sweep over the blocks; ε is
halved step by step down to the one asked for; the updates are over-relaxed (Lehmann, von Renesse,
Sambale & Uschmajew, Optimization Letters 2022); and the sweeps run in float32 until its rounding
would show. The last ones, and all that is kept of the plan, are float64.

Between the two sides' updates whole classes are moved: factors for each source and each target
class, found by Sinkhorn's iteration on the small table of masses between classes, make the masses
of all classes right. Updates of single voxels would take thousands of sweeps for that where classes
lie far apart; and where little mass changes its class, a thousandth of mass in the wrong place is a
tenth of it. The table that is returned has had the same correction.

Written here although `ott-jax` exists: its blockwise geometry (0.6.0, the newest) calls a function
that jax 0.10 no longer has, its other geometries store the n × m cost, and importing it warns.
"""

from __future__ import annotations

from collections.abc import Callable
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
"""A source voxel that receives less of its mass than this is treated as if it received this; so is
a pair of classes."""
TABLE_ROUNDS = 64
"""Rounds on the table between classes, each sweep going on where the one before stopped."""


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
        table: mass that goes from source class s to target class c, Y_sᵀ P Y_t, brought to the
            classes' masses.
        cost: ⟨c, P⟩.
        iterations: updates of both potentials.
        marginal_error: Σ_i |P1 − a|_i, the share of mass in the wrong rows; columns are exact.
        converged: whether that is within the threshold.
        log_offers: of each source, up to a constant: whatever target y comes, it gets its mass from
            the sources in proportion to exp(log_offers_i − ⟨rows_i, column_y⟩ / ε); −∞ of a source
            without mass.
    """

    table: Float[Array, "s c"]
    cost: Float[Array, ""]
    iterations: Int[Array, ""]
    marginal_error: Float[Array, ""]
    converged: Bool[Array, ""]
    log_offers: Float[Array, " n"]


class _Problem(NamedTuple):
    """The part of a cost that pairs its sides, and both masses, in one precision.

    The targets are cut into blocks, filled up with targets that carry no mass. The cost's offsets
    are left to the potentials: P_ij = a_i b_j exp((f_i + g_j − ⟨rows_i, columns_j⟩) / ε).
    """

    rows: Float[Array, "n k"]
    columns: Float[Array, "blocks b k"]
    a: Float[Array, " n"]
    b: Float[Array, "blocks b"]
    source_classes: Float[Array, "n s"]
    target_classes: Float[Array, "blocks b c"]

    def cast(self, dtype: type) -> _Problem:
        """The problem in another precision."""
        return jax.tree.map(lambda x: x.astype(dtype), self)


class _Sweep(NamedTuple):
    """What one sweep over the targets finds.

    Attributes:
        g: potentials of the targets, moved.
        received: mass of each source in the plan whose targets are right.
        relaxed: mass that each source gets of each target class under `g`.
    """

    g: Float[Array, "blocks b"]
    received: Float[Array, " n"]
    relaxed: Float[Array, "n c"]


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
        judged: potentials of the sources in that plan.
    """

    done: Int[Array, ""]
    in_stage: Int[Array, ""]
    epsilon: Float[Array, ""]
    f: Float[Array, " n"]
    g: Float[Array, "blocks b"]
    relaxation: Float[Array, ""]
    cap: Float[Array, ""]
    error: Float[Array, ""]
    judged: Float[Array, " n"]


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

    def in_blocks(of_targets: Float[Array, "m k"]) -> Float[Array, "blocks b k"]:
        return jnp.pad(of_targets, ((0, missing), (0, 0))).reshape(*of_blocks, -1)

    problem = _Problem(
        rows=cost.rows,
        columns=in_blocks(cost.columns),
        a=a,
        b=in_blocks(b[:, None])[..., 0],
        source_classes=source_classes,
        target_classes=in_blocks(target_classes),
    )
    margins = product(a[None, :], source_classes)[0], product(b[None, :], target_classes)[0]
    wanted = jnp.asarray(epsilon, jnp.float64)

    def improve(state: _State, problem: _Problem) -> _State:
        dtype = problem.a.dtype
        now, omega = state.epsilon, state.relaxation.astype(dtype)
        found = _sweep(problem, state.f, state.g, now.astype(dtype), omega)
        error = jnp.abs(found.received - problem.a).sum().astype(jnp.float64)
        table = product(problem.source_classes.T, found.relaxed).astype(jnp.float64)
        rows, columns = _balancing(table, *margins)
        rows, columns = rows.astype(dtype), columns.astype(dtype)
        class_shift = product(problem.source_classes, rows[:, None])[:, 0]
        relaxed = product(found.relaxed, jnp.exp(columns)[:, None])[:, 0] * jnp.exp(class_shift)
        share = jnp.maximum(relaxed, SMALLEST_SHARE) / jnp.where(problem.a > 0, problem.a, 1)
        step = jnp.where(problem.a > 0, jnp.log(jnp.maximum(share, SMALLEST_SHARE)), 0)
        over = (now > wanted) & ((error <= STAGE_ERROR) | (state.in_stage + 1 >= STAGE_SWEEPS))
        relaxation, cap = _relaxation(state, error)
        return _State(
            done=state.done + 1,
            in_stage=jnp.where(over, 0, state.in_stage + 1),
            epsilon=jnp.where(over, jnp.maximum(now / 2, wanted), now),
            f=state.f + now.astype(dtype) * (class_shift - omega * step),
            g=found.g
            + now.astype(dtype) * (problem.target_classes * columns[None, None, :]).sum(-1),
            relaxation=jnp.where(over, 1.0, relaxation),
            cap=cap,
            error=jnp.where(over, jnp.inf, error),
            judged=state.f,
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
        judged=jnp.zeros(len(a), jnp.float32),
    )
    near = jnp.maximum(threshold, ROUNDING / wanted)
    rough = jax.lax.while_loop(
        # One sweep is left to float64, which judges.
        lambda state: unfinished(state, near) & (state.done < max_iterations - 1),
        lambda state: improve(state, narrow),
        start,
    )
    end = jax.lax.while_loop(
        lambda state: unfinished(state, jnp.asarray(threshold, jnp.float64)),
        lambda state: improve(state, problem),
        rough._replace(
            f=rough.f.astype(jnp.float64),
            g=rough.g.astype(jnp.float64),
            judged=rough.judged.astype(jnp.float64),
            error=never,
        ),
    )
    table, received, inner = _judged(problem, end.judged, end.epsilon)
    rows, columns = _balancing(table, *margins)
    shift = end.judged / end.epsilon + product(source_classes, rows[:, None])[:, 0]
    offsets = (received * cost.row_offsets).sum() + (b * cost.column_offsets).sum()
    return Transport(
        table=table * jnp.exp(rows[:, None] + columns[None, :]),
        cost=jnp.maximum(offsets + inner, 0),
        iterations=end.done,
        marginal_error=end.error,
        converged=end.error <= threshold,
        log_offers=jnp.where(a > 0, jnp.log(jnp.where(a > 0, a, 1)) + shift, -jnp.inf),
    )


def _parting(
    problem: _Problem, f: Float[Array, " n"], epsilon: Float[Array, ""]
) -> Callable[[Float[Array, "b k"]], tuple[Array, Array, Array, Array]]:
    """How a block of targets parts its mass between the sources, as a function of the block.

    It gives, for each target j, affinities −⟨rows_i, columns_j⟩ / ε; weights e^(logit − largest)
    to which the plan's column is proportional; their sum, 1 where it is 0; and the largest logit.
    """
    rows = -problem.rows / epsilon
    there = problem.a > 0
    log_mass = jnp.where(there, f / epsilon + jnp.log(jnp.where(there, problem.a, 1)), 0)

    def of_block(columns: Float[Array, "b k"]) -> tuple[Array, Array, Array, Array]:
        affinity = product(columns, rows.T)
        logits = jnp.where(there[None, :], affinity + log_mass[None, :], -jnp.inf)
        largest = logits.max(1)
        largest = jnp.where(jnp.isfinite(largest), largest, 0)
        weights = jnp.exp(logits - largest[:, None])
        total = weights.sum(1)
        return affinity, weights, jnp.where(total > 0, total, 1), largest

    return of_block


def _sweep(
    problem: _Problem,
    f: Float[Array, " n"],
    g: Float[Array, "blocks b"],
    epsilon: Float[Array, ""],
    relaxation: Float[Array, ""],
) -> _Sweep:
    """Move the targets' potentials block by block, and what that leaves the sources to correct.

    A target's potential does not depend on the other targets', so the masses of the sources under
    the moved potentials are summed in the same sweep: half of the work of two half-steps.
    """
    parting = _parting(problem, f, epsilon)

    def of_block(
        totals: Float[Array, "c1 n"],
        block: tuple[
            Float[Array, "b k"], Float[Array, " b"], Float[Array, "b c"], Float[Array, " b"]
        ],
    ) -> tuple[Float[Array, "c1 n"], Float[Array, " b"]]:
        columns, b, classes, before = block
        _, weights, total, largest = parting(columns)
        right = -epsilon * (largest + jnp.log(total))
        moved = before + relaxation * (right - before)
        exact = b / total
        relaxed = exact * jnp.exp((moved - right) / epsilon)
        sent = jnp.concatenate([exact[:, None], relaxed[:, None] * classes], 1)
        return totals + product(sent.T, weights), moved

    nowhere = jnp.zeros((1 + problem.target_classes.shape[-1], len(f)), f.dtype)
    blocks = (problem.columns, problem.b, problem.target_classes, g)
    totals, g = jax.lax.scan(of_block, nowhere, blocks)
    return _Sweep(g, totals[0], totals[1:].T)


def _judged(
    problem: _Problem, f: Float[Array, " n"], epsilon: Float[Array, ""]
) -> tuple[Float[Array, "s c"], Float[Array, " n"], Float[Array, ""]]:
    """Of the plan with these potentials and exact columns: its table, the masses of the sources,
    and Σ P_ij ⟨rows_i, columns_j⟩."""
    parting = _parting(problem, f, epsilon)
    classes = problem.source_classes

    def of_block(
        so_far: tuple[Array, Array, Array],
        block: tuple[Float[Array, "b k"], Float[Array, " b"], Float[Array, "b c"]],
    ) -> tuple[tuple[Array, Array, Array], None]:
        columns, b, own = block
        affinity, weights, total, _ = parting(columns)
        exact = b / total
        found = (
            product(product(weights, classes).T, exact[:, None] * own),
            product(exact[None, :], weights)[0],
            -epsilon * (exact * (weights * affinity).sum(1)).sum(),
        )
        return jax.tree.map(jnp.add, so_far, found), None

    table = jnp.zeros((classes.shape[1], problem.target_classes.shape[-1]), jnp.float64)
    nothing = (table, jnp.zeros_like(f), jnp.zeros((), jnp.float64))
    blocks = (problem.columns, problem.b, problem.target_classes)
    return jax.lax.scan(of_block, nothing, blocks)[0]


def _balancing(
    table: Float[Array, "s c"], sources: Float[Array, " s"], targets: Float[Array, " c"]
) -> tuple[Float[Array, " s"], Float[Array, " c"]]:
    """Logarithms of factors that bring a table to both sides' masses; 0 for absent classes."""
    pairs = (sources[:, None] > 0) & (targets[None, :] > 0)
    logs = jnp.where(pairs, jnp.log(jnp.maximum(table, SMALLEST_SHARE)), -jnp.inf)
    wanted_rows, wanted_columns = (
        jnp.log(jnp.where(masses > 0, masses, 1)) for masses in (sources, targets)
    )

    def renew(_: Array, factors: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, _ = factors
        columns = wanted_columns - _log_sums(logs + rows[:, None], 0)
        return wanted_rows - _log_sums(logs + columns[None, :], 1), columns

    start = jnp.zeros_like(sources), jnp.zeros_like(targets)
    rows, columns = jax.lax.fori_loop(0, TABLE_ROUNDS, renew, start)
    return jnp.where(sources > 0, rows, 0), jnp.where(targets > 0, columns, 0)


def _log_sums(logs: Float[Array, "s c"], axis: int) -> Float[Array, " k"]:
    """log Σ exp over an axis, 0 where nothing is there."""
    largest = logs.max(axis, keepdims=True)
    largest = jnp.where(jnp.isfinite(largest), largest, 0)
    total = jnp.exp(logs - largest).sum(axis)
    return jnp.squeeze(largest, axis) + jnp.log(jnp.where(total > 0, total, 1))


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
