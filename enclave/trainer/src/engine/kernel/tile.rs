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

use super::matrix::{Left, Right, Target, View};
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
    /// AVX-512F, and products of bf16 weights with AVX512-BF16: activations are rounded to bf16
    /// for them.
    #[cfg(target_arch = "x86_64")]
    #[non_exhaustive]
    Avx512Bf16,
}

/// What a tile multiplies: values, or pairs of bf16. Four bytes, and implemented nowhere else.
pub(in crate::engine) trait Word: Copy + Default {
    /// `c += alpha * left * right` on a kernel.
    fn panels(
        kernel: Kernel,
        left: &Left<Self>,
        alpha: f32,
        right: &impl Right<Self>,
        c: Target<'_>,
    );
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

    /// The fastest this machine has that rounds activations to bf16 where weights are bf16.
    pub fn rounding() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if Self::all().contains(&Self::Avx512) && is_x86_feature_detected!("avx512bf16") {
            return Some(Self::Avx512Bf16);
        }
        None
    }

    /// Whether products of bf16 weights round activations.
    pub(in crate::engine) fn rounds(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Avx512Bf16 {
            return true;
        }
        false
    }

    /// The fastest this machine can run that rounds nothing.
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
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => "avx512bf16",
        }
    }

    /// Rows and columns of a tile.
    pub(super) fn tile(self) -> (usize, usize) {
        match self {
            Self::Portable => (6, 16),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => (6, 16),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Bf16 => (12, 32),
        }
    }

    /// Packs as many rows of the left matrix as a tile is high.
    pub(super) fn pack_left<W: Word>(self, view: View<'_, W>, first: usize, into: &mut [W]) {
        match self {
            Self::Portable => {
                let lay = |runs: &[&[W]], out: &mut [W]| interleave_plain::<6, W>(runs, out, 0);
                view.pack::<6>(&lay, first, 0, into);
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                #[target_feature(enable = "avx2,fma")]
                fn wide<W: Word>(view: View<'_, W>, first: usize, into: &mut [W]) {
                    view.pack::<6>(&|runs, out| interleave::<6, W>(runs, out), first, 0, into);
                }
                // SAFETY: `Kernel::Avx2` exists only where the processor has AVX2 and FMA.
                unsafe { wide(view, first, into) }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Bf16 => {
                #[target_feature(enable = "avx512f,avx2")]
                fn wide<W: Word>(view: View<'_, W>, first: usize, into: &mut [W]) {
                    view.pack::<12>(&|runs, out| interleave::<12, W>(runs, out), first, 0, into);
                }
                // SAFETY: both exist only where the processor has both features.
                unsafe { wide(view, first, into) }
            }
        }
    }
}

impl Word for f32 {
    fn panels(kernel: Kernel, left: &Left, alpha: f32, right: &impl Right<f32>, c: Target<'_>) {
        match kernel {
            Kernel::Portable => portable(left, alpha, right, c),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => {
                #[target_feature(enable = "avx2,fma")]
                fn wide(left: &Left, alpha: f32, right: &impl Right<f32>, c: Target<'_>) {
                    let multiply = |l: &[f32], r: &[f32], sum: &mut _| fused_6x16(l, r, sum);
                    let lay = |runs: &[&[f32]], out: &mut [f32]| interleave::<16, f32>(runs, out);
                    left.panels::<6, 16>(multiply, lay, alpha, right, c);
                }
                // SAFETY: `Kernel::Avx2` exists only where the processor has AVX2 and FMA.
                unsafe { wide(left, alpha, right, c) }
            }
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 | Kernel::Avx512Bf16 => {
                #[target_feature(enable = "avx512f,avx2")]
                fn wide(left: &Left, alpha: f32, right: &impl Right<f32>, c: Target<'_>) {
                    let multiply = |l: &[f32], r: &[f32], sum: &mut _| fused_12x32(l, r, sum);
                    let lay = |runs: &[&[f32]], out: &mut [f32]| interleave::<32, f32>(runs, out);
                    left.panels::<12, 32>(multiply, lay, alpha, right, c);
                }
                // SAFETY: both exist only where the processor has both features.
                unsafe { wide(left, alpha, right, c) }
            }
        }
    }
}

