//! The keys of persons' sessions, and the sessions that have ended, in files beside the logs' keys. All instances
//! of a server have these files in common; each looks every second whether another has changed them.
//!
//! | file | holds |
//! |---|---|
//! | `pages.session` | the keys of the session cookies; replaced as a whole |
//! | `pages.ended` | a line for each session that was ended before its time: until when to remember it, and its id |
//! | `pages.lock` | nothing; whoever replaces one of the others holds a lock on it |

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::{Context, Result};
use chrono::Utc;
use futures::future::BoxFuture;
use sporlog_web::sign_in::{SessionKeys, SessionRegistry};
use tokio::task::JoinHandle;

use crate::keyfile::{Stamp, every_second, lock, read, replace, stamp};

/// After so many seconds old keys and old lines are removed, and a new key is made if it is time.
const TIDY: u32 = 600;

/// The files as a running server has them, until this is dropped.
pub struct SessionFiles {
    shared: Arc<Shared>,
    following: JoinHandle<()>,
}

struct Shared {
    folder: PathBuf,
    /// The longest a session lasts, in seconds.
    longest: i64,
    keys: RwLock<Arc<SessionKeys>>,
    /// The ids of ended sessions, and until when they are remembered.
    ended: RwLock<HashMap<String, i64>>,
    /// The files that keys and ids were read from.
    read: Mutex<[Option<Stamp>; 2]>,
}

impl SessionFiles {
    /// Reads the files in this folder, which are made if they are not there, and keeps up with them. Sessions last
    /// at most `longest` seconds. To be called on a runtime.
    pub fn follow(folder: PathBuf, longest: i64) -> Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            folder,
            longest,
            keys: RwLock::default(),
            ended: RwLock::default(),
            read: Mutex::default(),
        });
        shared.tidy()?;
        shared.look()?;
        let files = Arc::clone(&shared);
        let failed = "the files of persons' sessions cannot be used; the sessions stay as they are";
        let following = tokio::spawn(every_second(failed, move |second| {
            if second % TIDY == 0 {
                files.tidy()?;
            }
            files.look()
        }));
        Ok(Arc::new(SessionFiles { shared, following }))
    }
}

impl Drop for SessionFiles {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Shared {
    fn keys_file(&self) -> PathBuf {
        self.folder.join("pages.session")
    }

    fn ended_file(&self) -> PathBuf {
        self.folder.join("pages.ended")
    }

    /// Makes a new key if it is time, and removes what is no longer needed.
    fn tidy(&self) -> Result<()> {
        let _lock = lock(&self.folder, "pages.lock")?;
        let now = Utc::now().timestamp();
        self.ended.write().unwrap_or_else(PoisonError::into_inner).retain(|_, until| *until > now);
        let path = self.keys_file();
        let mut keys = match read(&path)? {
            Some(bytes) => SessionKeys::from_json(&bytes).with_context(|| path.display().to_string())?,
            None => SessionKeys::default(),
        };
        if keys.rotate(now, self.longest)? {
            replace(&path, &keys.to_json())?;
        }
        let path = self.ended_file();
        let Some(text) = read(&path)? else { return Ok(()) };
        let ended = lines(&text);
        let kept: HashMap<_, _> = ended.iter().filter(|(_, until)| **until > now).collect();
        if kept.len() < ended.len() {
            let text: String = kept.iter().map(|(id, until)| format!("{until} {id}\n")).collect();
            replace(&path, text.as_bytes())?;
        }
        Ok(())
    }

    /// Reads the files that are others than before.
    fn look(&self) -> Result<()> {
        let mut read_before = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let [keys_read, ended_read] = &mut *read_before;
        let path = self.keys_file();
        if let Some(bytes) = changed(&path, keys_read)? {
            let keys = SessionKeys::from_json(&bytes).with_context(|| path.display().to_string())?;
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        }
        if let Some(text) = changed(&self.ended_file(), ended_read)? {
            self.ended.write().unwrap_or_else(PoisonError::into_inner).extend(lines(&text));
        }
        Ok(())
    }

