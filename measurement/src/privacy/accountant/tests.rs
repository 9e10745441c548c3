extern crate std;

use std::prelude::v1::*;

use proptest::prelude::*;

use super::float::real;
use super::truncation::exceeds;
use super::*;
use crate::privacy::tests::golden;

/// One row of the reference vectors.
struct Row {
    sigma: f64,
    q: f64,
    steps: u32,
    delta: f64,
    /// The true epsilon, less what the reference's own error may be.
    least: f64,
    /// The best value known: the closed form, or extrapolated.
    best: f64,
    /// The RDP epsilon of a peer.
    peer: f64,
    /// Whether the reference's own grid was too coarse to judge by.
    coarse: bool,
}

impl Row {
    fn all() -> Vec<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors/dp/accounting.json");
        let Ok(text) = std::fs::read_to_string(path) else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{path} is missing");
            std::println!("skipped: {path} is missing");
            return Vec::new();
        };
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let rows: Vec<_> = document["rows"].as_array().unwrap().iter().map(Self::read).collect();
        assert_eq!(rows.len(), 60);
        rows
    }

    fn read(row: &serde_json::Value) -> Self {
        let number = |key: &str| row[key].as_f64().unwrap();
        let least = match row["exact_eps"].as_str() {
            Some(exact) => exact.parse::<f64>().unwrap() - 1e-9,
            None => number("ref_eps_extrapolated") * (1.0 - 2e-3) - 1e-6,
        };
        let best = match row["exact_eps"].as_str() {
            Some(exact) => exact.parse().unwrap(),
            None => number("ref_eps_extrapolated"),
        };
        Self {
            best,
            coarse: (number("ref_eps_half_h") / number("ref_eps") - 1.0).abs() > 1e-3,
            sigma: number("sigma"),
            q: number("q"),
            steps: u32::try_from(row["steps"].as_u64().unwrap()).unwrap(),
            delta: number("delta"),
            least,
            peer: number("rdp_eps"),
        }
    }

    /// The row as terms, where there are terms in range.
    fn terms(&self, epsilon: f64) -> Option<Terms> {
        let mut terms = Terms {
            delta: Real(self.delta),
            expected_batch: 1,
            max_units: (1..60).map(|n| 1 << n).find(|n| real(*n) * self.q >= 1.0)?,
            noise_multiplier: Real(self.sigma),
            sample_rate: Real(self.q),
            steps: self.steps,
            ..golden()
        };
        terms.physical_batch = smallest_physical_batch(epsilon, &terms).ok()?;
        Some(terms)
    }
}

#[test]
fn brackets_the_truth_closely_on_all_reference_rows() {
    let (mut above, mut below, mut slowest) = (0.0_f64, 0.0_f64, 0.0_f64);
    for row in Row::all() {
        let mut accountant = Accountant::new();
        accountant.add(row.q, row.sigma, row.steps);
        let start = std::time::Instant::now();
        let Bounds { lower, upper, .. } = accountant.bounds(row.delta).unwrap();
        slowest = slowest.max(start.elapsed().as_secs_f64());
        let Row { sigma, q, steps, delta, least, best, coarse, .. } = row;
        let name = std::format!("{sigma} {q} {steps} {delta}: {lower} {upper}, {best}");
        assert!(lower <= upper && upper >= least, "{name}");
        if coarse {
            assert!(lower <= best * (1.0 + 1e-3) && upper <= best * (1.0 + 1e-3), "{name}");
        } else {
            assert!(lower <= best + 1e-9 && upper >= best - 1e-9, "{name}");
        }
        assert!(upper <= best * (1.0 + 5e-4) + 1e-9 && lower >= best * (1.0 - 1e-3), "{name}");
        if best == 0.0 {
            assert_eq!(upper, 0.0, "{name}");
        } else {
            (above, below) = (above.max(upper / best - 1.0), below.max(1.0 - lower / best));
        }
    }
    std::println!("at most {above:.1e} above and {below:.1e} below, {slowest:.3} s");
}

