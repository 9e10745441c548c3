//! One step's privacy loss on a grid, once from above and once from below.
//!
//! Write `F(y) = E_P[(1 - y e^-L)+]`, so that delta(epsilon) = F(e^epsilon). F is convex. If a law
//! with masses `p_i` at losses `l_i` has `G(y) = sum p_i (1 - y e^-l_i)+ >= F(y)` for all y > 0, then
//! this holds for compositions too (condition on all but one step, one after the other); and so with
//! `<=`. Neither needs the masses to add up to 1. G is piecewise linear with kinks at `e^l_i`.
//!
//! **From above**: chords. Inside a cell of width w the mass at loss `l_i + u` is split, `r(u)` of it
//! to the right end, `r(u) = (1 - e^-u) / (1 - e^-w)`, the rest to the left: mass and E[e^-L] stay
//! (connect the dots: Doroshenko, Ghazi, Kamath, Kumar, Manurangsi, arXiv 2207.04380). Both parts are
//! integrals of positive functions, so that the far tail keeps its relative precision.
//!
//! **From below**: the chords, lowered by `c_i` at the points of the grid. Each bit of mass raises the
//! chord of its cell above F by a tent over the cell, and so it is enough that a cell's ends are
//! lowered by one of `(S, S)`, `(A, 0)`, `(0, B)`: with `S = (e^w - 1) E_P[r (1 - r)]` (the tents'
//! tops), `A = (1 - e^-w) E_P[r]` and `B = (e^w - 1) E_P[1 - r]` (lines over the tents), all over the
//! cell. The polygon through `F(y_i) - c_i` is then below F. Its kinks are the masses `p_i + (c_i - c_{i-1})/(1 - e^-w_{i-1}) + (c_i - c_{i+1})/(e^w_i - 1)`.
//! Where one is negative, the polygon is not convex and `c_i` is raised until it is. At both ends the
//! polygon runs along bounds that F has anyway: `1 - y` below (`c_i = H_i`), and 0 above
//! (`c_i = F(y_i)`).
//!
//! Cells are multiples of the grid's spacing, wide where the tilted density is low. The grid has an
//! origin: where losses crowd together, closer than the spacing, a point of it lies among them.

use alloc::vec::Vec;

use super::ULP;
use super::float::{floor, signed};
use super::pair::Pair;
use super::saddle::{Plan, RunPlan, weight};

/// Nodes and weights of Gauss and Legendre with six points.
const NODES: [(f64, f64); 6] = [
    (-0.932_469_514_203_152, 0.171_324_492_379_170_35),
    (-0.661_209_386_466_264_5, 0.360_761_573_048_138_6),
    (-0.238_619_186_083_196_9, 0.467_913_934_572_691_04),
    (0.238_619_186_083_196_9, 0.467_913_934_572_691_04),
    (0.661_209_386_466_264_5, 0.360_761_573_048_138_6),
    (0.932_469_514_203_152, 0.171_324_492_379_170_35),
];

/// Relative error of a mass: the quadrature's, and that of some twenty roundings. The integrands are
/// sums of two Gaussians, and so entire; a piece is so short that by the ellipse theorem (Trefethen,
/// Approximation Theory and Practice, theorem 19.3, at a radius of 40) the first is below 1e-12.
const MASS_ERROR: f64 = 2e-12;
/// Points at which widths are looked up ahead.
const LIMITS: u32 = 512;
/// More cells than this are no grid.
const MAX_CELLS: usize = 400_000;
/// Largest number of pieces a cell's integral is taken in.
const MAX_PIECES: f64 = 4096.0;
/// Indices on the grid stay below this, so that index times spacing is exact.
const MAX_INDEX: f64 = 4_294_967_296.0;
/// Part of what a corner needs that is enough for it to be the lowest one.
const NEARLY: f64 = 0.95;
/// Sweeps that raise the polygon's corners before its ends are moved inwards.
const MAX_SWEEPS: u32 = 200;
/// Corners that its ends are moved by before the law from below is given up.
const MAX_SHIFTS: usize = 12;

/// An atom of the discretised loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Atom {
    /// The loss, in multiples of the spacing.
    pub(super) index: i64,
    /// Mass in the law from above.
    pub(super) upper: f64,
    /// Mass in the law from below.
    pub(super) lower: f64,
}

/// One step's loss.
#[derive(Clone, Debug)]
pub(super) struct Lattice {
    pub(super) atoms: Vec<Atom>,
    /// Bound on the relative error of every mass.
    pub(super) error: f64,
    /// Bound on the error of a loss, as a part of `|loss| + q`.
    pub(super) loss_error: f64,
    /// The loss at index 0.
    pub(super) origin: f64,
    /// The lowest loss.
    pub(super) lowest: f64,
    pub(super) q: f64,
}

