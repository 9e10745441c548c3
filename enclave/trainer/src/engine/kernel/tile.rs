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

use super::matrix::{Left, Target, View, pack};
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

    /// Packs as many rows of the left matrix as a tile is high.
    pub(super) fn pack_left(self, view: View<'_>, first: usize, into: &mut [f32]) {
        match self {
            Self::Portable => {
                let interleave = |runs: &[&[f32]], out: &mut [f32]| {
                    interleave_plain::<6>(runs, out, 0);
                };
                pack::<6>(&interleave, view, first, 0, into);
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                #[target_feature(enable = "avx2,fma")]
                fn wide(view: View<'_>, first: usize, into: &mut [f32]) {
                    pack::<6>(&|runs, out| interleave::<6>(runs, out), view, first, 0, into);
                }
                // SAFETY: `Kernel::Avx2` exists only where the processor has AVX2 and FMA.
                unsafe { wide(view, first, into) }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                #[target_feature(enable = "avx512f,avx2")]
                fn wide(view: View<'_>, first: usize, into: &mut [f32]) {
                    pack::<12>(&|runs, out| interleave::<12>(runs, out), view, first, 0, into);
                }
                // SAFETY: `Kernel::Avx512` exists only where the processor has both.
                unsafe { wide(view, first, into) }
            }
        }
    }

    /// `c += alpha * left * right` on this kernel.
    pub(super) fn panels(self, left: &Left, alpha: f32, right: View<'_>, c: Target<'_>) {
        match self {
            Self::Portable => portable(left, alpha, right, c),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                #[target_feature(enable = "avx2,fma")]
                fn wide(left: &Left, alpha: f32, right: View<'_>, c: Target<'_>) {
                    let multiply = |l: &[f32], r: &[f32], sum: &mut _| fused_6x16(l, r, sum);
                    let lay = |runs: &[&[f32]], out: &mut [f32]| interleave::<16>(runs, out);
                    left.panels::<6, 16>(multiply, lay, alpha, right, c);
                }
                // SAFETY: `Kernel::Avx2` exists only where the processor has AVX2 and FMA.
                unsafe { wide(left, alpha, right, c) }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                #[target_feature(enable = "avx512f,avx2")]
                fn wide(left: &Left, alpha: f32, right: View<'_>, c: Target<'_>) {
                    let multiply = |l: &[f32], r: &[f32], sum: &mut _| fused_12x32(l, r, sum);
                    let lay = |runs: &[&[f32]], out: &mut [f32]| interleave::<32>(runs, out);
                    left.panels::<12, 32>(multiply, lay, alpha, right, c);
                }
                // SAFETY: `Kernel::Avx512` exists only where the processor has both.
                unsafe { wide(left, alpha, right, c) }
            }
        }
    }
}

/// The portable kernel, compiled for AVX2 too, which changes no bit.
fn portable(left: &Left, alpha: f32, right: View<'_>, c: Target<'_>) {
    #[inline(always)]
    fn narrow(left: &Left, alpha: f32, right: View<'_>, c: Target<'_>) {
        let lay = |runs: &[&[f32]], out: &mut [f32]| interleave_plain::<16>(runs, out, 0);
        left.panels::<6, 16>(plain, lay, alpha, right, c);
    }
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn wide(left: &Left, alpha: f32, right: View<'_>, c: Target<'_>) {
            narrow(left, alpha, right, c);
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has just said that it has AVX2.
            return unsafe { wide(left, alpha, right, c) };
        }
    }
    narrow(left, alpha, right, c);
}

/// `sum += leftᵀ right`: left is `(depth, 6)`, right `(depth, 16)`.
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
#[target_feature(enable = "avx2,fma")]
#[inline]
fn fused_6x16(left: &[f32], right: &[f32], sum: &mut [[f32; 16]; 6]) {
    let mut local = [[_mm256_setzero_ps(); 2]; 6];
    for (left, right) in left.as_chunks::<6>().0.iter().zip(right.as_chunks::<16>().0) {
        // SAFETY: `right` has sixteen values: eight from each of the two places.
        let right =
            unsafe { [_mm256_loadu_ps(right.as_ptr()), _mm256_loadu_ps(right.as_ptr().add(8))] };
        for (sum, left) in local.iter_mut().zip(left) {
            let left = _mm256_set1_ps(*left);
            for (sum, right) in sum.iter_mut().zip(right) {
                *sum = _mm256_fmadd_ps(left, right, *sum);
            }
        }
    }
    for (sum, [low, high]) in sum.iter_mut().zip(local) {
        // SAFETY: `sum` has sixteen places: eight from each of the two.
        unsafe {
            _mm256_storeu_ps(sum.as_mut_ptr(), low);
            _mm256_storeu_ps(sum.as_mut_ptr().add(8), high);
        }
    }
}

