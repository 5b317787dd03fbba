//! Logarithm and exponential of single precision by plain arithmetic: the same bits in every build, and quick enough
//! for the innermost loops.

/// The natural logarithm of a positive, finite, normal number; off by less than 2e-6 of its size or 1e-6. The polynomial
/// is that of the Cephes library's `logf` (S. L. Moshier, 1992).
#[inline]
pub(super) fn ln(x: f32) -> f32 {
    let bits = x.max(f32::MIN_POSITIVE).to_bits();
    // The mantissa in [sqrt 1/2, sqrt 2), so that the series runs around 1.
    let shifted = bits.wrapping_sub(0x3f35_04f3);
    let exponent = ((shifted as i32) >> 23) as f32;
    let x = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(0x3f35_04f3)) - 1.0;
    let mut series = 7.037_683_6e-2;
    for term in LN_TERMS {
        series = series * x + term;
    }
    let square = x * x;
    x + (square * x * series - 0.5 * square) + exponent * core::f32::consts::LN_2
}

const LN_TERMS: [f32; 8] = [
    -1.151_461e-1,
    1.167_7e-1,
    -1.242_014_1e-1,
    1.424_932_3e-1,
    -1.666_805_8e-1,
    2.000_071_5e-1,
    -2.499_999_4e-1,
    3.333_333e-1,
];

/// The natural logarithm of a number from 1 on, off by less than 3e-5: for what is only weighed and added up. The series
/// is that of the area hyperbolic tangent, ln x = 2 artanh((x - 1) / (x + 1)), with its last term fitted.
#[inline]
pub(super) fn ln_roughly(x: f32) -> f32 {
    let bits = x.to_bits();
    let shifted = bits.wrapping_sub(0x3f35_04f3);
    let exponent = ((shifted as i32) >> 23) as f32;
    let x = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(0x3f35_04f3));
    let t = (x - 1.0) / (x + 1.0);
    t * (2.0 + 0.677 * t * t) + exponent * core::f32::consts::LN_2
}

/// The sum of all, eight at a time: a sum one by one waits for each.
#[inline]
pub(super) fn sum(all: &[f32]) -> f32 {
    let (eights, rest) = all.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for eight in eights {
        sums.iter_mut().zip(eight).for_each(|(sum, x)| *sum += x);
    }
    let rest: f32 = rest.iter().sum();
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (b + f)) + ((c + g) + (d + h)) + rest
}

/// The highest of all, eight at a time.
#[inline]
pub(super) fn highest(all: &[f32]) -> f32 {
    let (eights, rest) = all.as_chunks::<8>();
    let mut most = [f32::MIN; 8];
    for eight in eights {
        most.iter_mut().zip(eight).for_each(|(most, x)| *most = if *x > *most { *x } else { *most });
    }
    most.iter().chain(rest).fold(f32::MIN, |most, x| if *x > most { *x } else { most })
}

/// [`ln`] of each.
pub(super) fn ln_all(all: &mut [f32]) {
    all.iter_mut().for_each(|x| *x = ln(*x));
}

/// [`exp`] of each.
pub(super) fn exp_all(all: &mut [f32]) {
    all.iter_mut().for_each(|x| *x = exp(*x));
}

/// e to the power of x, clamped to what a single can hold.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    let x = x.clamp(-80.0, 80.0);
    let scaled = x * core::f32::consts::LOG2_E;
    // Added to this, a number is rounded to a whole one, which stands in the lowest bits.
    let shifted = scaled + ROUND;
    let whole = shifted - ROUND;
    // ln 2 in two parts, the first of which times a small whole number is exact.
    let r = (x - whole * 0.693_359_4) + whole * 2.121_944_4e-4;
    let series = 1.0 + r * (1.0 + r * (0.5 + r * (0.166_666_67 + r * (0.041_666_67 + r * 0.008_333_334))));
    series * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// 1.5 times 2 to the power of 23.
const ROUND: f32 = 12_582_912.0;

/// The logistic function.
#[inline]
pub(super) fn squash(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_agree_with_libm() {
        for i in -4_000..4_000i32 {
            let x = i as f32 / 100.0;
            let e = libm::exp(f64::from(x));
            assert!((f64::from(exp(x)) / e - 1.0).abs() < 4e-6, "exp {x}");
            assert!((f64::from(ln(e as f32)) - f64::from(x)).abs() < 2e-5, "ln {e}");
            let off = f64::from(ln_roughly(e as f32)) - f64::from(x);
            assert!(x < 0.0 || off.abs() < 3e-5, "roughly ln {e}: {off}");
        }
    }
}