#[test]
fn renyi_lies_between_the_truth_and_a_peer_on_all_reference_rows() {
    for Row { sigma, q, steps, delta, least, peer, .. } in Row::all() {
        let mut accountant = Accountant::new();
        accountant.add(q, sigma, steps);
        let ours = accountant.renyi_epsilon(delta).unwrap();
        assert!(ours >= least, "{sigma} {q} {steps} {delta}: {ours} is below {least}");
        assert!(ours <= 1.01 * peer, "{sigma} {q} {steps} {delta}: {ours} is above {peer}");
    }
}

#[test]
fn random_variables_agree_on_all_reference_rows_they_can_judge() {
    let mut judged = 0;
    for Row { sigma, q, steps, delta, best, .. } in Row::all() {
        let mut accountant = Accountant::new();
        accountant.add(q, sigma, steps);
        let Some(Estimate { lower, middle, upper }) =
            accountant.random_variables_epsilon(delta).unwrap()
        else {
            continue;
        };
        let name = std::format!("{sigma} {q} {steps} {delta}: {lower} {middle} {upper}, {best}");
        assert!(lower <= best * (1.0 + 1e-3) + 1e-6 && best <= upper + 1e-6, "{name}");
        judged += 1;
    }
    std::println!("{judged} rows");
    assert!(judged == 0 || judged > 40, "{judged}");
}

#[test]
fn a_physical_batch_of_the_right_size_costs_next_to_nothing() {
    let mut rows = 0;
    for row in Row::all() {
        let Some(terms) = row.terms(row.peer) else { continue };
        let mechanism = Mechanism::new(terms).unwrap();
        let mut accountant = Accountant::new();
        accountant.compose(&mechanism).unwrap();
        let ours = accountant.epsilon(row.delta).unwrap();
        let ideal = ideal(accountant.runs[0].rate, row.sigma, row.steps, row.delta);
        assert!(ideal <= ours && ours <= ideal * 1.001 + 1e-9, "{ideal} {ours}");
        assert!(ours >= row.least);
        rows += 1;
    }
    assert!(rows == 0 || rows > 50, "{rows}");
}

/// The same moment by the trapezoid rule, which converges faster than any power here.
fn moment_by_quadrature(q: f64, sigma: f64, order: f64) -> f64 {
    let (from, until) = (-14.0 * sigma, 14.0 * sigma + 2.0 * order);
    let count = 40_000;
    let width = (until - from) / f64::from(count);
    let mut sum = 0.0;
    for i in 0..=count {
        let z = from + width * f64::from(i);
        let density = -z * z / (2.0 * sigma * sigma);
        let shifted = q.ln() + (2.0 * z - 1.0) / (2.0 * sigma * sigma);
        let high = shifted.max((-q).ln_1p());
        let ratio = high + ((shifted - high).exp() + ((-q).ln_1p() - high).exp()).ln();
        sum += (density + order * ratio).exp();
    }
    (sum * width / (sigma * (2.0 * std::f64::consts::PI).sqrt())).ln()
}

#[test]
fn equals_the_moments_of_numerical_integration() {
    for (q, sigma) in [(0.01, 1.0), (0.5, 4.0), (0.5, 0.7), (0.9, 2.0), (0.05, 0.5), (0.001, 0.8)] {
        for order in orders().filter(|order| order.value() <= 12.0) {
            let alpha = order.value();
            let required = moment_by_quadrature(q, sigma, alpha);
            let observed = order.step(q, sigma) * (alpha - 1.0);
            let close = (observed - required).abs() <= 1e-5 * required + 1e-12;
            assert!(close, "{q} {sigma} {alpha}: {observed} {required}");
            assert!(observed >= required * (1.0 - 1e-9) - 1e-12, "{q} {sigma} {alpha}");
        }
    }
}

