//! Waiting for a child that is a question or a hook: to its end, or to a deadline.

use crate::output::Tail;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// How soon it is noticed that the deadline has come nearer.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// What became of it.
#[derive(Debug)]
pub(crate) struct Waited {
    /// `None` if it was not over by the deadline, and was killed.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) tail: Tail,
}

/// Waits for a child that leads a process group of its own. At the deadline, which may come nearer
/// meanwhile, the whole group is killed. What it leaves
/// running when it ends by itself goes on, and what that prints is dropped.
///
/// # Errors
/// It cannot be watched, and has been killed.
pub(crate) fn wait(mut child: Child, output: &OwnedFd, until: impl Fn() -> Instant) -> io::Result<Waited> {
    let pid = Pid::from_child(&child);
    let mut tail = Tail::default();
    let watched = rustix::io::ioctl_fionbio(output, true).and_then(|()| pidfd_open(pid, PidfdFlags::empty()));
    let ended = watched.and_then(|pidfd| follow(&pidfd, output, &until, &mut tail));
    if !matches!(ended, Ok(true)) {
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = child.kill();
    }
    let status = child.wait()?;
    Ok(Waited { status: ended?.then_some(status), tail })
}

/// Whether it ended in time.
fn follow(
    pidfd: &OwnedFd,
    output: &OwnedFd,
    until: &dyn Fn() -> Instant,
    tail: &mut Tail,
) -> Result<bool, Errno> {
    let mut open = true;
    loop {
        let left = until().saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = left.min(ASK_AGAIN);
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(3600),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
        if open {
            fds.push(PollFd::new(output, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let over = !fds[0].revents().is_empty();
        let spoke = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        // After its end a last look: bounded, for what it left may print on.
        for _ in 0..if over { 16 } else { usize::from(spoke) } {
            let mut buffer = [0; 16 << 10];
            match rustix::io::read(output, &mut buffer) {
                Ok(0) => open = false,
                Ok(len) => drop(tail.push(&buffer[..len], None)),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(_) => open = false,
            }
            if !open {
                break;
            }
        }
        if over {
            return Ok(true);
        }
    }
}