/// The same with AVX-512F, twice as high and as wide.
///
/// Written out, as the compiler would load all twelve factors first and run out of registers: the
/// tile lies in `zmm0` to `zmm23`, row by row, one step of the right matrix in the next two.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
#[rustfmt::skip]
#[expect(clippy::too_many_lines, reason = "24 registers, one instruction each")]
fn fused_12x32(left: &[f32], right: &[f32], sum: &mut [[f32; 32]; 12]) {
    let (left, right) = (left.as_chunks::<12>().0, right.as_chunks::<32>().0);
    let steps = left.len().min(right.len());
    if steps == 0 {
        return;
    }
    // SAFETY: reads `steps` chunks of 12 and of 32 values, of which there are as many, and writes
    // the 384 places of `sum`, which are one array; every register it changes is named.
    unsafe {
        core::arch::asm!(
            "vpxord zmm0, zmm0, zmm0",
            "vpxord zmm1, zmm1, zmm1",
            "vpxord zmm2, zmm2, zmm2",
            "vpxord zmm3, zmm3, zmm3",
            "vpxord zmm4, zmm4, zmm4",
            "vpxord zmm5, zmm5, zmm5",
            "vpxord zmm6, zmm6, zmm6",
            "vpxord zmm7, zmm7, zmm7",
            "vpxord zmm8, zmm8, zmm8",
            "vpxord zmm9, zmm9, zmm9",
            "vpxord zmm10, zmm10, zmm10",
            "vpxord zmm11, zmm11, zmm11",
            "vpxord zmm12, zmm12, zmm12",
            "vpxord zmm13, zmm13, zmm13",
            "vpxord zmm14, zmm14, zmm14",
            "vpxord zmm15, zmm15, zmm15",
            "vpxord zmm16, zmm16, zmm16",
            "vpxord zmm17, zmm17, zmm17",
            "vpxord zmm18, zmm18, zmm18",
            "vpxord zmm19, zmm19, zmm19",
            "vpxord zmm20, zmm20, zmm20",
            "vpxord zmm21, zmm21, zmm21",
            "vpxord zmm22, zmm22, zmm22",
            "vpxord zmm23, zmm23, zmm23",
            "2:",
            "vmovups zmm24, [{right}]",
            "vmovups zmm25, [{right} + 64]",
            "vfmadd231ps zmm0, zmm24, dword ptr [{left} + 0]{{1to16}}",
            "vfmadd231ps zmm1, zmm25, dword ptr [{left} + 0]{{1to16}}",
            "vfmadd231ps zmm2, zmm24, dword ptr [{left} + 4]{{1to16}}",
            "vfmadd231ps zmm3, zmm25, dword ptr [{left} + 4]{{1to16}}",
            "vfmadd231ps zmm4, zmm24, dword ptr [{left} + 8]{{1to16}}",
            "vfmadd231ps zmm5, zmm25, dword ptr [{left} + 8]{{1to16}}",
            "vfmadd231ps zmm6, zmm24, dword ptr [{left} + 12]{{1to16}}",
            "vfmadd231ps zmm7, zmm25, dword ptr [{left} + 12]{{1to16}}",
            "vfmadd231ps zmm8, zmm24, dword ptr [{left} + 16]{{1to16}}",
            "vfmadd231ps zmm9, zmm25, dword ptr [{left} + 16]{{1to16}}",
            "vfmadd231ps zmm10, zmm24, dword ptr [{left} + 20]{{1to16}}",
            "vfmadd231ps zmm11, zmm25, dword ptr [{left} + 20]{{1to16}}",
            "vfmadd231ps zmm12, zmm24, dword ptr [{left} + 24]{{1to16}}",
            "vfmadd231ps zmm13, zmm25, dword ptr [{left} + 24]{{1to16}}",
            "vfmadd231ps zmm14, zmm24, dword ptr [{left} + 28]{{1to16}}",
            "vfmadd231ps zmm15, zmm25, dword ptr [{left} + 28]{{1to16}}",
            "vfmadd231ps zmm16, zmm24, dword ptr [{left} + 32]{{1to16}}",
            "vfmadd231ps zmm17, zmm25, dword ptr [{left} + 32]{{1to16}}",
            "vfmadd231ps zmm18, zmm24, dword ptr [{left} + 36]{{1to16}}",
            "vfmadd231ps zmm19, zmm25, dword ptr [{left} + 36]{{1to16}}",
            "vfmadd231ps zmm20, zmm24, dword ptr [{left} + 40]{{1to16}}",
            "vfmadd231ps zmm21, zmm25, dword ptr [{left} + 40]{{1to16}}",
            "vfmadd231ps zmm22, zmm24, dword ptr [{left} + 44]{{1to16}}",
            "vfmadd231ps zmm23, zmm25, dword ptr [{left} + 44]{{1to16}}",
            "add {left}, 48",
            "add {right}, 128",
            "dec {steps}",
            "jnz 2b",
            "vmovups [{sum} + 0], zmm0",
            "vmovups [{sum} + 64], zmm1",
            "vmovups [{sum} + 128], zmm2",
            "vmovups [{sum} + 192], zmm3",
            "vmovups [{sum} + 256], zmm4",
            "vmovups [{sum} + 320], zmm5",
            "vmovups [{sum} + 384], zmm6",
            "vmovups [{sum} + 448], zmm7",
            "vmovups [{sum} + 512], zmm8",
            "vmovups [{sum} + 576], zmm9",
            "vmovups [{sum} + 640], zmm10",
            "vmovups [{sum} + 704], zmm11",
            "vmovups [{sum} + 768], zmm12",
            "vmovups [{sum} + 832], zmm13",
            "vmovups [{sum} + 896], zmm14",
            "vmovups [{sum} + 960], zmm15",
            "vmovups [{sum} + 1024], zmm16",
            "vmovups [{sum} + 1088], zmm17",
            "vmovups [{sum} + 1152], zmm18",
            "vmovups [{sum} + 1216], zmm19",
            "vmovups [{sum} + 1280], zmm20",
            "vmovups [{sum} + 1344], zmm21",
            "vmovups [{sum} + 1408], zmm22",
            "vmovups [{sum} + 1472], zmm23",
            left = inout(reg) left.as_ptr() => _,
            right = inout(reg) right.as_ptr() => _,
            steps = inout(reg) steps => _,
            sum = in(reg) sum.as_mut_ptr(),
            out("zmm0") _,
            out("zmm1") _,
            out("zmm2") _,
            out("zmm3") _,
            out("zmm4") _,
            out("zmm5") _,
            out("zmm6") _,
            out("zmm7") _,
            out("zmm8") _,
            out("zmm9") _,
            out("zmm10") _,
            out("zmm11") _,
            out("zmm12") _,
            out("zmm13") _,
            out("zmm14") _,
            out("zmm15") _,
            out("zmm16") _,
            out("zmm17") _,
            out("zmm18") _,
            out("zmm19") _,
            out("zmm20") _,
            out("zmm21") _,
            out("zmm22") _,
            out("zmm23") _,
            out("zmm24") _,
            out("zmm25") _,
            options(nostack),
        );
    }
}

