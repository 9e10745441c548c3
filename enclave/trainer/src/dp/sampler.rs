//! Truncated Poisson sampling over privacy units.
//!
//! 1. Every unit joins with probability q: a uniform 64-bit number is below the threshold.
//! 2. If more joined than a step has slots, a uniformly drawn subset that fits stays. This is the
//!    sampler the accountant describes (arXiv 2508.15089); the threshold is the mechanism's own.
//! 3. Of a unit that stays, a uniformly drawn set of at most k records is looked at.
//!
//! No epochs, no shuffling, no grouping by length: nothing but these coins decides.

use super::below;
use super::key::BatchStream;
use crate::real::index_of;
use measurement::privacy::Mechanism;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use zeroize::Zeroizing;

/// Who is in a step. Secret: whoever knows it knows the sample.
pub struct Batch(Vec<Slot>);

/// A unit that joined, and which of its records are looked at.
pub struct Slot {
    pub(crate) unit: usize,
    pub(crate) records: Zeroizing<Vec<usize>>,
}

impl Batch {
    /// Draws a batch among units with the given numbers of records.
    pub fn draw(mechanism: &Mechanism, records: &[usize], stream: BatchStream) -> Self {
        let BatchStream(mut stream) = stream;
        let threshold = mechanism.sample_threshold();
        let mut joined = Zeroizing::new(Vec::new());
        for unit in 0..records.len() {
            if u128::from(stream.next_u64()) < threshold {
                joined.push(unit);
            }
        }
        choose(&mut stream, &mut joined, index_of(mechanism.physical_batch));
        let most = index_of(mechanism.records_per_unit);
        let slot = |&unit: &usize| {
            let count = records.get(unit).copied().unwrap_or(0);
            let mut records = Zeroizing::new((0..count).collect());
            choose(&mut stream, &mut records, most);
            Slot { unit, records }
        };
        Self(joined.iter().map(slot).collect())
    }

    /// The slots in use; at most the physical batch.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.0
    }
}

