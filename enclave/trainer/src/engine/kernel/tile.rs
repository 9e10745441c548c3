//! The tile of registers at the heart of a product, for each instruction set.
//!
//! [`Kernel::Portable`] uses no fused multiply-add: the same bits on every machine. The others
//! fuse, so each has bits of its own, and its name is part of an engine's identity.
//!
//! # Unsafe
//! Two kinds. A function compiled for an instruction set may only be called where the processor
//! has it: a [`Kernel`] other than the portable one is only made by [`Kernel::all`], behind that
//! question. And vector loads take pointers: each is made from an array or chunk whose length the
//! type states.

#![allow(unsafe_code, reason = "vector registers: see the module's text, and each block's reason")]

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// An instruction set that products are computed with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Kernel {
    /// Plain multiplications and additions, the same bits on every machine.
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    #[non_exhaustive]
    Avx2,
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    #[non_exhaustive]
    Avx512,
}

/// Columns of the widest tile.
pub(super) const WIDEST: usize = 32;

impl Kernel {
    /// The kernels this machine can run, the fastest last.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx2") {
                all.push(Self::Avx512);
            }
        }
        all
    }

    /// The fastest this machine can run.
    pub fn fastest() -> Self {
        Self::all().pop().unwrap_or(Self::Portable)
    }

    /// The name an engine's identity has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2+fma",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512f",
        }
    }

    /// Rows and columns of a tile.
    pub(super) fn tile(self) -> (usize, usize) {
        match self {
            Self::Portable => (6, 16),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => (6, 16),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => (12, 32),
        }
    }
}

/// `sum += left rightᵀ`: left is `(depth, 6)`, right `(depth, 16)`.
pub(super) fn portable(left: &[f32], right: &[f32], sum: &mut [[f32; 16]; 6]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn wide(left: &[f32], right: &[f32], sum: &mut [[f32; 16]; 6]) {
            plain(left, right, sum);
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has just said that it has AVX2.
            return unsafe { wide(left, right, sum) };
        }
    }
    plain(left, right, sum);
}

#[inline(always)]
fn plain(left: &[f32], right: &[f32], sum: &mut [[f32; 16]; 6]) {
    let mut local = *sum;
    for (left, right) in left.as_chunks::<6>().0.iter().zip(right.as_chunks::<16>().0) {
        for (sum, left) in local.iter_mut().zip(left) {
            for (sum, right) in sum.iter_mut().zip(right) {
                *sum += left * right;
            }
        }
    }
    *sum = local;
}

/// The same with AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx2(left: &[f32], right: &[f32], sum: &mut [[f32; 16]; 6]) {
    #[target_feature(enable = "avx2,fma")]
    fn fused(left: &[f32], right: &[f32], sum: &mut [[f32; 16]; 6]) {
        let mut local = [[_mm256_setzero_ps(); 2]; 6];
        for (left, right) in left.as_chunks::<6>().0.iter().zip(right.as_chunks::<16>().0) {
            // SAFETY: `right` has sixteen values: eight from each of the two places.
            let right = unsafe {
                [_mm256_loadu_ps(right.as_ptr()), _mm256_loadu_ps(right.as_ptr().add(8))]
            };
            for (sum, left) in local.iter_mut().zip(left) {
                let left = _mm256_set1_ps(*left);
                sum[0] = _mm256_fmadd_ps(left, right[0], sum[0]);
                sum[1] = _mm256_fmadd_ps(left, right[1], sum[1]);
            }
        }
        for (sum, local) in sum.iter_mut().zip(local) {
            // SAFETY: `sum` has sixteen places: eight from each of the two.
            unsafe {
                _mm256_storeu_ps(sum.as_mut_ptr(), local[0]);
                _mm256_storeu_ps(sum.as_mut_ptr().add(8), local[1]);
            }
        }
    }
    // SAFETY: `Kernel::Avx2` exists only where the processor has AVX2 and FMA.
    unsafe { fused(left, right, sum) }
}

