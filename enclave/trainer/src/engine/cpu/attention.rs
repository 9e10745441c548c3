//! Causal attention in stripes of queries. Keys after a stripe, and before its window, are not
//! multiplied at all; weights are computed again in the backward pass, so that memory grows with
//! the length and not with its square.

use super::super::kernel::{Kernel, Target, View, dot, exponentials, product, soften};
use super::norm::Norm;
use super::{EngineError, Lender};
use crate::model::config;
use crate::model::rotary::Pairing;

/// The attention of one block, on queries, keys and values side by side.
pub(super) struct Attention<'m> {
    kernel: Kernel,
    head: usize,
    width: usize,             // of queries, keys and values side by side
    columns: Vec<[usize; 3]>, // of each query head, its key head and its value head
    scale: f32,
    window: Option<usize>,
    cap: Option<f32>,
    rotary: Option<Rotary>,
    norms: Option<[Norm<'m>; 2]>,
}

/// Angles of the columns that turn.
struct Rotary {
    cos: Vec<f32>, // (positions, half)
    sin: Vec<f32>, // (positions, half)
    half: usize,
    pairing: Pairing,
}

/// What the backward pass needs.
pub(super) struct Trace {
    pub(super) raw: Option<Vec<f32>>, // (positions, width), where heads are normed
    pub(super) qkv: Vec<f32>,         // (positions, width), normed and rotated
    pub(super) mixed: Vec<f32>,       // (positions, heads * head)
}

/// Queries at a time.
const STRIPE: usize = 64;

impl<'m> Attention<'m> {
    pub(super) fn new(
        weights: &Lender<'m>,
        block: &config::Block,
        positions: usize,
        kernel: Kernel,
    ) -> Result<Self, EngineError> {
        let model = weights.config();
        let config::Attention { scale, window, cap, .. } = block.attention;
        let rotary = block.attention.rotary.map(|rotary| {
            let (cos, sin) = rotary.angles(positions);
            Rotary { cos, sin, half: rotary.width / 2, pairing: rotary.pairing }
        });
        let norms = match &block.attention.head_norms {
            Some([of_q, of_k]) => Some([Norm::new(weights, of_q)?, Norm::new(weights, of_k)?]),
            None => None,
        };
        Ok(Self {
            kernel,
            head: model.head_dim,
            width: model.qkv_width(),
            columns: (0..model.heads).map(|head| model.head_columns(block, head)).collect(),
            scale,
            window,
            cap,
            rotary,
            norms,
        })
    }

    fn query_width(&self) -> usize {
        self.columns.len() * self.head
    }

    /// Appends positions to those in `cache`, (positions, width) normed and rotated, and lets each
    /// look at what it sees of them all. Returns what was appended as it came, where heads are
    /// normed, and the result.
    pub(super) fn forward(
        &self,
        mut qkv: Vec<f32>,
        cache: &mut Vec<f32>,
    ) -> (Option<Vec<f32>>, Vec<f32>) {
        let before = cache.len() / self.width;
        let raw = self.norms.as_ref().map(|norms| {
            let raw = qkv.clone();
            for row in qkv.chunks_exact_mut(self.width) {
                for (norm, columns) in norms.iter().zip(self.normed()) {
                    columns.iter().for_each(|at| norm.row(cut(row, *at, self.head)));
                }
            }
            raw
        });
        self.rotate(&mut qkv, before, 1.0);
        let rows = qkv.len() / self.width;
        cache.append(&mut qkv);
        let mut mixed = vec![0.0; rows * self.query_width()];
        for (place, columns) in self.columns.iter().enumerate() {
            let [q, k, v] = columns.map(|at| View::new(cache, self.width).columns(at, self.head));
            for stripe in self.stripes(before, before + rows) {
                let weights = self.weights(&stripe, q, k).0;
                let weights = View::new(&weights, stripe.keys);
                let v = v.rows(stripe.first_key, stripe.keys);
                let into = Target::new(&mut mixed, self.query_width());
                let into = into.columns(place * self.head, self.head);
                let into = into.rows(stripe.first - before, stripe.rows);
                product(self.kernel, 1.0, weights, v, into);
            }
        }
        (raw, mixed)
    }

    /// The gradient of what [`Attention::forward`] was given.
    pub(super) fn backward(&self, trace: &Trace, g_mixed: &[f32]) -> Vec<f32> {
        let (width, head) = (self.width, self.head);
        let mut g_qkv = vec![0.0; trace.qkv.len()]; // (positions, width)
        let positions = trace.qkv.len() / width;
        let g_mixed = View::new(g_mixed, self.query_width());
        for (place, columns) in self.columns.iter().enumerate() {
            let [q, k, v] = columns.map(|at| View::new(&trace.qkv, width).columns(at, head));
            let g_mixed = g_mixed.columns(place * head, head);
            for stripe in self.stripes(0, positions) {
                let Stripe { first, rows, first_key, keys } = stripe;
                let (weights, slopes) = self.weights(&stripe, q, k);
                let (q, g) = (q.rows(first, rows), g_mixed.rows(first, rows));
                let (k, v) = (k.rows(first_key, keys), v.rows(first_key, keys));
                let mut g_scores = vec![0.0; rows * keys]; // (rows, keys)
                product(self.kernel, 1.0, g, v.turned(), Target::new(&mut g_scores, keys));
                for (p, g) in weights.chunks_exact(keys).zip(g_scores.chunks_exact_mut(keys)) {
                    let mean = dot(p, g);
                    g.iter_mut().zip(p).for_each(|(g, p)| *g = p * (*g - mean));
                }
                g_scores.iter_mut().zip(&slopes).for_each(|(g, slope)| *g *= slope);
                let (p, s) = (View::new(&weights, keys), View::new(&g_scores, keys));
                let mut add = |at, (from, count), alpha, left, right| {
                    let into = Target::new(&mut g_qkv, width).columns(at, head);
                    product(self.kernel, alpha, left, right, into.rows(from, count));
                };
                let [of_q, of_k, of_v] = *columns;
                add(of_v, (first_key, keys), 1.0, p.turned(), g);
                add(of_q, (first, rows), self.scale, s, k);
                add(of_k, (first_key, keys), self.scale, s.turned(), q);
            }
        }
        self.rotate(&mut g_qkv, 0, -1.0);
        if let (Some(norms), Some(raw)) = (&self.norms, &trace.raw) {
            self.backward_norms(norms, raw, &mut g_qkv);
        }
        g_qkv
    }

