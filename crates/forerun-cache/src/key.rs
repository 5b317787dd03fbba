//! What an entry is kept under.

use forerun_types::TenantKey;

/// A tenant and a name within it. The same name of two tenants is two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    pub tenant: TenantKey,
    pub name: &'a [u8],
}

impl Key<'_> {
    /// 64 bits that depend on all of the key and on `seed`. Two keys of one hash share a place, never an entry: whoever looks
    /// one up compares the whole key.
    pub(crate) fn hash(&self, seed: u64) -> u64 {
        let mut hash = fold(seed ^ 0x9e37_79b9_7f4a_7c15, self.tenant.0 ^ 0xa076_1d64_78bd_642f);
        for piece in self.name.chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            hash = fold(hash ^ u64::from_le_bytes(word), 0xe703_7ed1_a0b4_28db);
        }
        // The length tells a name from the same with zeros behind it.
        fold(hash ^ self.name.len() as u64, 0x8ebc_6af0_9c88_c6e3)
    }
}

/// Both halves of a product, so that every bit of either reaches every bit of the result.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64) ^ a.rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn keys_that_differ_anywhere_hash_apart() {
        let hash = |tenant, name: &[u8], seed| Key { tenant: TenantKey(tenant), name }.hash(seed);
        let mut seen = BTreeSet::new();
        for tenant in 0..4 {
            for seed in 0..4 {
                for name in [&b""[..], b"\0", b"\0\0", b"a", b"a\0", b"abcdefgh", b"abcdefgh\0", b"abcdefgi"]
                {
                    assert!(seen.insert(hash(tenant, name, seed)), "{tenant} {seed} {name:?}");
                }
            }
        }
        for n in 0u32..100_000 {
            seen.insert(hash(7, &n.to_le_bytes(), 1));
        }
        assert_eq!(seen.len(), 100_000 + 4 * 4 * 8);
    }

    #[test]
    fn a_sample_by_leading_zeros_is_a_fair_one() {
        let sampled = (0u32..64_000)
            .filter(|n| Key { tenant: TenantKey(0), name: &n.to_le_bytes() }.hash(3).leading_zeros() >= 5)
            .count();
        assert!((1_800..2_200).contains(&sampled), "{sampled} of 64000 where 2000 are expected");
    }
}