#[test]
fn is_the_gaussian_of_mironov_when_everyone_takes_part() {
    for order in orders() {
        let observed = order.step(1.0, 3.0);
        assert!((observed / (order.value() / 18.0) - 1.0).abs() < 1e-12);
        let nearly = order.step(1.0 - 1e-12, 3.0);
        assert!((nearly / observed - 1.0).abs() < 1e-3, "{order:?}: {nearly} {observed}");
    }
}

#[test]
fn bounds_the_binomial_tail_from_above_and_closely() {
    for (n, q, cap, exact) in [
        (100, 0.5, 60, 0.017_600_100_108_852_4),
        (10, 0.1, 9, 1e-10),
        (20, 0.3, 12, 0.001_278_879_604_220_220_2),
    ] {
        let observed = exceeds(n, q, cap);
        assert!((observed / exact - 1.0).abs() < 1e-8, "{n} {q} {cap}: {observed}");
    }
    assert_eq!(exceeds(10, 0.1, 10), 0.0);
    assert_eq!(exceeds(10, 1.0, 9), 1.0);
    assert_eq!(exceeds(100, 0.5, 20), 1.0);
}

#[test]
fn refuses_a_physical_batch_that_drops_too_often() {
    let terms = Terms { physical_batch: 40, ..golden() };
    let mut accountant = Accountant::new();
    accountant.compose(&Mechanism::new(terms).unwrap()).unwrap();
    let refusal = accountant.epsilon(1e-4).unwrap_err();
    assert!(matches!(refusal, AccountantError::Truncation { delta: 1e-4, .. }), "{refusal}");
}

#[test]
fn charges_dropped_units_to_delta() {
    let mut terms = golden();
    terms.physical_batch = smallest_physical_batch(4.0, &terms).unwrap();
    let tight = accountant_of(&terms);
    terms.physical_batch = 512;
    let open = accountant_of(&terms);
    assert_eq!(open.epsilon(1e-4), Ok(ideal(open.runs[0].rate, 1.1, 20, 1e-4)));
    assert!(tight.epsilon(1e-4).unwrap() > open.epsilon(1e-4).unwrap());
    assert!(tight.epsilon(1e-4).unwrap() < open.epsilon(1e-4).unwrap() * 1.001);
    assert!(tight.delta(1.0).unwrap() > open.delta(1.0).unwrap());
}

#[test]
fn takes_the_smallest_batch_that_fits() {
    let terms = golden();
    let cap = smallest_physical_batch(4.0, &terms).unwrap();
    let charge = |cap: u32| {
        let chance = exceeds(512, 0.0625, u64::from(cap)) * 20.0;
        chance * (1.0 + 4.0_f64.exp())
    };
    assert!(charge(cap) <= 1e-7 && charge(cap - 1) > 1e-7, "{cap}");
}

#[test]
fn refuses_a_delta_that_promises_nothing() {
    let accountant = accountant_of(&golden());
    for observed in [0.0, -1.0, 1.0 / 512.0, 1.0, f64::INFINITY] {
        let refusal = AccountantError::Delta { observed, max_units: 512 };
        assert_eq!(accountant.epsilon(observed), Err(refusal));
    }
    assert!(matches!(accountant.epsilon(f64::NAN), Err(AccountantError::Delta { .. })));
    assert!(matches!(accountant.delta(f64::NAN), Err(AccountantError::Epsilon { .. })));
    assert!(matches!(accountant.delta(-0.5), Err(AccountantError::Epsilon { .. })));
}

#[test]
fn refuses_to_add_up_different_units() {
    let mut accountant = accountant_of(&golden());
    let other = Mechanism::new(Terms { unit: Unit::Record, ..golden() }).unwrap();
    let before = accountant.clone();
    assert_eq!(accountant.compose(&other), Err(AccountantError::OtherUnit));
    assert_eq!(accountant, before);
}

#[test]
fn refuses_an_epsilon_that_no_double_can_hold() {
    let mut terms = golden();
    terms.noise_multiplier = Real(1e-170);
    assert_eq!(accountant_of(&terms).epsilon(1e-4), Err(AccountantError::Unbounded));
}