/// Pairs are only made for [`Kernel::Avx512Bf16`]; on any other kernel nothing is added.
impl Word for u32 {
    fn panels(
        kernel: Kernel,
        left: &Left<u32>,
        alpha: f32,
        right: &impl Right<u32>,
        c: Target<'_>,
    ) {
        debug_assert!(kernel.rounds());
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (left, alpha, right, c);
        #[cfg(target_arch = "x86_64")]
        if kernel == Kernel::Avx512Bf16 {
            #[target_feature(enable = "avx512f,avx512bf16,avx2")]
            fn wide(left: &Left<u32>, alpha: f32, right: &impl Right<u32>, c: Target<'_>) {
                let multiply = |l: &[u32], r: &[u32], sum: &mut _| rounded_12x32(l, r, sum);
                let lay = |runs: &[&[u32]], out: &mut [u32]| interleave::<32, u32>(runs, out);
                left.panels::<12, 32>(multiply, lay, alpha, right, c);
            }
            // SAFETY: `Kernel::Avx512Bf16` exists only where the processor has all three.
            unsafe { wide(left, alpha, right, c) }
        }
    }
}

/// The portable kernel, compiled for AVX2 too, which changes no bit.
fn portable(left: &Left, alpha: f32, right: &impl Right<f32>, c: Target<'_>) {
    #[inline(always)]
    fn narrow(left: &Left, alpha: f32, right: &impl Right<f32>, c: Target<'_>) {
        let lay = |runs: &[&[f32]], out: &mut [f32]| interleave_plain::<16, f32>(runs, out, 0);
        left.panels::<6, 16>(plain, lay, alpha, right, c);
    }
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn wide(left: &Left, alpha: f32, right: &impl Right<f32>, c: Target<'_>) {
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

/// A tile of AVX-512, twice as high and as wide.
///
/// Written out, as the compiler would load all twelve factors first and run out of registers: the
/// tile lies in `zmm0` to `zmm23`, row by row, one step of the right matrix in the next two.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
macro_rules! tile_12x32 {
    ($(#[$doc:meta])* $name:ident, $word:ty, $features:literal, $multiply:literal) => {
        $(#[$doc])*
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        #[inline]
        #[expect(clippy::too_many_lines, reason = "24 registers, one instruction each")]
        fn $name(left: &[$word], right: &[$word], sum: &mut [[f32; 32]; 12]) {
            let (left, right) = (left.as_chunks::<12>().0, right.as_chunks::<32>().0);
            let steps = left.len().min(right.len());
            if steps == 0 {
                return;
            }
            // SAFETY: reads `steps` chunks of 12 and of 32 words, of which there are as many, and
            // writes the 384 places of `sum`, which are one array; every register it changes is
            // named.
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
                    concat!($multiply, " zmm0, zmm24, dword ptr [{left} + 0]{{1to16}}"),
                    concat!($multiply, " zmm1, zmm25, dword ptr [{left} + 0]{{1to16}}"),
                    concat!($multiply, " zmm2, zmm24, dword ptr [{left} + 4]{{1to16}}"),
                    concat!($multiply, " zmm3, zmm25, dword ptr [{left} + 4]{{1to16}}"),
                    concat!($multiply, " zmm4, zmm24, dword ptr [{left} + 8]{{1to16}}"),
                    concat!($multiply, " zmm5, zmm25, dword ptr [{left} + 8]{{1to16}}"),
                    concat!($multiply, " zmm6, zmm24, dword ptr [{left} + 12]{{1to16}}"),
                    concat!($multiply, " zmm7, zmm25, dword ptr [{left} + 12]{{1to16}}"),
                    concat!($multiply, " zmm8, zmm24, dword ptr [{left} + 16]{{1to16}}"),
                    concat!($multiply, " zmm9, zmm25, dword ptr [{left} + 16]{{1to16}}"),
                    concat!($multiply, " zmm10, zmm24, dword ptr [{left} + 20]{{1to16}}"),
                    concat!($multiply, " zmm11, zmm25, dword ptr [{left} + 20]{{1to16}}"),
                    concat!($multiply, " zmm12, zmm24, dword ptr [{left} + 24]{{1to16}}"),
                    concat!($multiply, " zmm13, zmm25, dword ptr [{left} + 24]{{1to16}}"),
                    concat!($multiply, " zmm14, zmm24, dword ptr [{left} + 28]{{1to16}}"),
                    concat!($multiply, " zmm15, zmm25, dword ptr [{left} + 28]{{1to16}}"),
                    concat!($multiply, " zmm16, zmm24, dword ptr [{left} + 32]{{1to16}}"),
                    concat!($multiply, " zmm17, zmm25, dword ptr [{left} + 32]{{1to16}}"),
                    concat!($multiply, " zmm18, zmm24, dword ptr [{left} + 36]{{1to16}}"),
                    concat!($multiply, " zmm19, zmm25, dword ptr [{left} + 36]{{1to16}}"),
                    concat!($multiply, " zmm20, zmm24, dword ptr [{left} + 40]{{1to16}}"),
                    concat!($multiply, " zmm21, zmm25, dword ptr [{left} + 40]{{1to16}}"),
                    concat!($multiply, " zmm22, zmm24, dword ptr [{left} + 44]{{1to16}}"),
                    concat!($multiply, " zmm23, zmm25, dword ptr [{left} + 44]{{1to16}}"),
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
    };
}

tile_12x32! {
    /// `sum = leftᵀ right` with AVX-512F.
    fused_12x32, f32, "avx512f", "vfmadd231ps"
}

tile_12x32! {
    /// `sum = leftᵀ right` of pairs of bf16 with AVX512-BF16.
    rounded_12x32, u32, "avx512f,avx512bf16", "vdpbf16ps"
}

/// Lays runs of values side by side: `(depth, lanes)`; lanes without a run are left as they are.
#[inline(always)]
fn interleave_plain<const LANES: usize, W: Word>(runs: &[&[W]], into: &mut [W], done: usize) {
    for (lane, run) in runs.iter().enumerate().skip(done) {
        scatter::<LANES, W>(run, into, lane);
    }
}

/// One run, into every `LANES`-th place from `first` on.
#[inline(always)]
fn scatter<const LANES: usize, W: Word>(run: &[W], into: &mut [W], first: usize) {
    let places = into.iter_mut().skip(first).step_by(LANES);
    places.zip(run).for_each(|(place, value)| *place = *value);
}

/// Eight runs and eight steps at a time, turned in registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn interleave<const LANES: usize, W: Word>(runs: &[&[W]], into: &mut [W]) {
    let (eights, _) = runs.as_chunks::<8>();
    for (eight, runs) in eights.iter().enumerate() {
        let steps = runs.iter().map(|run| run.len()).min().unwrap_or(0) / 8 * 8;
        let runs = runs.map(|run| run.as_chunks::<8>());
        let mut columns = runs.map(|(chunks, _)| chunks.iter());
        for step in (0..steps).step_by(8) {
            let rows = columns.each_mut().map(|chunks| match chunks.next() {
                // SAFETY: the array has eight words of four bytes.
                Some(chunk) => unsafe { _mm256_loadu_ps(chunk.as_ptr().cast()) },
                None => _mm256_setzero_ps(),
            });
            for (row, values) in turn_eight(rows).into_iter().enumerate() {
                let start = (step + row) * LANES + eight * 8;
                if let Some(out) = into.get_mut(start..).and_then(|out| out.first_chunk_mut::<8>())
                {
                    // SAFETY: the array has eight places of four bytes.
                    unsafe { _mm256_storeu_ps(out.as_mut_ptr().cast(), values) };
                }
            }
        }
        for (lane, (_, rest)) in (eight * 8..).zip(runs) {
            scatter::<LANES, W>(rest, into, lane + steps * LANES);
        }
    }
    interleave_plain::<LANES, W>(runs, into, eights.len() * 8);
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
