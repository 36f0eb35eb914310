//! A large file that is read while it is still being uploaded to our server.
//!
//! What has been read when the last byte comes need not be read then. That is a gamble: a log is held while
//! rows are staged for it, so the file has to come quickly, nobody else may be waiting, and it has to come
//! from its beginning to its end without a byte being written again. Whenever one of these does not hold,
//! the reading is given up, nothing has happened, and the file is read when it is complete like any other.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::claim::Stamp;
use super::name::final_name;

/// A file is read along only when so much of it has come (in tests, a little), for a smaller one is read
/// quickly enough when it is there …
const BYTES: u64 = if cfg!(test) { 1 << 10 } else { 512 << 20 };
/// … and so much of it in each second, on average and lately.
const BYTES_PER_SECOND: u64 = if cfg!(test) { 1 } else { 32 << 20 };
/// How long "lately" is.
const LATELY: Duration = Duration::from_secs(2);
/// How long closing it may take, until all of it is durable.
const CLOSING: Duration = Duration::from_secs(10);
/// How long it may be read along.
const LONGEST: Duration = Duration::from_secs(120);
/// Others are kept waiting for so long.
const OTHERS: Duration = Duration::from_millis(300);
/// How often it is looked whether more has come.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// An upload that is under way.
#[derive(Debug)]
pub struct Growth {
    /// The account that it comes from.
    pub account: String,
    /// What the file is called while it is uploaded.
    pub uploaded_as: OsString,
    began: Instant,
    /// Bytes that are there without a gap.
    bytes: AtomicU64,
    state: Mutex<State>,
    is_read: AtomicBool,
    given_up: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Growing,
    /// Being closed, since then: all has been written, and is made durable.
    Closing(Instant),
    /// Closed, since then, as this.
    Whole(Instant, Stamp),
    /// In the inbox, where it is complete at the given time.
    Delivered(Instant, Stamp),
    /// It is not what it seemed to be.
    Broken,
}

impl Growth {
    /// An upload that begins, from its first byte on.
    pub fn begin(account: &str, uploaded_as: &str) -> Self {
        Growth {
            account: account.to_owned(),
            uploaded_as: uploaded_as.into(),
            began: Instant::now(),
            bytes: AtomicU64::new(0),
            state: Mutex::new(State::Growing),
            is_read: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
        }
    }

    /// Bytes have been written. If they are not the next ones, the file cannot be read along.
    pub fn grew(&self, offset: u64, len: u64) {
        if self.bytes.load(Ordering::Relaxed) == offset {
            self.bytes.store(offset + len, Ordering::Release);
        } else {
            self.breaks();
        }
    }

    /// All of it has been written, and it is about to be closed.
    pub fn closing(&self) {
        let mut state = self.state();
        if *state == State::Growing {
            *state = State::Closing(Instant::now());
        }
    }

    /// It has been closed, as this file; what it is later has to be the same.
    pub fn whole(&self, file: &Metadata) {
        let mut state = self.state();
        if let (State::Growing | State::Closing(_), Some(stamp)) = (*state, Stamp::of(file)) {
            *state = State::Whole(Instant::now(), stamp);
        }
    }

    /// It cannot be read along any more; once it is whole, that is not so.
    pub fn breaks(&self) {
        let mut state = self.state();
        if matches!(*state, State::Growing | State::Closing(_)) {
            *state = State::Broken;
        }
    }

    /// It lies in the inbox and is complete at this time.
    pub(super) fn delivered(&self, complete: Instant) {
        let mut state = self.state();
        if let State::Whole(_, stamp) | State::Delivered(_, stamp) = *state {
            *state = State::Delivered(complete, stamp);
        }
    }

    /// When it is complete in the inbox, once that is known.
    pub(super) fn complete_at(&self) -> Option<Instant> {
        match *self.state() {
            State::Delivered(at, _) => Some(at),
            _ => None,
        }
    }

