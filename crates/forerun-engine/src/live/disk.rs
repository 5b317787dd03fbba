//! The journal's files, written by a thread of their own, so that a slow disk delays no decision.

use crate::journal::{Opening, PART, part_path, segment_path};
use crate::ports::{Disk, DiskHealth, DiskOrder};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Orders that may wait for the disk; each holds at most about a quarter of a megabyte, but for snapshots.
const ORDERS_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct LiveDisk {
    orders: Option<SyncSender<Work>>,
    /// Set by whichever side saw the failure.
    broken: Arc<Mutex<Option<String>>>,
    opened: Arc<Mutex<Option<(u64, u64)>>>,
    /// Between a failure and the next segment nothing is taken.
    refusing: bool,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is given to do.
enum Work {
    Order(DiskOrder),
    /// Packing a snapshot takes as long as a step may, or longer.
    Begin {
        number: u64,
        opening: Opening,
    },
}

impl LiveDisk {
    /// Writes segments into `folder`, which must exist.
    pub(super) fn start(folder: &Path) -> io::Result<Self> {
        let (orders, receiver) = sync_channel(ORDERS_MAX);
        let (broken, opened) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let writer = Writer {
            folder: folder.to_owned(),
            file: None,
            broken: Arc::clone(&broken),
            opened: Arc::clone(&opened),
        };
        let thread =
            std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok(Self { orders: Some(orders), broken, opened, refusing: false, thread: Some(thread) })
    }

    fn send(&mut self, work: Work) {
        let Some(orders) = &self.orders else { return };
        match orders.try_send(work) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.refusing = true;
                set(&self.broken, format!("the disk is so slow that {ORDERS_MAX} writes wait for it"));
            }
            Err(TrySendError::Disconnected(_)) => {
                self.refusing = true;
                set(&self.broken, "the journal's thread has ended".to_owned());
            }
        }
    }
}

impl Disk for LiveDisk {
    fn order(&mut self, order: DiskOrder) {
        let removes = matches!(order, DiskOrder::Remove { .. });
        if self.refusing && !removes && !matches!(order, DiskOrder::Segment { .. }) {
            return;
        }
        // What is removed may be what makes the room.
        self.refusing &= removes;
        self.send(Work::Order(order));
    }

    fn begin(&mut self, number: u64, opening: Opening) -> Option<u64> {
        self.refusing = false;
        self.send(Work::Begin { number, opening });
        None
    }

    fn opened(&mut self) -> Option<(u64, u64)> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn health(&mut self) -> DiskHealth {
        match self.broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(why) => {
                self.refusing = true;
                DiskHealth::Broken(why)
            }
            None => DiskHealth::Good,
        }
    }
}

impl Drop for LiveDisk {
    /// Waits until what was ordered is on the disk.
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn set(broken: &Mutex<Option<String>>, why: String) {
    broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
}

struct Writer {
    folder: PathBuf,
    file: Option<(PathBuf, File)>,
    broken: Arc<Mutex<Option<String>>>,
    opened: Arc<Mutex<Option<(u64, u64)>>>,
}

impl Writer {
    fn run(mut self, orders: &Receiver<Work>) {
        self.sweep();
        while let Ok(work) = orders.recv() {
            let done = match work {
                Work::Order(order) => self.carry_out(order),
                Work::Begin { number, opening } => self.begin(number, &opening.seal()),
            };
            if let Err(error) = done {
                let at = self.file.as_ref().map_or(&self.folder, |f| &f.0);
                set(&self.broken, format!("{}: {error}", at.display()));
                // What was torn off is cut by the reader; nothing more goes behind it.
                self.file = None;
            }
        }
        if let Some((_, file)) = &self.file {
            let _ = file.sync_data();
        }
    }

    /// Removes what a kill left of segments that were not yet whole.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|e| e == PART) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// A segment has its name only once its opening is whole: a kill or a full disk in between leaves none, and the
    /// one before stays the newest.
    fn begin(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some((_, file)) = self.file.take() {
            file.sync_data()?;
        }
        let (part, path) = (part_path(&self.folder, number), segment_path(&self.folder, number));
        let written = File::create(&part).and_then(|mut file| {
            file.write_all(bytes)?;
            // Before it is synced: what a kill leaves in the page cache is whole, and a sync may take long.
            fs::rename(&part, &path)?;
            file.sync_data()?;
            Ok(file)
        });
        match written {
            Ok(file) => self.file = Some((path, file)),
            Err(error) => {
                // It would only take room.
                let _ = (fs::remove_file(&part), fs::remove_file(&path));
                return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
            }
        }
        // After a power failure the name must be there too; where folders cannot be synced nothing more can be done.
        let _ = File::open(&self.folder).and_then(|folder| folder.sync_all());
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        *opened = Some((number, bytes.len() as u64));
        Ok(())
    }

    fn carry_out(&mut self, order: DiskOrder) -> io::Result<()> {
        match order {
            DiskOrder::Segment { number, bytes } => self.begin(number, &bytes),
            DiskOrder::Append(bytes) => match &mut self.file {
                Some((_, file)) => file.write_all(&bytes),
                None => Ok(()),
            },
            DiskOrder::Sync => match &self.file {
                Some((_, file)) => file.sync_data(),
                None => Ok(()),
            },
            DiskOrder::Remove { number } => match fs::remove_file(segment_path(&self.folder, number)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_reach_the_files_in_order() {
        let folder = std::env::temp_dir().join(format!("forerun-disk-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut disk = LiveDisk::start(&folder).unwrap();
        disk.order(DiskOrder::Segment { number: 1, bytes: b"head".to_vec() });
        disk.order(DiskOrder::Append(b" one".to_vec()));
        disk.order(DiskOrder::Append(b" two".to_vec()));
        disk.order(DiskOrder::Sync);
        disk.order(DiskOrder::Segment { number: 2, bytes: b"next".to_vec() });
        assert_eq!(disk.health(), DiskHealth::Good);
        drop(disk);
        assert_eq!(fs::read(segment_path(&folder, 1)).unwrap(), b"head one two");
        assert_eq!(fs::read(segment_path(&folder, 2)).unwrap(), b"next");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_disk_that_cannot_be_written_says_where_and_why() {
        let mut disk = LiveDisk::start(Path::new("/nonexistent-folder")).unwrap();
        disk.order(DiskOrder::Segment { number: 1, bytes: b"head".to_vec() });
        let mut health = disk.health();
        for _ in 0..200 {
            if health != DiskHealth::Good {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
            health = disk.health();
        }
        assert!(
            matches!(&health, DiskHealth::Broken(why) if why.contains("/nonexistent-folder")),
            "{health:?}"
        );
    }
}
