//! What is ordered of an instance that is there: to freeze, to thaw, to become a key's, to say whether it is busy.

use crate::backend::{Answer, Backend, Follows, Phase, Pid, Step, address};
use crate::faults::{Fault, Faults};
use forerun_backends::StartOrder;
use forerun_types::{Event, Generation, InstanceId, Span};

impl Backend {
    fn not_changed(&mut self, instance: InstanceId, why: &str, faults: &mut Faults, out: &mut Vec<Answer>) {
        self.answer(Event::NotChanged { instance, why: why.to_owned() }, faults, out);
    }

    pub(crate) fn pause(
        &mut self,
        instance: InstanceId,
        generation: Generation,
        faults: &mut Faults,
        follows: &mut Follows,
    ) {
        let takes = self.draw.between(2_000, 60_000);
        let Some((pid, process)) = self.of_mut(instance) else { return };
        if generation < process.obeyed || process.phase != Phase::Ready {
            return;
        }
        process.obeyed = generation;
        if faults.strikes(Fault::PauseFails) {
            return self.not_changed(instance, "cgroup freezer: busy", faults, &mut follows.answers);
        }
        follows.due.push((Span(takes), pid, Step::Freeze));
        if faults.strikes(Fault::DiesPaused) {
            let later = faults.how(Fault::DiesPaused).below(120_000_000);
            follows.due.push((Span(takes + later), pid, Step::Die));
        }
    }

    pub(crate) fn resume(
        &mut self,
        instance: InstanceId,
        generation: Generation,
        faults: &mut Faults,
        follows: &mut Follows,
    ) {
        let mut takes = self.draw.between(2_000, 60_000);
        let Some((pid, process)) = self.of_mut(instance) else { return };
        if generation < process.obeyed || process.phase != Phase::Ready {
            return;
        }
        process.obeyed = generation;
        if faults.strikes(Fault::ResumeFails) {
            return self.not_changed(instance, "it cannot be thawed", faults, &mut follows.answers);
        }
        if faults.strikes(Fault::ResumesSlowly) {
            takes = faults.how(Fault::ResumesSlowly).between(500_000, 90_000_000);
        }
        follows.due.push((Span(takes), pid, Step::Thaw(Span(takes))));
    }

    pub(crate) fn specialise(&mut self, order: &StartOrder, faults: &mut Faults, follows: &mut Follows) {
        let (instance, spec) = (order.instance, &order.spec);
        let usual = (spec.start_estimate.0 / 4).max(1_000);
        let mut takes = self.draw.between(usual / 2, usual * 2);
        let Some((pid, process)) = self.of_mut(instance) else { return };
        if order.generation < process.obeyed || process.phase != Phase::Ready {
            return;
        }
        process.obeyed = order.generation;
        if process.touched || process.key.is_some() || process.own {
            let what = format!("{instance} is to become {}'s, and was used, or is another's", spec.name);
            follows.wrong.push(("one-key", what));
        }
        // From now on nobody knows what it is; the mark on it says that it is generic no more.
        process.claimed = true;
        if faults.strikes(Fault::SpecialiseFails) {
            return self.not_changed(instance, "the hook answered 500", faults, &mut follows.answers);
        }
        process.becoming = Some(order.spec.clone());
        if faults.strikes(Fault::SpecialisesSlowly) {
            takes = faults.how(Fault::SpecialisesSlowly).between(1_000_000, 90_000_000);
        }
        follows.due.push((Span(takes), pid, Step::Change(Span(takes))));
        if faults.strikes(Fault::DiesSpecialising) {
            let later = faults.how(Fault::DiesSpecialising).below(takes);
            follows.due.push((Span(later), pid, Step::Die));
        }
    }

    pub(crate) fn ask_busy(&mut self, order: &StartOrder, faults: &mut Faults, out: &mut Vec<Answer>) {
        let instance = order.instance;
        let busy = self.draw.below(3) == 0 && !faults.healed();
        if self.of(instance).is_none_or(|p| p.hung || p.paused) || faults.strikes(Fault::BusySilent) {
            return;
        }
        let why = if busy { "3 downloads" } else { "" }.to_owned();
        self.answer(Event::BusyAnswer { instance, busy, why }, faults, out);
    }

    /// What was found is this instance from now on.
    pub(crate) fn adopt(
        &mut self,
        order: &StartOrder,
        handle: &str,
        faults: &mut Faults,
        follows: &mut Follows,
    ) {
        let instance = order.instance;
        let pid: Pid = handle.trim_start_matches('c').parse().unwrap_or(0);
        let Some(process) = self.processes.get_mut(&pid) else {
            self.ended.insert(instance);
            let gone = Event::Died { instance, why: "it is gone".to_owned() };
            return self.answer(gone, faults, &mut follows.answers);
        };
        if let Some(held) = process.instance.filter(|held| *held != instance) {
            let what = format!("{handle} is {held}, and is to be {instance} as well");
            return follows.wrong.push(("adopts-twice", what));
        }
        (process.instance, process.obeyed) = (Some(instance), order.generation);
        process.spec = order.spec.clone();
        process.memory_bytes = order.spec.resources.memory_bytes;
        let own = process.own;
        self.by_instance.insert(instance, pid);
        if own {
            follows.answers.push((Span(10), Event::IsOwn { instance }));
        }
    }

    pub(crate) fn let_go(&mut self, instance: InstanceId) {
        if let Some((_, process)) = self.of_mut(instance) {
            process.instance = None;
        }
        self.by_instance.remove(&instance);
    }

    /// What was ordered of it has been done.
    pub(crate) fn changes(&mut self, pid: Pid, step: Step, faults: &mut Faults, follows: &mut Follows) {
        let Some(process) = self.processes.get_mut(&pid).filter(|p| p.phase == Phase::Ready) else { return };
        let Some(instance) = process.instance else { return };
        let event = match step {
            Step::Freeze => {
                process.paused = true;
                Event::Paused { instance }
            }
            Step::Thaw(took) => {
                process.paused = false;
                Event::Resumed { instance, took }
            }
            Step::Change(took) => {
                let Some(spec) = process.becoming.take() else { return };
                process.key = spec.variant.as_ref().map(|variant| variant.key.clone());
                if process.touched {
                    let what = format!("{instance} has become {}'s, and was used before", spec.name);
                    follows.wrong.push(("one-key", what));
                }
                process.spec = spec;
                Event::Specialised { instance, took }
            }
            _ => return,
        };
        self.answer(event, faults, &mut follows.answers);
    }

    /// A start finds the user's own container already there.
    pub(crate) fn takes_over(
        &mut self,
        pid: Pid,
        order: &StartOrder,
        faults: &mut Faults,
        follows: &mut Follows,
    ) -> bool {
        let instance = order.instance;
        let free = |p: &&mut crate::backend::Process| p.instance.is_none() && p.phase != Phase::Ending;
        let Some(process) = self.processes.get_mut(&pid).filter(free) else { return false };
        (process.instance, process.obeyed, process.paused) = (Some(instance), order.generation, false);
        process.spec = order.spec.clone();
        process.memory_bytes = order.spec.resources.memory_bytes;
        let is_ready = process.phase == Phase::Ready;
        self.by_instance.insert(instance, pid);
        follows.answers.push((Span(10), Event::IsOwn { instance }));
        if is_ready {
            let ready = Event::Ready { instance, address: address(pid), took: Span(20_000) };
            self.answer(ready, faults, &mut follows.answers);
        }
        true
    }
}
