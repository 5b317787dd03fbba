//! What becomes of an answer: kept, refused, or taken as word that what is stored still holds.

use super::flights::Leader;
use super::serve::{Fetch, Question, Served, response_of, stamp};
use super::{Answered, Fill, HttpCache};
use crate::body::ReplyBody;
use forerun_cache::http::{Fetched, Forward, Limits, NotStored, Status, Stored, judge};
use forerun_cache::{Put, Stamp};
use forerun_types::{CacheRules, Time};
use hyper::{HeaderMap, Method, Response, StatusCode};
use std::sync::Arc;

/// A request that was sent, and what is to be known of it once it is answered.
pub(super) struct Exchange<'a> {
    pub(super) cache: &'a Arc<HttpCache>,
    pub(super) question: &'a Question,
    pub(super) guarded: bool,
    pub(super) begun: Stamp,
    pub(super) asked: Time,
    pub(super) now: Time,
    /// No client waits for it.
    pub(super) silent: bool,
}

impl Exchange<'_> {
    fn note(&self, answered: Answered, bytes: usize) {
        if !self.silent {
            self.cache.note(answered, bytes);
        }
    }

    fn of<'b>(&'b self, status: StatusCode, answer: &'b HeaderMap) -> Fetched<'b> {
        let Question { method, headers, .. } = self.question;
        let guarded = self.guarded;
        Fetched { method, request: headers, guarded, status, answer, asked: self.asked, now: self.now }
    }

    /// What the client gets, and what is kept of it.
    pub(super) fn settle(&self, served: Served, fetch: Fetch, rules: &CacheRules) -> Served {
        let Fetch { why, stale, leader, collapsed } = fetch;
        let status = Status { collapsed, ..Status::forwarded(why) };
        let stands_in = |stored: &&Arc<Stored>| stored.may_stand_in(&self.question.asks, self.now);
        let mut response = match (served, stale.as_ref().filter(stands_in)) {
            (Err(fault), Some(stored)) if fault.is_not_the_clients() => {
                return Ok(self.stand_in(stored, None));
            }
            (Err(fault), _) => return Err(fault),
            (Ok(response), Some(stored)) if is_failure(&response) => {
                return Ok(self.stand_in(stored, Some(response.status().as_u16())));
            }
            (Ok(response), _) => response,
        };
        if !matches!(response.body(), ReplyBody::Forwarded(_)) {
            // A waiting page, or what Forerun says itself.
            self.note(Answered::Bypass, 0);
            return Ok(response);
        }
        if let Some(stored) = stale.as_ref().filter(|_| response.status() == StatusCode::NOT_MODIFIED)
            && stored.validators().is_some()
        {
            return Ok(self.still_holds(stored, &response, &status, rules));
        }
        self.note(Answered::Miss, 0);
        let fetched = self.of(response.status(), response.headers());
        let status = match judge(&fetched, &limits(rules)) {
            Ok(stored) => {
                let ttl_seconds = Some(stored.ttl_seconds(self.now));
                self.keep(&mut response, stored, leader, rules);
                Status { stored: true, ttl_seconds, ..status }
            }
            Err(why) => {
                if let Some(leader) = leader.filter(|_| is_for_good(why)) {
                    leader.apart(self.now);
                }
                Status { detail: Some(why.word()), ..status }
            }
        };
        stamp(&mut response, &status);
        Ok(response)
    }

    fn keep(
        &self,
        response: &mut Response<ReplyBody>,
        stored: Stored,
        leader: Option<Leader>,
        rules: &CacheRules,
    ) {
        let fill = Fill {
            cache: Arc::clone(self.cache),
            key: self.question.key.clone(),
            request: self.question.headers.clone(),
            begun: self.begun,
            stored: Some(stored),
            body_bytes_max: rules.body_bytes_max,
            variants_max: rules.variants_max as usize,
            chunks: Vec::new(),
            bytes: 0,
            _leader: leader,
        };
        response.body_mut().keep(fill);
    }

    /// A 304 to our own question: what is stored is fresh again.
    fn still_holds(
        &self,
        stored: &Stored,
        response: &Response<ReplyBody>,
        status: &Status,
        rules: &CacheRules,
    ) -> Response<ReplyBody> {
        let status = Status { forward_status: Some(304), ..*status };
        let fetched = self.of(StatusCode::OK, response.headers());
        // What was asked with a HEAD is still the answer to a GET.
        let fetched = Fetched { method: &Method::GET, ..fetched };
        let answer = match stored.refreshed(&fetched, &limits(rules)) {
            Ok(fresh) => {
                let Question { key, headers, .. } = self.question;
                let ttl_seconds = Some(fresh.ttl_seconds(self.now));
                let variants_max = rules.variants_max as usize;
                let put = self.cache.pages().keep(key, headers, self.begun, fresh.clone(), variants_max);
                let status = Status { stored: put == Put::Kept, ttl_seconds, ..status };
                self.question.reply(&fresh, &status, self.now)
            }
            Err((why, shown)) => {
                let status = Status { detail: Some(why.word()), ..status };
                self.question.reply(&shown, &status, self.now)
            }
        };
        self.note(Answered::Revalidated, answer.body.len());
        response_of(answer)
    }

    /// What is stored in place of an error.
    fn stand_in(&self, stored: &Stored, forward_status: Option<u16>) -> Response<ReplyBody> {
        let ttl_seconds = Some(stored.ttl_seconds(self.now));
        let detail = Some("stale-if-error");
        let status = Status { forward_status, ttl_seconds, detail, ..Status::forwarded(Forward::Stale) };
        let answer = self.question.reply(stored, &status, self.now);
        self.note(Answered::Stale, answer.body.len());
        response_of(answer)
    }
}

fn limits(rules: &CacheRules) -> Limits {
    Limits { missing: rules.missing, stale_if_error: rules.stale_if_error }
}

/// Whether the next answer to the same is likely to be no more for sharing than this one.
fn is_for_good(why: NotStored) -> bool {
    !matches!(why, NotStored::RequestNoStore | NotStored::Method)
}

/// What `stale-if-error` is for (RFC 5861, 4).
fn is_failure(response: &Response<ReplyBody>) -> bool {
    matches!(response.status().as_u16(), 500 | 502..=504)
}
