//! Logarithm and exponential of single precision by plain arithmetic: the same bits in every build, and quick enough
//! for the innermost loops.

/// The natural logarithm of a positive, finite, normal number; off by less than 2e-6 of its size or 1e-6.
#[inline]
pub(super) fn ln(x: f32) -> f32 {
    let bits = x.max(f32::MIN_POSITIVE).to_bits();
    // The mantissa in [sqrt 1/2, sqrt 2), so that the series runs around 1.
    let shifted = bits.wrapping_sub(0x3f35_04f3);
    let exponent = (shifted as i32) >> 23;
    let mantissa = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(0x3f35_04f3));
    // ln m = 2 artanh((m - 1) / (m + 1)).
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let s2 = s * s;
    let series = s * (2.0 + s2 * (0.666_666_7 + s2 * (0.4 + s2 * 0.285_714_3)));
    exponent as f32 * core::f32::consts::LN_2 + series
}

/// e to the power of x, clamped to what a single can hold.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    let x = x.clamp(-80.0, 80.0);
    let scaled = x * core::f32::consts::LOG2_E;
    let whole = (scaled + if scaled < 0.0 { -0.5 } else { 0.5 }) as i32;
    // ln 2 in two parts, the first of which times a small whole number is exact.
    let r = (x - whole as f32 * 0.693_359_4) + whole as f32 * 2.121_944_4e-4;
    let series = 1.0 + r * (1.0 + r * (0.5 + r * (0.166_666_67 + r * (0.041_666_67 + r * 0.008_333_334))));
    series * f32::from_bits(((whole + 127) as u32) << 23)
}

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
        }
    }
}