#[test]
fn solves_for_noise_from_the_safe_side() {
    for target in [0.5, 1.0, 3.0, 8.0, 30.0] {
        let mut terms = golden();
        terms.physical_batch = smallest_physical_batch(target, &terms).unwrap();
        let sigma = solve_noise_multiplier(target, &terms).unwrap();
        let epsilon = |sigma: f64| {
            accountant_of(&Terms { noise_multiplier: Real(sigma), ..terms.clone() }).epsilon(1e-4)
        };
        assert!(epsilon(sigma).unwrap() <= target, "{target}");
        assert!(epsilon(sigma * (1.0 - 1e-4)).unwrap() > target, "{target}");
    }
}

#[test]
fn refuses_to_solve_what_has_no_solution() {
    let mut terms = golden();
    let refused = |target: f64, terms: &Terms| solve_noise_multiplier(target, terms).unwrap_err();
    for target in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(refused(target, &terms), AccountantError::Epsilon { .. }));
    }
    terms.physical_batch = 40;
    assert!(matches!(refused(1.0, &terms), AccountantError::Truncation { .. }));
    terms.delta = Real(0.01);
    let delta = OutOfRange::Delta { observed: 0.01, max_units: 512 };
    assert_eq!(refused(1.0, &terms), AccountantError::Impossible(vec![delta]));
    terms.sample_rate = Real(0.001);
    let rare = OutOfRange::TooRare { sample_rate: 0.001, max_units: 512 };
    assert_eq!(refused(1.0, &terms), AccountantError::Impossible(vec![rare, delta]));
    assert!(smallest_physical_batch(1.0, &terms).is_err());
}

fn sampling() -> Sampling {
    Sampling {
        adjacency: Adjacency::AddOrRemoveOne,
        delta: 1e-6,
        noise_multiplier: 1.2,
        sample_rate: 0.02,
        steps: 800,
    }
}

fn epsilon_of(asked: &Sampling) -> f64 {
    asked.spent().unwrap().epsilon(asked.delta).unwrap()
}

#[test]
fn solves_for_every_term_and_stays_within_the_target() {
    let asked = sampling();
    let target = 2.5;
    let noise = asked.solve(Unknown::NoiseMultiplier, target).unwrap();
    let less = noise.noise_multiplier * (1.0 - 1e-4);
    assert!(epsilon_of(&noise) <= target);
    assert!(epsilon_of(&Sampling { noise_multiplier: less, ..noise }) > target);
    let rate = asked.solve(Unknown::SampleRate, target).unwrap();
    let more = rate.sample_rate * (1.0 + 1e-4);
    assert!(epsilon_of(&rate) <= target);
    assert!(epsilon_of(&Sampling { sample_rate: more, ..rate }) > target);
    let steps = asked.solve(Unknown::Steps, target).unwrap();
    assert!(epsilon_of(&steps) <= target);
    assert!(epsilon_of(&Sampling { steps: steps.steps + 1, ..steps }) > target);
    let delta = asked.solve(Unknown::Delta, target).unwrap();
    assert!((epsilon_of(&delta) / target - 1.0).abs() < 1e-4);
}

#[test]
fn solves_for_terms_of_a_mechanism() {
    let mut terms = golden();
    terms.physical_batch = 512;
    terms.noise_multiplier = Real(1.5);
    let priced = |terms: &Terms| accountant_of(terms).epsilon(1e-4).unwrap();
    let steps = solve_steps(2.0, &terms).unwrap();
    assert!(priced(&Terms { steps, ..terms.clone() }) <= 2.0);
    assert!(priced(&Terms { steps: steps + 1, ..terms.clone() }) > 2.0);
    let rate = solve_sample_rate(2.0, &terms).unwrap();
    assert!(priced(&Terms { sample_rate: Real(rate), ..terms.clone() }) <= 2.0);
    assert!(solve_sample_rate(1e-9, &terms).is_err());
    assert!(solve_steps(1e-9, &terms).is_err());
}