/// What a cell holds.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    index: i64,
    /// Width, in losses.
    width: f64,
    /// Mass.
    mass: f64,
    /// Mass that goes to the right end.
    right: f64,
    /// `E[r (1 - r)]`.
    sag: f64,
}

/// Discretises a step; `None` when the spacing is too fine for it.
pub(super) fn discretise(pair: &Pair, plan: &Plan, run: &RunPlan) -> Option<Lattice> {
    let from = pair.lower_end(run.lower_tail);
    let to = pair.upper_end(run.upper_tail).max(from);
    let origin = pair.origin(plan.spacing);
    let cells = cells(pair, plan, run, origin, from, to)?;
    let upper = chords(&cells);
    let lower = lowered(&cells, &upper);
    let last = cells.last().map(|cell| cell.index + floor(cell.width / plan.spacing + 0.5));
    let indices = cells.iter().map(|cell| cell.index).chain(last);
    let mut atoms: Vec<_> = indices
        .zip(upper.iter().zip(&lower))
        .map(|(index, (upper, lower))| Atom { index, upper: *upper, lower: *lower })
        .collect();
    let mass: f64 = upper.iter().sum();
    let missing = (1.0 - mass).abs() - run.lower_tail - run.upper_tail;
    let first = atoms.first_mut()?;
    first.upper += run.lower_tail;
    let lowest = origin + signed(first.index) * plan.spacing;
    let exponents = pair.exponent_size(from, to);
    let far = pair.distance(from).max(pair.distance(to)) / pair.sigma();
    Some(Lattice {
        atoms,
        error: MASS_ERROR + 4.0 * ULP * far * far,
        loss_error: 64.0 * ULP * (1.0 + exponents),
        origin,
        lowest,
        q: pair.q(),
    })
    .filter(|_| missing < 1e-10)
}

fn cells(
    pair: &Pair,
    plan: &Plan,
    run: &RunPlan,
    origin: f64,
    from: f64,
    to: f64,
) -> Option<Vec<Cell>> {
    let spacing = plan.spacing;
    let at = |x: f64| (pair.loss(x) - origin) / spacing;
    let (first, last) = (at(from), at(to));
    if !(first.abs() < MAX_INDEX && last.abs() < MAX_INDEX) {
        return None;
    }
    let limits = limits(pair, run, from, to);
    let mut limits = limits.as_slice();
    let mut cells = Vec::new();
    let (mut index, mut x, mut width) = (floor(first), from, 1.0_f64);
    while x < to || cells.is_empty() {
        let here = signed(index);
        let left = origin + here * spacing;
        while let [(loss, _), rest @ ..] = limits
            && *loss <= left
        {
            limits = rest;
        }
        let allowed =
            limits.first().map_or(f64::INFINITY, |(loss, width)| width + (loss - left) / 2.0);
        let wanted = libm::floor(width_at(pair, run, x).min(allowed) / spacing);
        // The cells on both sides of the origin are as narrow as can be: it was chosen for them.
        let room =
            if here < -1.0 { -1.0 - here } else { if here < 1.0 { 1.0 } else { f64::INFINITY } };
        width = wanted.min(2.0 * width).min(room.max(1.0)).max(1.0);
        let next = index.checked_add(floor(width))?;
        let loss = |index| origin + signed(index) * spacing;
        let end = pair.point(loss(next)).clamp(x, to);
        let cell = Cell { index, width: width * spacing, ..Cell::default() };
        cells.push(integrate(pair, cell, loss(index), x, end));
        if cells.len() > MAX_CELLS {
            return None;
        }
        (index, x) = (next, end);
    }
    Some(cells)
}

/// Losses and widths from which no wider cell can come down by halves to those after them: the polygon
/// from below needs neighbours of like width.
fn limits(pair: &Pair, run: &RunPlan, from: f64, to: f64) -> Vec<(f64, f64)> {
    let step = (to - from) / f64::from(LIMITS);
    let points = (1..=LIMITS).map(|i| from + step * f64::from(i));
    let mut limits: Vec<_> = points.map(|x| (pair.loss(x), width_at(pair, run, x))).collect();
    let mut after = (f64::INFINITY, f64::INFINITY);
    for limit in limits.iter_mut().rev() {
        if after.1.is_finite() {
            limit.1 = limit.1.min(after.1 + (after.0 - limit.0) / 2.0);
        }
        after = *limit;
    }
    limits
}

