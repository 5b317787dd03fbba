//! The crate's only unsafe code: what runs in a child between fork and exec, and signals that are ignored.
#![allow(unsafe_code)]

use rustix::net::SendFlags;
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal, setsid};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

/// Makes the command's process the leader of a session of its own that dies with the calling *thread*, and lets it
/// tell the reaper its number before anything of the service runs, so that a kill at any moment finds it known. `doors`
/// are of the control groups that it puts itself into.
pub(super) fn tie_to_this_thread(
    command: &mut Command,
    reaper: Option<Arc<UnixStream>>,
    doors: Vec<OwnedFd>,
) {
    let parent = getpid();
    let hook = move || -> io::Result<()> {
        setsid()?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the signal was asked for.
        if getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        if let Some(reaper) = &reaper {
            let (text, len) = announcement(getpid().as_raw_pid().unsigned_abs());
            // Neither a stuck nor a dead reaper may keep the service from starting.
            let _ = rustix::net::send(&**reaper, &text[..len], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
        for door in &doors {
            // Whether it is inside is looked at afterwards.
            let _ = rustix::io::write(door, b"0");
        }
        Ok(())
    };
    // SAFETY: the hook makes plain system calls through rustix and formats into an array on its stack. It neither
    // allocates nor locks nor drops anything: its captures live until exec replaces the process.
    unsafe {
        command.pre_exec(hook);
    }
}

/// `+PID` and a newline, without the allocator, which is not usable after a fork.
fn announcement(pid: u32) -> ([u8; 16], usize) {
    let mut text = [0; 16];
    text[0] = b'+';
    let digits = pid.checked_ilog10().unwrap_or(0) as usize + 1;
    let mut rest = pid;
    for at in (1..=digits).rev() {
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    text[digits + 1] = b'\n';
    (text, digits + 2)
}

/// From now on the signals by which a person or a service manager ends things do nothing to this process.
pub(crate) fn ignore_end_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE] {
        // SAFETY: SIG_IGN installs no handler, so no code of ours runs in a signal's context.
        unsafe {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}

/// From now on SIGTERM and SIGINT end this process with exit code 0. Without that, process 1 of a container does not
/// notice them.
pub(crate) fn end_at_end_signals() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: `_exit` is async-signal-safe, and does not come back.
        unsafe { libc::_exit(0) }
    }
    let handler: extern "C" fn(libc::c_int) = end;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler does nothing but end the process by an async-signal-safe call.
        unsafe {
            libc::signal(signal, handler as *const () as libc::sighandler_t);
        }
    }
}

/// From now on SIGTERM does this, on a thread of its own. To be called before any other thread begins.
pub(crate) fn on_term(act: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // SAFETY: the set lives on the stack and is initialised by `sigemptyset` before it is read; `sigwait` blocks on it
    // in a thread in which, as in all that begin later, the signal is blocked.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        std::thread::Builder::new().spawn(move || {
            let mut signal = 0;
            libc::sigwait(&raw const set, &raw mut signal);
            act();
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::announcement;

    #[test]
    fn a_pid_is_announced_in_decimal() {
        for (pid, expected) in
            [(1, "+1\n"), (10, "+10\n"), (4_194_304, "+4194304\n"), (u32::MAX, "+4294967295\n")]
        {
            let (text, len) = announcement(pid);
            assert_eq!(std::str::from_utf8(&text[..len]), Ok(expected));
        }
    }
}
