extern crate std;

use std::prelude::v1::*;

use super::super::pair::{Pair, Side};
use super::*;

fn run(side: Side, q: f64, sigma: f64, steps: u64) -> Run {
    Run { pair: Pair::new(side, q, sigma), steps }
}

#[test]
fn replacing_costs_what_dp_accounting_says() {
    // sigma, q, steps, delta, pessimistic and a bit above the truth there.
    for (sigma, q, steps, delta, peer) in [
        (0.6, 0.01, 1000, 1e-5, 8.767_252_570_584_294),
        (1.0, 0.01, 1000, 1e-5, 2.843_445_811_703_821),
        (4.0, 0.01, 1000, 1e-5, 0.561_381_812_541_512_3),
    ] {
        let all = Composition::new(&[run(Side::Replace, q, sigma, steps)], Target::Delta(delta));
        let all = all.unwrap();
        let (upper, lower) = (all.upper(delta).unwrap(), all.lower(delta));
        assert!(lower <= upper && upper - lower < 1e-3 * upper, "{lower} {upper}");
        assert!(lower <= peer && (upper / peer - 1.0).abs() < 5e-4, "{upper} {peer}");
    }
}

#[test]
fn splitting_a_run_in_two_changes_next_to_nothing() {
    let (a, b) = (run(Side::Remove, 0.01, 1.0, 500), run(Side::Remove, 0.01, 1.0, 1000));
    let twice = Composition::new(&[a, a], Target::Delta(1e-6)).unwrap();
    let once = Composition::new(&[b], Target::Delta(1e-6)).unwrap();
    let (x, y) = (twice.upper(1e-6).unwrap(), once.upper(1e-6).unwrap());
    assert!((x / y - 1.0).abs() < 1e-4, "{x} {y}");
    assert!(twice.lower(1e-6) <= y && once.lower(1e-6) <= x);
}

#[test]
fn every_bound_on_delta_is_on_its_side_of_a_direct_convolution() {
    // One step of the pair, three times: the same lattice laws, convolved without a transform.
    let runs = [run(Side::Remove, 0.2, 1.5, 3)];
    let plan = plan(&runs, Target::Delta(1e-3), None).unwrap();
    let lattice = discretise(&runs[0].pair, &plan, &plan.runs[0]).unwrap();
    let spacing = plan.spacing;
    let all = Composition::planned(&runs, plan).unwrap();
    let loss = |index: i64| lattice.origin * 3.0 + signed(index) * spacing;
    for epsilon in [0.1, 0.5, 1.0] {
        let mut delta = (0.0, 0.0);
        let far: Vec<_> = lattice.atoms.iter().filter(|atom| atom.upper > 1e-12).collect();
        for a in far.iter().step_by(1) {
            for b in &far {
                for c in &far {
                    let at = loss(a.index + b.index + c.index);
                    if at > epsilon {
                        let shape = -libm::expm1(epsilon - at);
                        delta.0 += a.upper * b.upper * c.upper * shape;
                        delta.1 += a.lower * b.lower * c.lower * shape;
                    }
                }
            }
        }
        let ours = all.delta(epsilon);
        assert!(delta.1 <= ours, "{delta:?} {ours}");
        assert!((ours / delta.0 - 1.0).abs() < 2e-3, "{delta:?} {ours}");
    }
}

#[test]
fn gives_no_number_rather_than_a_sum_that_underflowed() {
    // The largest loss of the side without the unit is hardly above epsilon: a tilt of 10^10.
    let (rate, delta) = (1.1e-4, 9e-14);
    let all = Composition::new(&[run(Side::Add, rate, 0.287, 1)], Target::Delta(delta));
    let upper = all.and_then(|all| all.upper(delta));
    assert!(upper.is_none_or(|upper| upper > 0.5 * rate), "{upper:?}");
}
