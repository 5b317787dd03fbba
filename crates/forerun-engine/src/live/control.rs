//! A person's word, from the API to the core.

use super::publish::View;
use forerun_api::{ControlError, ModeWord, Order, Told, Word};
use forerun_core::{AnyPolicy, Core, InstanceState, InstanceStatus, ServiceStatus};
use forerun_types::{Event, Mode, Override, ServiceId, ServiceSpec, Time};
use std::sync::Arc;

/// Stands for as many as are up when the engine hears of it: the view is too old to say.
const AS_IT_IS: u32 = u32::MAX;
/// Names that a refusal lists.
const NAMES_SHOWN: usize = 5;

/// The event that an order is, and what holds from then on.
pub(super) fn event(view: Option<&View>, name: &str, order: Order) -> Result<(Event, Told), ControlError> {
    let Some(view) = view else {
        return Err(ControlError::NotNow("the engine has not yet begun; ask again in a moment".to_owned()));
    };
    let Some(status) = view.services.iter().find(|s| s.name == name) else {
        return Err(ControlError::NoService { name: name.to_owned(), hint: hint(view, name) });
    };
    let (service, now) = (status.service, view.at);
    let up = up(status);
    let mut told = Told {
        service: name.to_owned(),
        word: status.word.map(|w| word(w.instances, w.since, w.until)),
        mode_word: status.mode_word.map(|w| mode_word(w.mode, w.since)),
        said: String::new(),
    };
    let scaled =
        |instances, until| Event::Override { service, order: Override { instances: Some(instances), until } };
    let event = match order {
        Order::Pause => {
            told.word = Some(word(up, now, Time::NEVER));
            told.said = format!("{name} stays as it is until `forerun resume {name}`");
            scaled(AS_IT_IS, Time::NEVER)
        }
        Order::Scale { instances, hold } => {
            let until = hold.map_or(Time::NEVER, |hold| now + hold);
            told.word = Some(word(instances, now, until));
            told.said = match hold {
                Some(hold) => format!("{name} is held at {instances} for {hold}"),
                None => format!("{name} is held at {instances} until `forerun resume {name}`"),
            };
            scaled(instances, until)
        }
        Order::Resume => {
            told.word = None;
            told.said = format!("{name} is the plan's again");
            Event::Override { service, order: Override { instances: None, until: now } }
        }
        Order::Mode(mode) => {
            told.mode_word = Some(mode_word(mode, now));
            told.said = match mode {
                Mode::Act => format!("{name} is started and stopped by forerun from now on"),
                Mode::Advise => {
                    format!("of {name} forerun says from now on what it would do, and does nothing")
                }
                Mode::Observe => format!("{name} is only watched from now on"),
            };
            Event::ModeTold { service, mode: Some(mode) }
        }
    };
    if told.word.is_some() && status.mode != Mode::Act && !matches!(order, Order::Mode(_)) {
        told.said += &format!("; it is only watched, so nothing changes before `forerun act {name}`");
    }
    Ok((event, told))
}

fn up(status: &ServiceStatus) -> u32 {
    let up = |i: &&InstanceStatus| matches!(i.state, InstanceState::Starting | InstanceState::Ready);
    status.instances.iter().filter(up).count() as u32
}

fn hint(view: &View, name: &str) -> String {
    // A part of the name is the likeliest slip where names begin with their project's.
    let part = |s: &&str| s.contains(name) || name.contains(s);
    let names: Vec<&str> = view.services.iter().map(|s| s.name.as_str()).collect();
    let near: Vec<&str> = names.iter().copied().filter(part).take(NAMES_SHOWN).collect();
    match (near.is_empty(), names.is_empty()) {
        (false, _) => format!("; did you mean `{}`?", near.join("` or `")),
        (true, false) => {
            let more = if names.len() > NAMES_SHOWN { ", ..." } else { "" };
            format!("; there are {}{more}", names[..names.len().min(NAMES_SHOWN)].join(", "))
        }
        (true, true) => "; there is no service at all".to_owned(),
    }
}

pub(super) fn word(instances: u32, since: Time, until: Time) -> Word {
    let until = (until != Time::NEVER).then(|| until.as_secs_f64());
    Word { instances, since: since.as_secs_f64(), until }
}

pub(super) fn mode_word(mode: Mode, since: Time) -> ModeWord {
    ModeWord { mode: mode_name(mode).to_owned(), since: since.as_secs_f64() }
}

pub(super) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "observe",
        Mode::Advise => "advise",
        Mode::Act => "act",
    }
}

/// What is told from outside in the core's own terms, on the thread that knows them.
///
/// Who describes a service from outside knows its name, and the core its id: one that is known keeps it, and with it
/// what was learned; any other gets one that was never given.
pub(super) fn in_its_terms(core: &Core<AnyPolicy>, event: Event) -> Event {
    match event {
        Event::Service(spec) => {
            let known = core
                .specs()
                .find(|known| known.variant.is_none() && known.name == spec.name)
                .map(|known| known.id);
            let id: ServiceId = known.unwrap_or_else(|| core.next_service());
            Event::Service(Arc::new(ServiceSpec { id, ..(*spec).clone() }))
        }
        Event::Override { service, order } if order.instances == Some(AS_IT_IS) => {
            let told = core.services_from(service).next().filter(|(s, _)| s.service == service);
            let up = told.map_or(0, |(s, _)| up(&s));
            Event::Override { service, order: Override { instances: Some(up), ..order } }
        }
        event => event,
    }
}
