//! Whether a place is fit for a store: what the ledger does there is tried out, one thing after the other.
//!
//! Everything relies on put-if-absent: of several writers that put one name at once, one is told that it was first. Some
//! stores ignore the condition in silence, and some look first and put then, so that only a race tells. What is written
//! lies in a folder of its own, and goes again.

use std::time::Instant;

use bytes::Bytes;
use futures::future::join_all;
use object_store::ObjectStoreExt;

use crate::bucket::PATIENCE;
use crate::error::{Error, Result};
use crate::storage::Storage;

/// Writers that put one name at once.
const WRITERS: usize = 32;
/// Races of a whole check, and of the one before a store is begun.
pub(crate) const RACES: usize = 100;
pub(crate) const FEW_RACES: usize = 3;
/// A part of an upload in parts: a bucket takes no smaller ones.
const PART: usize = 5 << 20;

/// One thing that the ledger does in a store, and why it cannot be done there.
#[derive(Debug)]
pub struct Ability {
    /// What was tried.
    pub what: &'static str,
    /// What came of it, if that is not what it should be.
    pub problem: Option<String>,
}

/// Tries out all that is done in a store, with so many races for one name.
pub(crate) async fn check(storage: &Storage, races: usize) -> Vec<Ability> {
    let folder = storage.folder(&format!("check-{}", uuid::Uuid::new_v4().simple()));
    let tries = Tries { storage: &folder };
    let mut found = Vec::new();
    let mut note = |what, tried: Result<(), String>| found.push(Ability { what, problem: tried.err() });
    let began = Instant::now();
    note("put an object", tries.put().await);
    if began.elapsed() >= PATIENCE {
        // Nothing answers, and each of the others would wait for as long.
        return found;
    }
    note("get an object", tries.get().await);
    note("get a part of an object", tries.get_range().await);
    note("be told that an object is not there", tries.get_missing().await);
    note("list objects", tries.list().await);
    note("put an object only if its name is free", tries.race(races).await);
    note("replace an object only if nobody else has", tries.update().await);
    note("put an object in parts", tries.put_parts().await);
    note("give up an object in parts", tries.abort_parts().await);
    note("delete objects", tries.delete().await);
    found
}

/// Fails, naming what is missing, if the place is not fit for a store.
pub(crate) async fn require(storage: &Storage) -> Result<()> {
    let found = check(storage, FEW_RACES).await;
    let missing = found.iter().filter_map(|ability| {
        let problem = ability.problem.as_ref()?;
        Some(format!("it must be possible to {}: {problem}", ability.what))
    });
    let missing: Vec<_> = missing.collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Error::Location { url: storage.location(""), reason: missing.join("; ") }),
    }
}

struct Tries<'a> {
    storage: &'a Storage,
}

const OBJECT: &str = "object";
const CONTENT: &[u8] = b"0123456789";

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, got: T, expected: T) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{what}: {expected:?} is expected, and not {got:?}")) }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

impl Tries<'_> {
    async fn put(&self) -> Result<(), String> {
        self.storage.put(OBJECT, Bytes::from_static(CONTENT)).await.map_err(text)
    }

    async fn get(&self) -> Result<(), String> {
        expect("its content", self.storage.get(OBJECT).await.map_err(text)?, Bytes::from_static(CONTENT))
    }

    async fn get_range(&self) -> Result<(), String> {
        let part = self.storage.store().get_range(&self.storage.path(OBJECT), 3..7).await.map_err(text)?;
        expect("bytes 3 to 6", part, Bytes::from_static(&CONTENT[3..7]))
    }

    async fn get_missing(&self) -> Result<(), String> {
        let there = self.storage.try_get("nothing").await.map_err(|error| {
            format!(
                "without the permission to list the bucket, some stores say that it is forbidden: {error}"
            )
        });
        expect("content of an object that is not there", there?, None)
    }

    async fn list(&self) -> Result<(), String> {
        let mut names = self.storage.list("").await.map_err(text)?;
        names.sort();
        expect("the names", names, vec![OBJECT.to_owned()])
    }

    /// Of all that put one name at once, exactly one has to be told that it was first, and its object has to be there.
    async fn race(&self, races: usize) -> Result<(), String> {
        for race in 0..races {
            let name = format!("race/{race}");
            let content = |writer: usize| Bytes::from(format!("writer {writer}"));
            let put = async |writer: usize| self.storage.put_new(&name, content(writer)).await;
            let told = join_all((0..WRITERS).map(put)).await;
            let told = told.into_iter().collect::<Result<Vec<_>>>().map_err(text)?;
            let first: Vec<_> = (0..WRITERS).filter(|writer| told[*writer]).collect();
            let [winner] = first[..] else {
                return Err(format!(
                    "of {WRITERS} writers that put one name at once, one has to be told that it was first; {} were told so \
                     (race {} of {races})",
                    first.len(),
                    race + 1
                ));
            };
            expect("the winner's object", self.storage.get(&name).await.map_err(text)?, content(winner))?;
        }
        Ok(())
    }

    /// Each of those that count at once has to count on from the one before.
    async fn update(&self) -> Result<(), String> {
        let counting = async |_| {
            let next = |there: Option<Bytes>| {
                let number = there.map_or(0, |there| there.len());
                Ok(Some(Bytes::from("1".repeat(number + 1))))
            };
            self.storage.update("counter", next).await
        };
        join_all((0..4).map(counting)).await.into_iter().collect::<Result<()>>().map_err(text)?;
        expect("the count of four", self.storage.get("counter").await.map_err(text)?.len(), 4)
    }

    async fn put_parts(&self) -> Result<(), String> {
        let parts = || (0..3u8).map(|n| Bytes::from(vec![n; if n < 2 { PART } else { 1 }]));
        let chunks = futures::stream::iter(parts().map(Ok));
        self.storage.put_stream("parts", chunks).await.map_err(text)?;
        let there = self.storage.get("parts").await.map_err(text)?;
        match there == parts().collect::<Vec<_>>().concat() {
            true => Ok(()),
            false => Err(format!("its content is not what was put ({} bytes)", there.len())),
        }
    }

    async fn abort_parts(&self) -> Result<(), String> {
        let store = self.storage.store();
        let mut upload = store.put_multipart(&self.storage.path("given-up")).await.map_err(text)?;
        let put = upload.put_part(vec![0; PART].into()).await;
        upload.abort().await.map_err(text)?;
        put.map_err(text)?;
        expect("what is there", self.storage.try_get("given-up").await.map_err(text)?, None)
    }

    async fn delete(&self) -> Result<(), String> {
        let there = self.storage.list("").await.map_err(text)?;
        self.storage.remove(there).await.map_err(text)?;
        let left = self.storage.list("").await.map_err(text)?;
        if let Some(folder) = self.storage.directory() {
            std::fs::remove_dir_all(folder).map_err(text)?;
        }
        expect("what is left", left, Vec::new())
    }
}