/// The width that spends the budget with the fewest cells, where the density's logarithm stays nearly
/// linear.
fn width_at(pair: &Pair, run: &RunPlan, x: f64) -> f64 {
    let (sigma, shifted) = (pair.sigma(), pair.weight(x));
    let slope = shifted / (sigma * sigma);
    let density = weight(pair, &run.tilt, x).max(f64::MIN_POSITIVE);
    let cheap = run.coarseness * libm::cbrt(slope / density);
    let smooth = slope * sigma / (2.0 * (pair.distance(x) / sigma).max(1.0));
    let bend = shifted / (2.0 * (1.0 - shifted).max(1e-9));
    rising(cheap, run.tilt.theta() / 3.0).min(smooth).min(bend)
}

/// The w with `w e^(rate w) = width`, about: the width of a cell over which the tilt grows.
fn rising(width: f64, rate: f64) -> f64 {
    let argument = rate * width;
    if argument < 1e-3 {
        return width;
    }
    let ln = libm::log1p(argument);
    ln * (1.0 - libm::log1p(ln) / (2.0 + ln)) / rate
}

/// The integrals over a cell, from `from` to `to` in x, whose left end is at `loss`.
fn integrate(pair: &Pair, mut cell: Cell, loss: f64, from: f64, to: f64) -> Cell {
    let whole = -libm::expm1(-cell.width);
    let sigma = pair.sigma();
    // Between two centres the distance may be larger than at both ends.
    let far = pair.distance(from).max(pair.distance(to)).max((to - from).min(1.0) / 2.0);
    let mut piece = sigma / (4.0 * (far / sigma).max(1.0));
    let (middle, scale) = pair.transition();
    if from < middle + 40.0 * scale && to > middle - 40.0 * scale {
        piece = piece.min(scale / 2.0);
    }
    let pieces = libm::ceil((to - from) / piece).clamp(1.0, MAX_PIECES);
    let half = (to - from) / pieces / 2.0;
    let mut done = 0.0;
    while done < pieces {
        let centre = from + half * (2.0 * done + 1.0);
        for (node, weight) in NODES {
            let x = centre + half * node;
            let mass = half * weight * pair.density(x);
            let part = (-libm::expm1(loss - pair.loss(x)) / whole).clamp(0.0, 1.0);
            cell.mass += mass;
            cell.right += mass * part;
            cell.sag += mass * part * (1.0 - part);
        }
        done += 1.0;
    }
    cell
}

/// Masses of the chords: one more than there are cells.
fn chords(cells: &[Cell]) -> Vec<f64> {
    let mut masses = Vec::with_capacity(cells.len() + 1);
    let mut carried = 0.0;
    for cell in cells {
        masses.push(carried + (cell.mass - cell.right));
        carried = cell.right;
    }
    masses.push(carried);
    masses
}

/// A corner of the polygon from below.
#[derive(Clone, Copy, Debug, Default)]
struct Corner {
    /// Mass of the chords.
    mass: f64,
    /// F there.
    height: f64,
    /// H: F less `1 - y`.
    lift: f64,
    /// What F is lowered by.
    cut: f64,
    /// `1 / (1 - e^-w)` of the cell on the left; 1 where there is none.
    left: f64,
    /// `1 / (e^w - 1)` of the cell on the right; 0 where there is none.
    right: f64,
}

impl Corner {
    /// The kink's mass, and the size of what it is a sum of.
    fn kink(&self, before: f64, after: f64) -> (f64, f64) {
        let (left, right) = (self.left * (self.cut - before), self.right * (self.cut - after));
        let size = self.mass + self.left * self.cut.max(before) + self.right * self.cut.max(after);
        (self.mass + left + right, size)
    }
}

/// Masses of the polygon from below; all 0 when there is none.
fn lowered(cells: &[Cell], masses: &[f64]) -> Vec<f64> {
    let corners = corners(cells, masses);
    // The ends: where F is nearer to its bounds than it is to be lowered.
    let short = |corner: &Corner| corner.lift < NEARLY * corner.cut;
    let bottom = corners.iter().rposition(short).map_or(0, |at| at + 1);
    let top = corners.iter().position(|corner| corner.height < corner.cut);
    let top = top.unwrap_or(corners.len()).saturating_sub(1);
    for shift in 0..MAX_SHIFTS {
        let kinks = polygon(corners.clone(), bottom + shift, top.saturating_sub(shift));
        if let Some(kinks) = kinks {
            return kinks;
        }
    }
    masses.iter().map(|_| 0.0).collect()
}