    /// The file as it was when it was closed.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        match *self.state() {
            State::Whole(_, stamp) | State::Delivered(_, stamp) => Some(stamp),
            _ => None,
        }
    }

    /// Whether it is worth to be read along by now.
    pub(super) fn is_worth_it(&self) -> bool {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let rate = bytes as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        bytes >= BYTES
            && rate >= BYTES_PER_SECOND as f64
            && *self.state() == State::Growing
            && !self.is_given_up()
    }

    /// Whether it may become, or is, one that is worth it.
    pub(super) fn is_alive(&self) -> bool {
        self.complete_at().is_none() && self.hopeless().is_none()
    }

    /// It is read along from now on.
    pub(super) fn read(&self) {
        self.is_read.store(true, Ordering::Release);
    }

    /// Gives the reading up, if the file is being read and still coming: another is complete.
    pub(super) fn make_way(&self) {
        if self.is_read.load(Ordering::Acquire) && self.stamp().is_none() {
            self.give_up();
        }
    }

    /// Gives the reading up.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    /// Why it is of no use to wait any longer, if it is not.
    pub(super) fn hopeless(&self) -> Option<&'static str> {
        match *self.state() {
            _ if self.is_given_up() => Some("others have come first"),
            State::Broken => Some("it has not come in one piece"),
            State::Closing(since) if since.elapsed() > CLOSING => Some("closing it takes too long"),
            State::Whole(since, _) if since.elapsed() > LATELY => Some("it has not been given its name"),
            _ => None,
        }
    }

    /// What the file will be called.
    pub(super) fn name(&self) -> OsString {
        final_name(&self.uploaded_as)
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    fn is_growing(&self) -> bool {
        *self.state() == State::Growing
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a file behind whoever writes it, to its end. Fails when that is of no use any more.
pub(super) struct Behind {
    pub file: Arc<File>,
    pub growth: Arc<Growth>,
    /// Set when the program wants to end.
    pub stop: Arc<AtomicBool>,
    /// Whether somebody waits for what the reading holds.
    pub is_waited_for: Box<dyn Fn() -> bool + Send>,
    at: u64,
    began: Instant,
    waited_for: Option<Instant>,
    lately: (Instant, u64),
}

impl Behind {
    pub fn new(
        file: Arc<File>,
        growth: Arc<Growth>,
        stop: Arc<AtomicBool>,
        is_waited_for: impl Fn() -> bool + Send + 'static,
    ) -> Self {
        let began = Instant::now();
        let lately = (began, growth.bytes.load(Ordering::Relaxed));
        let is_waited_for = Box::new(is_waited_for);
        Behind { file, growth, stop, is_waited_for, at: 0, began, waited_for: None, lately }
    }

    fn check(&mut self) -> io::Result<()> {
        let reason =
            self.growth.hopeless().or_else(|| self.keeps_others_waiting()).or_else(|| self.is_slow());
        let stopping = || self.stop.load(Ordering::Acquire).then_some("the program ends");
        let too_long = || (self.began.elapsed() > LONGEST).then_some("it takes too long");
        match reason.or_else(stopping).or_else(too_long) {
            Some(reason) => Err(io::Error::other(reason)),
            None => Ok(()),
        }
    }

    fn keeps_others_waiting(&mut self) -> Option<&'static str> {
        let since = (self.is_waited_for)().then(|| *self.waited_for.get_or_insert_with(Instant::now));
        if since.is_none() {
            self.waited_for = None;
        }
        since.is_some_and(|since| since.elapsed() > OTHERS).then_some("others wait for the log")
    }

    fn is_slow(&mut self) -> Option<&'static str> {
        let (since, from) = self.lately;
        if since.elapsed() < LATELY {
            return None;
        }
        let bytes = self.growth.bytes.load(Ordering::Relaxed);
        self.lately = (Instant::now(), bytes);
        let slow = bytes - from < BYTES_PER_SECOND * LATELY.as_secs();
        (slow && self.growth.is_growing()).then_some("it comes too slowly")
    }
}

impl Read for Behind {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.check()?;
            // In this order: what was whole before the bytes were counted does not grow after.
            let is_whole = self.growth.stamp().is_some();
            let there = self.growth.bytes.load(Ordering::Acquire);
            if there > self.at {
                let room =
                    usize::try_from(there - self.at).map_or(buffer.len(), |left| left.min(buffer.len()));
                let read = self.file.read_at(buffer.get_mut(..room).unwrap_or_default(), self.at)?;
                if read == 0 && room > 0 {
                    // It has been cut off since.
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.at += read as u64;
                return Ok(read);
            }
            if is_whole {
                return Ok(0);
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(growth: &Arc<Growth>, content: &[u8]) -> (tempfile::TempDir, Behind) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv.part");
        std::fs::write(&path, content).unwrap();
        let file = Arc::new(File::open(path).unwrap());
        (folder, Behind::new(file, growth.clone(), Arc::default(), || false))
    }

    #[test]
    fn it_is_read_as_far_as_it_has_come_and_to_its_end() {
        let growth = Arc::new(Growth::begin("ky", "a.csv.part"));
        let (_folder, mut behind) = reader(&growth, b"abcdef");
        growth.grew(0, 2);
        let mut buffer = [0; 10];
        assert_eq!((behind.read(&mut buffer).unwrap(), &buffer[..2]), (2, &b"ab"[..]));
        let closed = behind.file.metadata().unwrap();
        let writer = thread::spawn({
            let growth = growth.clone();
            move || {
                thread::sleep(Duration::from_millis(20));
                growth.grew(2, 4);
                growth.closing();
                growth.whole(&closed);
            }
        });
        let mut rest = Vec::new();
        behind.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"cdef");
        writer.join().unwrap();
        assert_eq!((growth.name(), growth.complete_at()), ("a.csv".into(), None));
        growth.delivered(Instant::now());
        assert!(growth.complete_at().is_some());
    }

    #[test]
    fn what_is_written_again_cut_off_or_given_up_is_not_read() {
        for end in [|g: &Growth| g.grew(1, 3), Growth::breaks, Growth::give_up] {
            let growth = Arc::new(Growth::begin("ky", "a.csv"));
            let (_folder, mut behind) = reader(&growth, b"abcdef");
            growth.grew(0, 4);
            end(&growth);
            assert!(behind.read(&mut [0; 10]).is_err());
            growth.whole(&behind.file.metadata().unwrap());
            growth.delivered(Instant::now());
            assert!(behind.read(&mut [0; 10]).is_err(), "it does not come back");
        }
    }

    #[test]
    fn others_are_not_kept_waiting() {
        let growth = Arc::new(Growth::begin("ky", "a.csv"));
        let (_folder, mut behind) = reader(&growth, b"abcdef");
        behind.is_waited_for = Box::new(|| true);
        let began = Instant::now();
        assert!(behind.read(&mut [0; 10]).is_err());
        assert!(began.elapsed() >= OTHERS);
    }

    #[test]
    fn only_what_is_large_and_quick_is_worth_it() {
        let growth = Growth::begin("ky", "a.csv");
        growth.grew(0, BYTES - 1);
        assert!(!growth.is_worth_it());
        growth.grew(BYTES - 1, 1);
        assert!(growth.is_worth_it());
        growth.closing();
        assert!(!growth.is_worth_it());
    }

    #[test]
    fn a_file_that_was_cut_off_has_not_come_to_its_end() {
        let growth = Arc::new(Growth::begin("ky", "a.csv"));
        let (_folder, mut behind) = reader(&growth, b"");
        growth.grew(0, 4);
        assert!(behind.read(&mut [0; 10]).is_err());
    }
}
