//! Logistic mixing: several opinions of one chance become one, each weighed by how it has done.
//!
//! Source: M. Mahoney, *Adaptive weighing of context models for lossless data compression*, TR CS-2005-16 (PAQ6/7).
//! The mixed logit is a weighted sum of inputs in the logistic domain; after the outcome each weight moves along the
//! gradient of the coding cost. `libm` gives the same digits on every platform.

use serde::{Deserialize, Serialize};

/// Chances are kept off 0 and 1 by this much: a wrong certainty must cost a bounded amount.
pub const CHANCE_MIN: f64 = 1.0 / 65_536.0;

#[must_use]
pub fn clip(p: f64) -> f64 {
    p.clamp(CHANCE_MIN, 1.0 - CHANCE_MIN)
}

#[must_use]
pub fn logit(p: f64) -> f64 {
    let p = clip(p);
    libm::log(p / (1.0 - p))
}

#[must_use]
pub fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-z))
}

/// `N` inputs, one weight vector.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mixer {
    weights: Vec<f64>,
    rate: f64,
}

impl Mixer {
    #[must_use]
    pub fn new(weights: Vec<f64>, rate: f64) -> Self {
        Self { weights, rate }
    }

    /// The mixed logit of inputs in the logistic domain.
    #[must_use]
    pub fn mix(&self, inputs: &[f64]) -> f64 {
        self.weights.iter().zip(inputs).map(|(w, x)| w * x).sum()
    }

    /// Learns from one outcome.
    pub fn learn(&mut self, inputs: &[f64], happened: bool) {
        let error = f64::from(u8::from(happened)) - logistic(self.mix(inputs));
        for (w, x) in self.weights.iter_mut().zip(inputs) {
            *w = (*w + self.rate * error * x).clamp(-16.0, 16.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_opinion_gains_weight() {
        let mut mixer = Mixer::new(vec![0.5, 0.5], 0.02);
        let mut state = 12345u64;
        for _ in 0..5_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let happens = state >> 63 == 1;
            let good = if happens { 2.0 } else { -2.0 };
            let noise = if state >> 62 & 1 == 1 { 2.0 } else { -2.0 };
            mixer.learn(&[good, noise], happens);
        }
        assert!(mixer.weights[0] > 1.0 && mixer.weights[1].abs() < 0.3, "{:?}", mixer.weights);
    }

    #[test]
    fn logit_and_logistic_are_inverse_and_bounded() {
        for p in [0.001, 0.2, 0.5, 0.99] {
            assert!((logistic(logit(p)) - p).abs() < 1e-9);
        }
        assert!(logit(0.0).is_finite() && logit(1.0).is_finite());
    }
}