/// The same with AVX-512F, twice as high and as wide.
///
/// The multiplication is written out, as the compiler would load all twelve factors first and run
/// out of registers.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx512(left: &[f32], right: &[f32], sum: &mut [[f32; 32]; 12]) {
    #[target_feature(enable = "avx512f")]
    fn fused(left: &[f32], right: &[f32], sum: &mut [[f32; 32]; 12]) {
        let mut local = [[_mm512_setzero_ps(); 2]; 12];
        for (left, right) in left.as_chunks::<12>().0.iter().zip(right.as_chunks::<32>().0) {
            // SAFETY: `right` has 32 values: sixteen from each of the two places.
            let right = unsafe {
                [_mm512_loadu_ps(right.as_ptr()), _mm512_loadu_ps(right.as_ptr().add(16))]
            };
            for (sum, left) in local.iter_mut().zip(left) {
                for (sum, right) in sum.iter_mut().zip(right) {
                    // SAFETY: reads one value, `left`, and changes nothing but `sum`.
                    unsafe {
                        core::arch::asm!(
                            "vfmadd231ps {sum}, {right}, dword ptr [{left}]{{1to16}}",
                            sum = inout(zmm_reg) *sum,
                            right = in(zmm_reg) right,
                            left = in(reg) core::ptr::from_ref(left),
                            options(pure, readonly, nostack, preserves_flags),
                        );
                    }
                }
            }
        }
        for (sum, local) in sum.iter_mut().zip(local) {
            // SAFETY: `sum` has 32 places: sixteen from each of the two.
            unsafe {
                _mm512_storeu_ps(sum.as_mut_ptr(), local[0]);
                _mm512_storeu_ps(sum.as_mut_ptr().add(16), local[1]);
            }
        }
    }
    // SAFETY: `Kernel::Avx512` exists only where the processor has AVX-512F.
    unsafe { fused(left, right, sum) }
}

/// Lays runs of values side by side: `(depth, lanes)`; lanes without a run are left as they are.
pub(super) fn interleave(kernel: Kernel, runs: &[&[f32]], lanes: usize, into: &mut [f32]) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if kernel != Kernel::Portable {
        // SAFETY: both other kernels exist only where the processor has AVX2.
        done = unsafe { interleave_eight(runs, lanes, into) };
    }
    for (lane, run) in runs.iter().enumerate().skip(done) {
        scatter(run, lanes, into, lane);
    }
}

/// One run, into every `lanes`-th place from `first` on.
#[inline(always)]
fn scatter(run: &[f32], lanes: usize, into: &mut [f32], first: usize) {
    let places = into.iter_mut().skip(first).step_by(lanes);
    places.zip(run).for_each(|(place, value)| *place = *value);
}

/// Eight runs by eight steps at a time, turned in registers; returns how many lanes are done.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn interleave_eight(runs: &[&[f32]], lanes: usize, into: &mut [f32]) -> usize {
    let (eights, _) = runs.as_chunks::<8>();
    for (eight, runs) in eights.iter().enumerate() {
        let steps = runs.iter().map(|run| run.len()).min().unwrap_or(0) / 8 * 8;
        for step in (0..steps).step_by(8) {
            let rows =
                runs.map(|run| match run.get(step..).and_then(|run| run.first_chunk::<8>()) {
                    // SAFETY: the array has eight values.
                    Some(run) => unsafe { _mm256_loadu_ps(run.as_ptr()) },
                    None => _mm256_setzero_ps(),
                });
            for (row, values) in turn_eight(rows).into_iter().enumerate() {
                let start = (step + row) * lanes + eight * 8;
                if let Some(out) = into.get_mut(start..).and_then(|out| out.first_chunk_mut::<8>())
                {
                    // SAFETY: the array has eight places.
                    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), values) };
                }
            }
        }
        for (lane, run) in (eight * 8..).zip(runs) {
            scatter(run.get(steps..).unwrap_or_default(), lanes, into, lane + steps * lanes);
        }
    }
    eights.len() * 8
}

/// Rows as columns: pairs, then fours, then halves change places.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn turn_eight(r: [__m256; 8]) -> [__m256; 8] {
    let [a, b, c, d, e, f, g, h] = r;
    let t = [
        _mm256_unpacklo_ps(a, b),
        _mm256_unpackhi_ps(a, b),
        _mm256_unpacklo_ps(c, d),
        _mm256_unpackhi_ps(c, d),
        _mm256_unpacklo_ps(e, f),
        _mm256_unpackhi_ps(e, f),
        _mm256_unpacklo_ps(g, h),
        _mm256_unpackhi_ps(g, h),
    ];
    let s = [
        _mm256_shuffle_ps::<0x44>(t[0], t[2]),
        _mm256_shuffle_ps::<0xee>(t[0], t[2]),
        _mm256_shuffle_ps::<0x44>(t[1], t[3]),
        _mm256_shuffle_ps::<0xee>(t[1], t[3]),
        _mm256_shuffle_ps::<0x44>(t[4], t[6]),
        _mm256_shuffle_ps::<0xee>(t[4], t[6]),
        _mm256_shuffle_ps::<0x44>(t[5], t[7]),
        _mm256_shuffle_ps::<0xee>(t[5], t[7]),
    ];
    let [k, l, m, n, o, p, q, r] = s;
    [
        _mm256_permute2f128_ps::<0x20>(k, o),
        _mm256_permute2f128_ps::<0x20>(l, p),
        _mm256_permute2f128_ps::<0x20>(m, q),
        _mm256_permute2f128_ps::<0x20>(n, r),
        _mm256_permute2f128_ps::<0x31>(k, o),
        _mm256_permute2f128_ps::<0x31>(l, p),
        _mm256_permute2f128_ps::<0x31>(m, q),
        _mm256_permute2f128_ps::<0x31>(n, r),
    ]
}
