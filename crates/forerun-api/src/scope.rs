//! What of the status one tenant sees: its own services, and in their texts no other's name.

use crate::auth::Caller;
use crate::{ServiceStatus, Status};
use std::collections::BTreeSet;

/// In place of the name of a service that is another tenant's.
const SOMEBODYS: &str = "another tenant's service";

/// As much of a status as is the caller's to see.
pub(crate) fn seen(mut status: Status, caller: &Caller) -> Status {
    if caller.tenant.is_none() {
        return status;
    }
    let (own, others): (Vec<_>, Vec<_>) = status.services.into_iter().partition(|s| caller.sees(&s.tenant));
    let mut others: BTreeSet<String> = others.into_iter().map(|s| s.name).collect();
    // A name that both have would be nobody's secret.
    others.retain(|name| own.iter().all(|s| s.name != *name));
    status.services = own;
    status.services.iter_mut().for_each(|service| hide(service, &others));
    // These are of all tenants together, or name what is not known whose it is.
    (status.sites, status.budgets) = (Vec::new(), Vec::new());
    (status.problems, status.notices) = (Vec::new(), Vec::new());
    status.journal = crate::JournalStatus::default();
    status
}

fn hide(service: &mut ServiceStatus, others: &BTreeSet<String>) {
    service.depends_on.retain(|name| !others.contains(name));
    service.needed_by.retain(|name| !others.contains(name));
    let texts = [&mut service.reason, &mut service.progress, &mut service.last_failure].into_iter();
    let texts = texts.chain(&mut service.would).chain(service.down.as_mut().map(|down| &mut down.why));
    let texts = texts.chain(service.wakes.iter_mut().map(|woken| &mut woken.by));
    let texts = texts.chain(service.advice.iter_mut().map(|advice| &mut advice.what));
    let texts = texts.chain(service.each.iter_mut().map(|instance| &mut instance.reason));
    for text in texts.chain(service.keys.iter_mut().map(|key| &mut key.reason)) {
        *text = without(text, others);
    }
}

/// A text in which no whole word is one of these names.
fn without(text: &str, names: &BTreeSet<String>) -> String {
    let in_name = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let mut rest = text;
    let mut said = String::with_capacity(text.len());
    while let Some(start) = rest.find(in_name) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !in_name(c)).unwrap_or(from.len()));
        // A sentence may end with a name.
        let bare = word.trim_end_matches('.');
        said += before;
        said += if names.contains(word) || names.contains(bare) { SOMEBODYS } else { word };
        rest = after;
    }
    said + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Advice, BudgetStatus, SiteStatus, Woken};

    #[test]
    fn names_are_hidden_as_whole_words() {
        let names = ["shop-db".to_owned(), "db".to_owned()].into();
        for (text, expect) in [
            ("needed by shop-db, db.", "needed by another tenant's service, another tenant's service"),
            ("shop-dbx and adb stay", "shop-dbx and adb stay"),
            ("`db`: gone", "`another tenant's service`: gone"),
            ("", ""),
        ] {
            assert_eq!(without(text, &names), expect);
        }
    }

    #[test]
    fn one_tenant_sees_nothing_of_anothers() {
        let service = |name: &str, tenant: &str, other: &str| ServiceStatus {
            name: name.to_owned(),
            tenant: tenant.to_owned(),
            reason: format!("makes way for {other}"),
            last_failure: format!("{other} is down"),
            would: Some(format!("would stop {other}")),
            progress: format!("waits for {other}"),
            depends_on: vec![other.to_owned()],
            needed_by: vec![other.to_owned()],
            wakes: vec![Woken { at: 1.0, by: other.to_owned() }],
            advice: vec![Advice { what: format!("for {other}"), ..Advice::default() }],
            each: vec![crate::Instance { reason: format!("for {other}"), ..crate::Instance::default() }],
            keys: vec![crate::KeyStatus { reason: format!("for {other}"), ..crate::KeyStatus::default() }],
            down: Some(crate::Down { at: 1.0, why: format!("because of {other}") }),
            ..ServiceStatus::default()
        };
        let status = Status {
            services: vec![service("mine", "acme", "secret"), service("secret", "rival", "mine")],
            sites: vec![SiteStatus { name: "secret".to_owned(), ..SiteStatus::default() }],
            budgets: vec![BudgetStatus { class: "secret".to_owned(), ..BudgetStatus::default() }],
            problems: vec!["secret".to_owned()],
            notices: vec!["secret".to_owned()],
            ..Status::default()
        };
        let acme = Caller { tenant: Some("acme".to_owned()), ..Caller::local() };
        let text = serde_json::to_string(&seen(status.clone(), &acme)).unwrap();
        assert!(text.contains("mine") && !text.contains("secret") && !text.contains("rival"), "{text}");
        assert_eq!(seen(status.clone(), &Caller::local()), status);
    }
}
