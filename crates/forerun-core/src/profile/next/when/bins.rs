//! Gaps in bins: whole seconds at first, then even steps of ln(1 + seconds).

use super::QUANTILES;

pub(super) const BINS: usize = 128;
/// Levels of the tree of bins: a leaf is reached by so many halvings.
pub(super) const LEVELS: usize = 7;
/// Gaps below this have a bin for each second: times are whole seconds, so there is nothing in between.
const SECONDS: usize = 8;
/// Width of the other bins, in ln(1 + seconds): they reach to e^18.4 seconds, three years.
const WIDTH: f64 = 0.135;

const _: () = assert!(1 << LEVELS == BINS);

/// The bin of a gap; one that would be negative is none at all.
pub(super) fn bin(gap_s: i64) -> usize {
    match usize::try_from(gap_s.max(0)) {
        Ok(seconds) if seconds < SECONDS => seconds,
        _ => (SECONDS + steps(gap_s as f64) as usize).min(BINS - 1),
    }
}

/// How many widths a gap is past the first of the wide bins.
fn steps(seconds: f64) -> f64 {
    ((libm::log1p(seconds) - edge(SECONDS)) / WIDTH).max(0.0)
}

/// Where a bin begins, in ln(1 + seconds).
fn edge(bin: usize) -> f64 {
    if bin < SECONDS {
        libm::log1p(bin as f64)
    } else {
        libm::log1p(SECONDS as f64) + (bin - SECONDS) as f64 * WIDTH
    }
}

/// Quantiles .05 to .95 of ln(1 + seconds), rising, of the shares of the bins.
pub(super) fn quantiles(shares: &[f32]) -> [f32; QUANTILES] {
    let mut out = [0.0; QUANTILES];
    let total: f32 = shares.iter().sum();
    let (mut below, mut bin) = (0.0, 0);
    for (i, out) in out.iter_mut().enumerate() {
        let wanted = total * (i + 1) as f32 / (QUANTILES + 1) as f32;
        while bin + 1 < BINS && below + shares[bin] < wanted {
            below += shares[bin];
            bin += 1;
        }
        let inside = ((wanted - below) / shares[bin].max(1e-12)).clamp(0.0, 1.0);
        let reach = if bin < SECONDS { 0.0 } else { f64::from(inside) * WIDTH };
        *out = (edge(bin) + reach) as f32;
    }
    out
}

/// The share of gaps that are at most so many seconds.
pub(super) fn within(shares: &[f32], seconds: f64) -> f64 {
    let seconds = seconds.max(0.0);
    // What is not counted in whole bins, as a bin and a part of it.
    let (next, inside) = if seconds < SECONDS as f64 {
        let whole = seconds as usize + 1;
        (whole, if whole < SECONDS { seconds - seconds.trunc() } else { 0.0 })
    } else {
        let steps = steps(seconds).min((BINS - SECONDS) as f64);
        (SECONDS + steps as usize, steps - steps.trunc())
    };
    let below: f32 = shares[..next.min(BINS)].iter().sum();
    let part = shares.get(next).map_or(0.0, |share| inside as f32 * share);
    let total: f32 = shares.iter().sum();
    f64::from(((below + part) / total).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_in_the_bin_that_begins_before_it() {
        let mut last = 0;
        for gap_s in (0..20_000).chain([86_400, 1 << 40, i64::MAX]) {
            let (bin, y) = (bin(gap_s), libm::log1p(gap_s as f64));
            assert!(bin >= last && edge(bin) <= y + 1e-9, "{gap_s}: bin {bin} after {last}");
            assert!(bin == BINS - 1 || y < edge(bin + 1) + 1e-9, "{gap_s}: bin {bin}");
            last = bin;
        }
        assert_eq!(bin(i64::MIN), 0);
    }

    #[test]
    fn quantiles_and_shares_agree() {
        // Half at once, a quarter at three seconds, a quarter about an hour.
        let mut shares = [0.0f32; BINS];
        for (gap_s, share) in [(0, 0.5), (3, 0.25), (3_600, 0.25)] {
            shares[bin(gap_s)] = share;
        }
        let q = quantiles(&shares);
        assert!(q[8] == 0.0 && (f64::from(q[13]) - libm::log1p(3.0)).abs() < 1e-6, "{q:?}");
        assert!((f64::from(q[17]) - libm::log1p(3_600.0)).abs() < WIDTH, "{q:?}");
        for (seconds, expect) in
            [(0.0, 0.5), (2.0, 0.5), (2.5, 0.625), (3.0, 0.75), (100.0, 0.75), (9e9, 1.0)]
        {
            assert!(
                (within(&shares, seconds) - expect).abs() < 1e-6,
                "{seconds}: {}",
                within(&shares, seconds)
            );
        }
        assert_eq!(within(&shares, f64::NAN), 0.5);
        assert_eq!(within(&shares, f64::INFINITY), 1.0);
    }
}