/// The kinks of the polygon that leaves `1 - y` at the corner `bottom` and ends in 0 at `top`.
fn polygon(mut corners: Vec<Corner>, bottom: usize, top: usize) -> Option<Vec<f64>> {
    // Where F is a little too near to `1 - y`, the polygon leaves (0, 1) a little steeper.
    let mut steeper = 0.0;
    for (at, corner) in corners.get_mut(..=bottom)?.iter_mut().enumerate().rev() {
        if at == bottom {
            steeper = (corner.cut - corner.lift).max(0.0);
        }
        corner.cut = corner.lift + steeper;
        steeper /= corner.left / (corner.left - 1.0).max(f64::MIN_POSITIVE);
    }
    for corner in corners.get_mut(top..)? {
        corner.cut = corner.height;
    }
    if bottom >= top || !convex(corners.get_mut(bottom..=top)?) {
        return None;
    }
    let cuts: Vec<f64> = corners.iter().map(|corner| corner.cut).collect();
    let befores = core::iter::once(0.0).chain(cuts.iter().copied());
    let afters = cuts.iter().copied().skip(1).chain(core::iter::once(0.0));
    let around = corners.iter().zip(befores.zip(afters)).enumerate();
    let kinks = around.map(|(at, (corner, (before, after)))| {
        let (kink, size) = corner.kink(before, after);
        let size = if at == top { size + corner.left * before.max(corner.height) } else { size };
        if (bottom..=top).contains(&at) { kink - 64.0 * ULP * size } else { 0.0 }
    });
    // A kink that is negative by more than its own rounding error is none.
    kinks.map(|kink| (kink > -1e-300).then_some(kink.max(0.0))).collect()
}

/// By how much a cell's ends are to be lowered: one of the three ways.
fn needs(cell: &Cell) -> (f64, f64) {
    // The sag's integrand has poles near the axis, the others none.
    const SLACK: f64 = 1.0 + 1e-11;
    let tops = 1.001 * libm::expm1(cell.width) * cell.sag;
    let growth = libm::expm1(cell.width);
    let left = -libm::expm1(-cell.width) * cell.right;
    let right = growth * (cell.mass - cell.right).max(0.0);
    let quarter = cell.width * cell.mass / 4.0;
    if left <= right && left <= quarter {
        (SLACK * left, 0.0)
    } else if right <= quarter {
        (0.0, SLACK * right)
    } else {
        (tops, tops)
    }
}

fn corners(cells: &[Cell], masses: &[f64]) -> Vec<Corner> {
    let none = Cell::default();
    let before = core::iter::once(&none).chain(cells);
    let after = cells.iter().chain(core::iter::once(&none));
    let (mut lift, mut below) = (0.0, 0.0);
    let corner = |((before, after), mass): ((&Cell, &Cell), &f64)| {
        // H grows to e^w H + (e^w - 1) * mass below.
        let growth = libm::expm1(before.width);
        lift += growth * (lift + below);
        below += mass;
        Corner {
            mass: *mass,
            height: 0.0,
            lift,
            cut: needs(before).1.max(needs(after).0),
            left: if before.width > 0.0 { 1.0 / -libm::expm1(-before.width) } else { 1.0 },
            right: if after.width > 0.0 { 1.0 / libm::expm1(after.width) } else { 0.0 },
        }
    };
    let mut corners: Vec<_> = before.zip(after).zip(masses).map(corner).collect();
    // F from the top: V = sum of p_j e^-(l_j - l_i), F gains (1 - e^-w) V from one corner to the next.
    let (mut height, mut weight) = (0.0, 0.0);
    for corner in corners.iter_mut().rev() {
        if corner.right > 0.0 {
            // 1 - e^-w = 1 / (right + 1).
            height += weight / (corner.right + 1.0);
        }
        corner.height = height;
        weight = corner.mass + weight * corner.right / (corner.right + 1.0);
    }
    corners
}

/// Raises cuts until every kink but the outermost is one; these cuts are fixed.
fn convex(corners: &mut [Corner]) -> bool {
    for sweep in 0..MAX_SWEEPS {
        let mut raised = false;
        let mut raise = |corner: &mut Corner, before: f64, after: f64| {
            let (kink, size) = corner.kink(before, after);
            let least = 128.0 * ULP * size;
            if kink < least {
                corner.cut += 1.2 * (2.0 * least - kink) / (corner.left + corner.right);
                raised = true;
            }
        };
        if sweep % 2 == 0 {
            let mut rest = &mut *corners;
            while let [before, tail @ ..] = rest {
                if let [corner, after, ..] = tail {
                    raise(corner, before.cut, after.cut);
                }
                rest = tail;
            }
        } else {
            let mut rest = &mut *corners;
            while let [head @ .., after] = rest {
                if let [.., before, corner] = head {
                    raise(corner, before.cut, after.cut);
                }
                rest = head;
            }
        }
        if !raised {
            return true;
        }
    }
    false
}