#[test]
fn names_everything_about_a_sampling_that_cannot_be() {
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let asked = Sampling { noise_multiplier: bad, sample_rate: bad, delta: bad, ..sampling() };
        let all = matches!(asked.spent(), Err(AccountantError::Impossible(all)) if all.len() == 3);
        assert!(all, "{bad}");
        assert!(sampling().solve(Unknown::Steps, bad).is_err());
    }
    assert!(Sampling { steps: 0, ..sampling() }.spent().is_err());
}

#[test]
fn extreme_corners_get_an_answer_or_a_reason() {
    for (rate, sigma, steps, delta) in [
        (1e-12, 1.0, 1_000_000, 1e-10),
        (1e-300, 0.5, 10, 1e-30),
        (1e-6, 1e6, 1_000_000, 1e-30),
        (0.5, 1e8, 1_000_000, 1e-30),
        (0.01, 1.0, 1_000_000, 1e-30),
        (0.3, 0.02, 1000, 1e-30),
        (0.999_999_999, 1e-3, 1_000_000, 1e-300),
        (0.5, 1e-3, 1, 1e-30),
        (1.0, 1e-9, u32::MAX, 1e-30),
        (0.5, 1e300, 1_000_000, 0.5),
        (0.01, 2.0, u32::MAX, 1e-5),
        (f64::MIN_POSITIVE, f64::MAX, u32::MAX, f64::MIN_POSITIVE),
    ] {
        let asked =
            Sampling { noise_multiplier: sigma, sample_rate: rate, steps, delta, ..sampling() };
        match asked.spent().unwrap().bounds(delta) {
            Ok(Bounds { lower, upper, method }) => {
                assert!(0.0 <= lower && lower <= upper && upper.is_finite(), "{asked:?}");
                std::println!("{rate} {sigma} {steps} {delta}: {lower} {upper} {method:?}");
            }
            Err(error) => assert_eq!(error, AccountantError::Unbounded, "{asked:?}"),
        }
    }
}

#[test]
fn small_deltas_keep_both_bounds_close() {
    for delta in [1e-9, 1e-15, 1e-20, 1e-30, 1e-60, 1e-100] {
        let asked = Sampling { delta, ..sampling() };
        let Bounds { lower, upper, .. } = asked.spent().unwrap().bounds(delta).unwrap();
        assert!(lower <= upper && upper - lower < 1e-3 * upper, "{delta}: {lower} {upper}");
        let renyi = asked.spent().unwrap().renyi_epsilon(delta).unwrap();
        assert!(upper <= renyi, "{delta}: {upper} {renyi}");
    }
}

#[test]
fn rare_units_and_few_steps_keep_both_bounds_close() {
    for (sigma, rate, steps, delta) in [
        (0.727_68, 9.43e-4, 21, 2.64e-10),
        (0.307_87, 1.93e-3, 2, 4.76e-13),
        (0.286_90, 1.10e-4, 1, 9.26e-14),
        (0.608_62, 4.54e-6, 1, 4.20e-13),
        (0.203_52, 1.04e-5, 47, 3.71e-11),
        (0.5, 1e-5, 100_000, 1e-6),
    ] {
        let asked =
            Sampling { delta, noise_multiplier: sigma, sample_rate: rate, steps, ..sampling() };
        let Bounds { lower, upper, method } = asked.spent().unwrap().bounds(delta).unwrap();
        assert!(matches!(method, Method::Grid { .. }), "{asked:?}");
        assert!(lower <= upper && upper - lower < 1e-3 * upper, "{asked:?}: {lower} {upper}");
    }
}

