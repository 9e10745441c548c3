//! Normalisations of rows, and their gradients.

use super::super::kernel::{axpy, dot};
use super::{EngineError, Lender};
use crate::model::Lent;
use crate::model::config::{self, NormKind, bias, weight};
use crate::real::{narrow, single};

/// A normalisation with its factors.
pub(super) struct Norm<'m> {
    factors: Vec<f32>, // as the row is multiplied with them
    shift: Option<Lent<'m>>,
    centred: bool,
    epsilon: f32,
}

impl<'m> Norm<'m> {
    pub(super) fn new(weights: &Lender<'m>, norm: &config::Norm) -> Result<Self, EngineError> {
        let factors = weights.lend(&weight(&norm.path))?;
        let plus = if norm.kind == NormKind::RmsPlusOne { 1.0 } else { 0.0 };
        let centred = norm.kind == NormKind::Layer;
        Ok(Self {
            factors: factors.values().iter().map(|factor| factor + plus).collect(),
            shift: centred.then(|| weights.lend(&bias(&norm.path))).transpose()?,
            centred,
            epsilon: narrow(norm.epsilon),
        })
    }

    /// Norms row after row.
    pub(super) fn rows(&self, x: &[f32]) -> Vec<f32> {
        let mut y = x.to_vec();
        y.chunks_exact_mut(self.factors.len()).for_each(|row| self.row(row));
        y
    }

    /// Norms one row in place.
    pub(super) fn row(&self, row: &mut [f32]) {
        let (mean, inverse) = self.moments(row);
        for (x, factor) in row.iter_mut().zip(&self.factors) {
            *x = (*x - mean) * inverse * factor;
        }
        if let Some(shift) = &self.shift {
            axpy(row, 1.0, shift.values());
        }
    }

    /// What is subtracted from a row (0 where it is not centred), and one over its size.
    fn moments(&self, row: &[f32]) -> (f32, f32) {
        let width = single(row.len());
        if !self.centred {
            return (0.0, 1.0 / (dot(row, row) / width + self.epsilon).sqrt());
        }
        let mean = row.iter().sum::<f32>() / width;
        let squares: f32 = row.iter().map(|x| (x - mean) * (x - mean)).sum();
        (mean, 1.0 / (squares / width + self.epsilon).sqrt())
    }

    /// `g_x += d norm(x) / d x · g`, row after row.
    pub(super) fn backward(&self, x: &[f32], g: &[f32], g_x: &mut [f32]) {
        let width = self.factors.len();
        let rows = x.chunks_exact(width).zip(g.chunks_exact(width));
        for ((x, g), g_x) in rows.zip(g_x.chunks_exact_mut(width)) {
            self.backward_row(x, g, g_x);
        }
    }

    /// The same for one row.
    pub(super) fn backward_row(&self, x: &[f32], g: &[f32], g_x: &mut [f32]) {
        let width = single(x.len());
        let (mean, inverse) = self.moments(x);
        let weighted: Vec<f32> = g.iter().zip(&self.factors).map(|(g, w)| g * w).collect();
        let centred: Vec<f32> = x.iter().map(|x| x - mean).collect();
        let along = inverse * inverse * inverse * dot(&weighted, &centred) / width;
        let common =
            if self.centred { inverse * weighted.iter().sum::<f32>() / width } else { 0.0 };
        for ((g_x, weighted), x) in g_x.iter_mut().zip(&weighted).zip(&centred) {
            *g_x += inverse * weighted - along * x - common;
        }
    }
}