    fn backward_norms(&self, norms: &[Norm<'m>; 2], raw: &[f32], g_qkv: &mut [f32]) {
        let rows = raw.chunks_exact(self.width).zip(g_qkv.chunks_exact_mut(self.width));
        for (raw, g) in rows {
            for (norm, columns) in norms.iter().zip(self.normed()) {
                for at in columns {
                    let x = raw.get(at..at + self.head).unwrap_or_default();
                    let g = cut(g, at, self.head);
                    let given = g.to_vec();
                    g.fill(0.0);
                    norm.backward_row(x, &given, g);
                }
            }
        }
    }

    /// Softmax of the scores of a stripe; 0 for what a query does not see. And the slopes of the
    /// caps, where there are any.
    fn weights(&self, stripe: &Stripe, q: View<'_>, k: View<'_>) -> (Vec<f32>, Vec<f32>) {
        let Stripe { first, rows, first_key, keys } = *stripe;
        let mut weights = vec![0.0; rows * keys];
        let (q, k) = (q.rows(first, rows), k.rows(first_key, keys));
        product(self.kernel, self.scale, q, k.turned(), Target::new(&mut weights, keys));
        let mut slopes = Vec::new();
        if let Some(cap) = self.cap {
            slopes.resize(weights.len(), 0.0);
            soften(cap, &mut weights, &mut slopes);
        }
        for (query, row) in (first..).zip(weights.chunks_exact_mut(keys)) {
            let begin = self.first_key(query) - first_key;
            let (before, rest) = row.split_at_mut(begin);
            let (seen, after) = rest.split_at_mut(query + 1 - first_key - begin);
            exponentials(seen);
            let share = 1.0 / seen.iter().sum::<f32>();
            seen.iter_mut().for_each(|weight| *weight *= share);
            before.fill(0.0);
            after.fill(0.0);
        }
        (weights, slopes)
    }

    fn first_key(&self, query: usize) -> usize {
        self.window.map_or(0, |window| (query + 1).saturating_sub(window))
    }

    /// Queries from one position to another, a stripe at a time.
    fn stripes(&self, from: usize, to: usize) -> impl Iterator<Item = Stripe> {
        (from..to).step_by(STRIPE).map(move |first| {
            let rows = STRIPE.min(to - first);
            let first_key = self.first_key(first);
            Stripe { first, rows, first_key, keys: first + rows - first_key }
        })
    }

    /// First columns of the query heads and of the key heads, each once.
    fn normed(&self) -> [Vec<usize>; 2] {
        let queries = self.columns.iter().map(|[q, _, _]| *q).collect();
        let mut keys: Vec<usize> = self.columns.iter().map(|[_, k, _]| *k).collect();
        keys.dedup();
        [queries, keys]
    }

    /// Turns the pairs of each query and key head by the angles of positions from `first` on, or
    /// back (`sign` -1).
    fn rotate(&self, qkv: &mut [f32], first: usize, sign: f32) {
        let Some(Rotary { cos, sin, half, pairing }) = &self.rotary else { return };
        let starts = self.normed().concat();
        let angles = cos.chunks_exact(*half).zip(sin.chunks_exact(*half)).skip(first);
        for (row, (cos, sin)) in qkv.chunks_exact_mut(self.width).zip(angles) {
            for at in &starts {
                let head = cut(row, *at, 2 * half);
                match pairing {
                    Pairing::Halves => {
                        let (left, right) = head.split_at_mut(*half);
                        turn(left.iter_mut().zip(right), cos, sin, sign);
                    }
                    Pairing::Neighbours => {
                        let pairs = head.as_chunks_mut::<2>().0.iter_mut();
                        turn(pairs.map(|[left, right]| (left, right)), cos, sin, sign);
                    }
                }
            }
        }
    }
}

/// Queries `first..first + rows` and the keys any of them sees.
struct Stripe {
    first: usize,
    rows: usize,
    first_key: usize,
    keys: usize,
}

fn cut(row: &mut [f32], first: usize, count: usize) -> &mut [f32] {
    row.get_mut(first..first + count).unwrap_or_default()
}

#[inline(always)]
fn turn<'a>(
    pairs: impl Iterator<Item = (&'a mut f32, &'a mut f32)>,
    cos: &[f32],
    sin: &[f32],
    sign: f32,
) {
    for (((left, right), cos), sin) in pairs.zip(cos).zip(sin) {
        let (l, r) = (*left, *right);
        *left = l * cos - sign * r * sin;
        *right = r * cos + sign * l * sin;
    }
}