/// Lays runs of values side by side: `(depth, lanes)`; lanes without a run are left as they are.
#[inline(always)]
fn interleave_plain<const LANES: usize>(runs: &[&[f32]], into: &mut [f32], done: usize) {
    for (lane, run) in runs.iter().enumerate().skip(done) {
        scatter::<LANES>(run, into, lane);
    }
}

/// One run, into every `LANES`-th place from `first` on.
#[inline(always)]
fn scatter<const LANES: usize>(run: &[f32], into: &mut [f32], first: usize) {
    let places = into.iter_mut().skip(first).step_by(LANES);
    places.zip(run).for_each(|(place, value)| *place = *value);
}

/// Eight runs and eight steps at a time, turned in registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn interleave<const LANES: usize>(runs: &[&[f32]], into: &mut [f32]) {
    let (eights, _) = runs.as_chunks::<8>();
    for (eight, runs) in eights.iter().enumerate() {
        let steps = runs.iter().map(|run| run.len()).min().unwrap_or(0) / 8 * 8;
        let runs = runs.map(|run| run.as_chunks::<8>());
        let mut columns = runs.map(|(chunks, _)| chunks.iter());
        for step in (0..steps).step_by(8) {
            let rows = columns.each_mut().map(|chunks| match chunks.next() {
                // SAFETY: the array has eight values.
                Some(chunk) => unsafe { _mm256_loadu_ps(chunk.as_ptr()) },
                None => _mm256_setzero_ps(),
            });
            for (row, values) in turn_eight(rows).into_iter().enumerate() {
                let start = (step + row) * LANES + eight * 8;
                if let Some(out) = into.get_mut(start..).and_then(|out| out.first_chunk_mut::<8>())
                {
                    // SAFETY: the array has eight places.
                    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), values) };
                }
            }
        }
        for (lane, (_, rest)) in (eight * 8..).zip(runs) {
            scatter::<LANES>(rest, into, lane + steps * LANES);
        }
    }
    interleave_plain::<LANES>(runs, into, eights.len() * 8);
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