    /// Adds a line; a line is one write, so lines of several instances do not mix.
    fn add(&self, id: &str, until: i64) -> io::Result<()> {
        let mut file = File::options().append(true).create(true).mode(0o600).open(self.ended_file())?;
        file.write_all(format!("{until} {id}\n").as_bytes())
    }
}

impl SessionRegistry for SessionFiles {
    fn keys(&self) -> Arc<SessionKeys> {
        Arc::clone(&self.shared.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn has_ended(&self, id: &str) -> bool {
        self.shared.ended.read().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    fn end(&self, id: String, until: i64, most: usize) -> BoxFuture<'_, ()> {
        let shared = Arc::clone(&self.shared);
        let add = move || {
            {
                let mut ended = shared.ended.write().unwrap_or_else(PoisonError::into_inner);
                // Anybody may end a provider's session again and again; the file is not to grow by that.
                if ended.contains_key(&id) {
                    return;
                }
                if ended.len() >= most {
                    tracing::error!(
                        "{most} sessions have been ended within hours; this one is not remembered"
                    );
                    return;
                }
                ended.insert(id.clone(), until);
            }
            if let Err(error) = shared.add(&id, until) {
                tracing::error!(%error, "other instances do not learn that a session has ended");
            }
        };
        Box::pin(async {
            // The closure can only have panicked, and then that has been said.
            let _ = tokio::task::spawn_blocking(add).await;
        })
    }
}

/// What the file holds, if the file is there and not the one that was read before.
fn changed(path: &Path, before: &mut Option<Stamp>) -> Result<Option<Vec<u8>>> {
    let found = stamp(path)?;
    if found.is_none() || found == *before {
        return Ok(None);
    }
    let bytes = read(path)?;
    *before = found;
    Ok(bytes)
}

/// The ids of ended sessions. A line that was cut off by a crash is none.
fn lines(text: &[u8]) -> HashMap<String, i64> {
    let text = String::from_utf8_lossy(text);
    let parse = |line: &str| {
        let (until, id) = line.split_once(' ')?;
        Some((id.to_owned(), until.parse().ok()?))
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    const LONGEST: i64 = 3600;

    /// Waits until the registry knows that the session has ended.
    async fn until_ended(files: &SessionFiles, id: &str) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !files.has_ended(id) {
            assert!(std::time::Instant::now() < deadline, "{id} has not ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn instances_share_keys_and_ended_sessions() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path().join("keys");
        let follow = || SessionFiles::follow(folder.clone(), LONGEST).expect("followed");
        let (here, there) = (follow(), follow());
        assert_eq!(here.keys().to_json(), there.keys().to_json());
        let until = Utc::now().timestamp() + LONGEST;
        here.end("one".into(), until, 9).await;
        there.end("two".into(), until, 9).await;
        assert!(here.has_ended("one") && there.has_ended("two"));
        until_ended(&here, "two").await;
        until_ended(&there, "one").await;
        here.end("three".into(), until, 2).await;
        assert!(!here.has_ended("three"), "two are remembered already");
        assert!(follow().has_ended("one"), "a new instance knows, too");
        for name in ["pages.session", "pages.ended"] {
            let mode = folder.join(name).metadata().expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[tokio::test]
    async fn a_session_that_is_ended_again_takes_no_more_room() {
        let place = tempfile::tempdir().expect("a folder");
        let files = SessionFiles::follow(place.path().into(), LONGEST).expect("followed");
        let until = Utc::now().timestamp() + LONGEST;
        for later in 0..3 {
            files.end("one".into(), until + later, 9).await;
        }
        let text = std::fs::read_to_string(place.path().join("pages.ended")).expect("read");
        assert_eq!(text, format!("{until} one\n"));
    }

    #[tokio::test]
    async fn what_is_over_is_forgotten_and_half_a_line_is_none() {
        let place = tempfile::tempdir().expect("a folder");
        let now = Utc::now().timestamp();
        let text = format!("{} old\n{} new\n17", now - 1, now + LONGEST);
        std::fs::write(place.path().join("pages.ended"), text).expect("written");
        let files = SessionFiles::follow(place.path().into(), LONGEST).expect("followed");
        assert!(files.has_ended("new") && !files.has_ended("old"));
        let text = std::fs::read_to_string(place.path().join("pages.ended")).expect("read");
        assert_eq!(text, format!("{} new\n", now + LONGEST));
    }

    #[tokio::test]
    async fn a_server_does_not_start_with_damaged_keys() {
        let place = tempfile::tempdir().expect("a folder");
        std::fs::write(place.path().join("pages.session"), "[{").expect("written");
        let error = SessionFiles::follow(place.path().into(), LONGEST).err().expect("refused");
        let error = format!("{error:#}");
        assert!(error.contains("pages.session") && error.contains("sign in again"), "{error}");
    }
}
