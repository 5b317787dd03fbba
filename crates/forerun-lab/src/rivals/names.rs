//! `NAME=KEY:VALUE,KEY:VALUE`: what people may say of a rival.

use crate::LabError;
use forerun_types::Span;

/// The settings behind a policy's name.
pub(super) struct Params<'a> {
    policy: &'static str,
    rest: std::str::Split<'a, char>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param<'a> {
    policy: &'static str,
    pub(super) key: &'a str,
    value: &'a str,
}

impl<'a> Params<'a> {
    pub(super) fn of(policy: &'static str, text: Option<&'a str>) -> Self {
        let mut rest = text.unwrap_or_default().split(',');
        if text.is_none() {
            rest.next();
        }
        Self { policy, rest }
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = Result<Param<'a>, LabError>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.rest.next()?;
        let policy = self.policy;
        let found = text.split_once(':').map(|(key, value)| Param { policy, key, value });
        Some(found.ok_or_else(|| {
            LabError::option("--policy", format!("{policy}: {text:?} is no setting: write KEY:VALUE"))
        }))
    }
}

impl Param<'_> {
    fn bad(&self, expected: impl std::fmt::Display) -> LabError {
        let Self { policy, key, value } = self;
        LabError::option("--policy", format!("{policy}: {key}: {value:?} is not {expected}"))
    }

    /// A number or percents, in thousandths.
    pub(super) fn milli(&self, least: u32, most: u32) -> Result<u32, LabError> {
        let (text, factor) =
            self.value.strip_suffix('%').map_or((self.value, 1e3), |percents| (percents, 10.0));
        let milli = text.trim().parse::<f64>().map(|x| (x * factor).round());
        match milli {
            Ok(milli) if (f64::from(least)..=f64::from(most)).contains(&milli) => Ok(milli as u32),
            _ => {
                let (least, most) = (f64::from(least) / 1e3, f64::from(most) / 1e3);
                Err(self.bad(format!("a number from {least} to {most}")))
            }
        }
    }

    pub(super) fn span(&self, least: Span, most: Span) -> Result<Span, LabError> {
        let span = forerun_trace::parse_duration(self.value).map_err(|_| self.bad("a duration as 60s"))?;
        if (least..=most).contains(&span) {
            return Ok(span);
        }
        Err(self.bad(format!("from {least} to {most}")))
    }

    pub(super) fn number(&self, least: u32, most: u32) -> Result<u32, LabError> {
        let number = self.value.trim().parse::<u32>().ok().filter(|n| (least..=most).contains(n));
        number.ok_or_else(|| self.bad(format!("a whole number from {least} to {most}")))
    }

    pub(super) fn unknown(&self, known: &str) -> LabError {
        let Self { policy, key, .. } = self;
        LabError::option("--policy", format!("{policy}: {key:?} is unknown, there are {known}"))
    }
}
