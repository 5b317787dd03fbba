//! How often one address may wake something: a bucket of tokens for each, in a table that does not grow.

use forerun_types::{Span, Time};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// Addresses that are told apart; those beyond share one bucket. A minute's worth of strangers for one service.
const ADDRESSES_MAX: usize = 1_024;
const MINUTE: Span = Span(60_000_000);
/// Parts of a token, so that a minute at any whole rate refills in whole parts.
const PARTS: u64 = MINUTE.0;

/// What is left for an address, in parts of a token, and when that was so.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    parts: u64,
    at: Time,
}

impl Bucket {
    fn refill(&mut self, per_minute: u32, now: Time) {
        let came = now.since(self.at).0.min(MINUTE.0) * u64::from(per_minute);
        self.parts = (self.parts + came).min(u64::from(per_minute) * PARTS);
        self.at = self.at.max(now);
    }
}

/// The wakes that addresses still have. Time is an argument.
#[derive(Clone, Debug, Default)]
pub struct WakeBudget {
    buckets: BTreeMap<IpAddr, Bucket>,
    others: Option<Bucket>,
}

impl WakeBudget {
    /// Takes one of the `per_minute` wakes of an address; 0 is any number.
    ///
    /// # Errors
    /// How long it takes until there is one again.
    pub fn take(&mut self, address: IpAddr, per_minute: u32, now: Time) -> Result<(), Span> {
        if per_minute == 0 {
            return Ok(());
        }
        let full = Bucket { parts: u64::from(per_minute) * PARTS, at: now };
        let key = owner(address);
        if !self.buckets.contains_key(&key) && self.buckets.len() >= ADDRESSES_MAX {
            // After a minute without a wake a bucket is full again, and need not be remembered.
            self.buckets.retain(|_, bucket| now.since(bucket.at) < MINUTE);
        }
        let bucket = if self.buckets.contains_key(&key) || self.buckets.len() < ADDRESSES_MAX {
            self.buckets.entry(key).or_insert(full)
        } else {
            self.others.get_or_insert(full)
        };
        bucket.refill(per_minute, now);
        if bucket.parts >= PARTS {
            bucket.parts -= PARTS;
            return Ok(());
        }
        Err(Span((PARTS - bucket.parts).div_ceil(u64::from(per_minute))))
    }
}

/// A household or a machine has a whole IPv6 network of 64 bits.
fn owner(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Time {
        Time(1_000_000_000 + n * 1_000_000)
    }

    #[test]
    fn an_address_has_its_wakes_and_gets_them_back() {
        let mut budget = WakeBudget::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for (address, at, expect) in [
            (one, 0, Ok(())),
            (one, 0, Ok(())),
            (one, 0, Err(Span::from_secs(30))),
            (other, 0, Ok(())),
            (one, 10, Err(Span::from_secs(20))),
            (one, 30, Ok(())),
            (one, 30, Err(Span::from_secs(30))),
            (one, 1_000, Ok(())),
            (one, 1_000, Ok(())),
            (one, 1_000, Err(Span::from_secs(30))),
        ] {
            assert_eq!(budget.take(address, 2, seconds(at)), expect, "{address} at {at}");
        }
        assert_eq!(budget.take(one, 0, seconds(1_000)), Ok(()), "no limit");
    }

    #[test]
    fn neighbours_in_a_network_of_64_bits_share() {
        let mut budget = WakeBudget::default();
        let ip = |text: &str| text.parse::<IpAddr>().expect(text);
        assert_eq!(budget.take(ip("2001:db8::1"), 1, seconds(0)), Ok(()));
        assert!(budget.take(ip("2001:db8::ffff:2"), 1, seconds(0)).is_err());
        assert_eq!(budget.take(ip("2001:db8:0:1::1"), 1, seconds(0)), Ok(()));
        assert_eq!(budget.take(ip("::ffff:10.0.0.1"), 1, seconds(0)), Ok(()));
        assert!(budget.take(ip("10.0.0.1"), 1, seconds(0)).is_err());
    }

    #[test]
    fn a_flood_of_addresses_shares_one_bucket_and_is_forgotten() {
        let mut budget = WakeBudget::default();
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        let woke = (0..5_000).filter(|n| budget.take(address(*n), 1, seconds(0)).is_ok()).count();
        assert_eq!(woke, ADDRESSES_MAX + 1);
        assert!(budget.buckets.len() <= ADDRESSES_MAX);
        assert_eq!(budget.take(address(9_999), 1, seconds(61)), Ok(()));
        assert_eq!(budget.buckets.len(), 1);
    }
}