/// Keeps a uniformly drawn subset of at most `most` (Fisher and Yates, stopped early).
fn choose(stream: &mut ChaCha20Rng, all: &mut Vec<usize>, most: usize) {
    let count = all.len();
    if count <= most {
        return;
    }
    for place in 0..most {
        let left = u64::try_from(count - place).unwrap_or(u64::MAX);
        let ahead = usize::try_from(below(stream, left)).unwrap_or(0);
        all.swap(place, place + ahead);
    }
    all.truncate(most);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::as_conversions)]
    use super::*;
    use crate::golden;
    use rand_core::SeedableRng;

    static_assertions::assert_not_impl_any!(Batch: core::fmt::Debug, Clone);

    fn draw(q: f64, slots: u32, k: u32, records: &[usize], seed: u8) -> Batch {
        let mechanism = golden::mechanism(|terms| {
            terms.sample_rate.0 = q;
            terms.physical_batch = slots;
            terms.expected_batch = 1;
            terms.records_per_unit = k;
        });
        Batch::draw(&mechanism, records, BatchStream(ChaCha20Rng::from_seed([seed; 32])))
    }

    #[test]
    fn every_unit_joins_with_the_sample_rate() {
        let records = vec![1; 40_000];
        let batch = draw(0.3, 40_000, 1, &records, 1);
        let count = batch.slots().len() as f64;
        let (mean, sd) = (12_000.0, (40_000.0_f64 * 0.3 * 0.7).sqrt());
        assert!((count - mean).abs() < 5.0 * sd, "{count}");
        // Independent: neighbours join together as often as chance says.
        let joined: std::collections::BTreeSet<usize> =
            batch.slots().iter().map(|s| s.unit).collect();
        let pairs = joined.iter().filter(|unit| joined.contains(&(*unit + 1))).count() as f64;
        assert!((pairs - 3_600.0).abs() < 5.0 * 60.0, "{pairs}");
    }

    #[test]
    fn ten_million_coins_have_the_sizes_and_the_gaps_of_the_law() {
        let (units, q, rounds) = (50_000, 0.01, 200_u8);
        let records = vec![1; units];
        let (mut sizes, mut gaps) = (Vec::new(), vec![0_u32; 400]);
        for seed in 0..rounds {
            let batch = draw(q, 50_000, 1, &records, seed);
            sizes.push(batch.slots().len() as f64);
            for pair in batch.slots().windows(2) {
                gaps[(pair[1].unit - pair[0].unit - 1).min(399)] += 1;
            }
        }
        let mean = sizes.iter().sum::<f64>() / f64::from(rounds);
        let variance = sizes.iter().map(|size| (size - mean).powi(2)).sum::<f64>() / 199.0;
        let expected = units as f64 * q * (1.0 - q);
        assert!((mean - 500.0).abs() < 6.0 * (expected / 200.0).sqrt(), "{mean}");
        // The variance of 200 sizes is off by a tenth of itself, as a deviation.
        assert!((variance / expected - 1.0).abs() < 0.6, "{variance}");
        // Geometric gaps, but for the end of the list.
        let all: f64 = gaps.iter().map(|count| f64::from(*count)).sum();
        let distance: f64 = (0..300)
            .map(|gap| {
                let expected = all * q * (1.0 - q).powi(gap);
                (f64::from(gaps[gap as usize]) - expected).powi(2) / expected
            })
            .sum();
        // Chi-squared with 300 degrees of freedom: mean 300, deviation 24.5.
        assert!((300.0 - 6.0 * 24.5..300.0 + 6.0 * 24.5).contains(&distance), "{distance}");
    }

    #[test]
    fn everyone_joins_at_rate_one() {
        assert_eq!(draw(1.0, 50, 1, &[1; 50], 1).slots().len(), 50);
    }

    #[test]
    fn keeps_a_uniform_subset_where_the_slots_end() {
        let mut kept = vec![0_u32; 20];
        for seed in 0..=255 {
            let batch = draw(1.0, 5, 1, &[1; 20], seed);
            assert_eq!(batch.slots().len(), 5);
            batch.slots().iter().for_each(|slot| kept[slot.unit] += 1);
        }
        // 256 trials at 1/4: mean 64, deviation 6.9.
        assert!(kept.iter().all(|count| (36..=92).contains(count)), "{kept:?}");
    }

    #[test]
    fn looks_at_no_more_than_k_records_and_at_all_alike() {
        let mut seen = vec![0_u32; 10];
        for seed in 0..=255 {
            let batch = draw(1.0, 4, 3, &[10, 2, 0], seed);
            let counts: Vec<_> = batch.slots().iter().map(|slot| slot.records.len()).collect();
            assert_eq!(counts, [3, 2, 0]);
            let mut records = batch.slots()[0].records.to_vec();
            records.dedup();
            assert_eq!(records.len(), 3);
            records.iter().for_each(|record| seen[*record] += 1);
        }
        // 256 trials at 3/10: mean 77, deviation 7.3.
        assert!(seen.iter().all(|count| (47..=107).contains(count)), "{seen:?}");
    }

    #[test]
    fn looks_at_k_of_a_million_records_of_one_unit() {
        let batch = draw(1.0, 4, 3, &[1_000_000, 1], 1);
        let counts: Vec<_> = batch.slots().iter().map(|slot| slot.records.len()).collect();
        assert_eq!(counts, [3, 1]);
    }

    #[test]
    fn a_draw_below_a_bound_is_unbiased_at_the_top() {
        let mut stream = ChaCha20Rng::from_seed([5; 32]);
        let third = u64::MAX / 3 * 2;
        let high = (0..3_000).filter(|_| below(&mut stream, third) >= third / 2).count();
        assert!((1_350..=1_650).contains(&high), "{high}");
        assert_eq!(below(&mut stream, 1), 0);
        assert_eq!(below(&mut stream, 0), 0);
    }
}