#[test]
fn everyone_in_one_step_is_a_gaussian_on_the_grid_too() {
    for (sigma, steps, delta) in
        [(1.0, 1_u32, 1e-5), (3.0, 50, 1e-8), (0.5, 2, 1e-6), (2.0, 4, 1e-12)]
    {
        let mu = (f64::from(steps)).sqrt() / sigma;
        let (exact, least) = gaussian::epsilon(mu, delta).unwrap();
        let pair = Pair::new(Side::Remove, 1.0, sigma);
        let runs = [Run { pair, steps: steps.into() }];
        let all = Composition::new(&runs, Target::Delta(delta)).unwrap();
        let (upper, lower) = (all.upper(delta).unwrap(), all.lower(delta));
        assert!(lower <= exact && upper >= least, "{lower} {exact} {upper}");
        assert!(upper - lower < 3e-4 * exact, "{lower} {exact} {upper}");
    }
}

#[test]
fn the_order_of_mechanisms_changes_no_bit() {
    let terms = |rate: f64, sigma: f64, steps: u32, batch: u32| Terms {
        sample_rate: Real(rate),
        noise_multiplier: Real(sigma),
        steps,
        physical_batch: batch,
        ..golden()
    };
    let parts = [terms(0.05, 1.3, 100, 70), terms(0.02, 0.9, 50, 64), terms(1.0, 40.0, 9, 512)];
    let of = |order: [usize; 3]| {
        let mut spent = Accountant::new();
        for at in order {
            spent.compose(&Mechanism::new(parts[at].clone()).unwrap()).unwrap();
        }
        spent
    };
    let first = of([0, 1, 2]);
    let bounds = first.bounds(1e-4).unwrap();
    assert!(bounds.lower > 0.999 * bounds.upper, "{bounds:?}");
    for order in [[1, 2, 0], [2, 1, 0], [2, 0, 1]] {
        assert_eq!(of(order), first);
        assert_eq!(of(order).bounds(1e-4).unwrap(), bounds);
    }
    assert!(bounds.upper > accountant_of(&parts[0]).epsilon(1e-4).unwrap());
}

#[test]
fn replacing_costs_more_and_zeroing_the_same() {
    let of = |adjacency| epsilon_of(&Sampling { adjacency, ..sampling() });
    assert_eq!(of(Adjacency::ZeroOut), of(Adjacency::AddOrRemoveOne));
    assert!(of(Adjacency::ReplaceOne) > 1.2 * of(Adjacency::AddOrRemoveOne));
    let everyone = |adjacency| {
        epsilon_of(&Sampling { adjacency, sample_rate: 1.0, noise_multiplier: 60.0, ..sampling() })
    };
    let half = epsilon_of(&Sampling { sample_rate: 1.0, noise_multiplier: 30.0, ..sampling() });
    assert!((everyone(Adjacency::ReplaceOne) / half - 1.0).abs() < 1e-9);
}

#[test]
fn attackers_are_bounded_by_the_curve_of_a_gaussian() {
    // Everyone takes part: the curve is that of two normals a distance mu apart, here 1.
    let asked = Sampling { sample_rate: 1.0, noise_multiplier: 10.0, steps: 100, ..sampling() };
    let attack = asked.spent().unwrap().attack().unwrap();
    let normal = |x: f64| libm::erfc(-x / 2.0_f64.sqrt()) / 2.0;
    assert!((attack.advantage() - (2.0 * normal(0.5) - 1.0)).abs() < 1e-6);
    // z of 1e-2 and 1e-3.
    for (rate, z) in [(0.01, 2.326_347_874_040_841), (0.001, 3.090_232_306_167_813_5)] {
        let exact = normal(1.0 - z);
        let ours = attack.true_positive(rate);
        assert!(ours >= exact && ours < exact * 1.001, "{ours} {exact}");
    }
    let curve = attack.trade_off(11);
    assert!(curve.windows(2).all(|pair| pair[0].true_positive <= pair[1].true_positive));
    assert!(curve.iter().all(|point| point.true_positive >= point.false_positive));
    assert_eq!(attack.true_positive(f64::NAN), 1.0);
    let sampled = sampling().spent().unwrap().attack().unwrap();
    assert!(sampled.advantage() < 0.9 && sampled.true_positive(1e-3) < 0.2);
    assert_eq!(Accountant::new().attack().unwrap().advantage(), 0.0);
}

#[test]
fn nothing_spent_costs_nothing() {
    assert_eq!(Accountant::new().epsilon(1e-9), Ok(0.0));
    assert_eq!(Accountant::new().delta(0.0), Ok(0.0));
}

#[test]
fn gives_the_same_bits_as_when_it_was_written() {
    let epsilon = accountant_of(&golden()).epsilon(1e-4).unwrap();
    assert_eq!(epsilon.to_bits(), GOLDEN_EPSILON.to_bits(), "{epsilon:?}");
}

/// What the golden terms cost, with the physical batch of 64 that they have.
const GOLDEN_EPSILON: f64 = 1.520_269_713_222_659_5;

fn accountant_of(terms: &Terms) -> Accountant {
    let mut accountant = Accountant::new();
    accountant.compose(&Mechanism::new(terms.clone()).unwrap()).unwrap();
    accountant
}

fn ideal(q: f64, sigma: f64, steps: u32, delta: f64) -> f64 {
    let mut accountant = Accountant::new();
    accountant.add(q, sigma, steps);
    accountant.epsilon(delta).unwrap()
}

/// Every grid is a little coarse in its own way.
const GRID: f64 = 1.0 + 3e-4;

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn more_of_anything_costs_more(
        ln_q in -9.0_f64..0.0, sigma in 0.3_f64..50.0, steps in 1_u32..100_000,
        ln_delta in -30.0_f64..-2.0, more in 1.0_f64..2.0,
    ) {
        let (q, delta) = (f64::exp(ln_q), f64::exp(ln_delta));
        let base = ideal(q, sigma, steps, delta);
        prop_assert!(ideal(q, sigma * more, steps, delta) <= base * GRID + 1e-9);
        prop_assert!(ideal((q * more).min(1.0), sigma, steps, delta) * GRID + 1e-9 >= base);
        prop_assert!(ideal(q, sigma, steps * 2, delta) * GRID + 1e-9 >= base);
        prop_assert!(ideal(q, sigma, steps, (delta * more).min(0.99)) <= base * GRID + 1e-9);
    }

    #[test]
    fn two_halves_are_the_whole(q in 1e-4..1.0, sigma in 0.3..20.0, steps in 1_u32..10_000) {
        let (mut whole, mut halves) = (Accountant::new(), Accountant::new());
        whole.add(q, sigma, 2 * steps);
        halves.add(q, sigma, steps);
        halves.add(q, sigma, steps);
        prop_assert_eq!(whole, halves);
    }

    #[test]
    fn delta_of_epsilon_is_within_delta(sigma in 0.5..5.0, ln_delta in -25.0..-6.3) {
        let delta = f64::exp(ln_delta);
        let accountant = accountant_of(&Terms {
            noise_multiplier: Real(sigma), physical_batch: 200, ..golden()
        });
        let epsilon = accountant.epsilon(delta).unwrap();
        let back = accountant.delta(epsilon).unwrap();
        prop_assert!(back <= delta * (1.0 + 1e-2), "{back} {delta} {epsilon}");
    }

    #[test]
    fn never_panics_on_any_numbers(sigma: f64, q: f64, steps: u32, delta: f64, cap: u32) {
        let terms = Terms {
            noise_multiplier: Real(sigma), sample_rate: Real(q), steps, delta: Real(delta),
            physical_batch: cap, expected_batch: 1, max_units: u64::MAX, ..golden()
        };
        if let Ok(mechanism) = Mechanism::new(terms) {
            let mut accountant = Accountant::new();
            accountant.compose(&mechanism).unwrap();
            if let Ok(epsilon) = accountant.epsilon(delta) {
                prop_assert!(epsilon >= 0.0);
            }
        }
    }
}
