//! Where a store lies: an address, and the few file operations that the ledger needs.
//!
//! Nothing here, nor above it, does what an S3-compatible bucket could not do: whole-object puts,
//! put-if-absent, ranged reads, listing, deletion.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    UpdateVersion, WriteMultipart,
};
#[cfg(feature = "ballista")]
use url::Position;
use url::Url;

use crate::bucket::{self, PATIENCE, SUPPORTED};
use crate::durable::DurableLocal;
use crate::error::{Error, Result};
use crate::local_files::make_folder;

/// An opened place: a directory or the folder of a bucket.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    store: Arc<dyn ObjectStore>,
    /// The same store, if it is on a disk, which can do more.
    disk: Option<Arc<DurableLocal>>,
    /// Below the object store's root, which on a disk is the directory of the whole store.
    base: Path,
    /// The address of this place, if it is not on a disk.
    address: String,
}

/// How many requests are under way at once when many files are removed or a large one is written.
const PARALLEL: usize = 32;
/// How many are when many small objects are put: a million records have 7,800 tiles, and a put may take 50 ms.
const SMALL_PARALLEL: usize = 128;

/// What an object in a bucket says of the put that made it: a random name that no other put has.
const PUT_BY: Attribute = Attribute::Metadata(Cow::Borrowed("sporlog-put"));

impl Storage {
    /// Opens `address`: a path, or a URL (`file:///…`, `s3://bucket/prefix`, and for tests `memory:///`).
    /// A local directory is created if `create` is set. A bucket is not asked for anything yet.
    pub(crate) fn open(address: &str, create: bool) -> Result<Self> {
        let fail = |reason: String| Error::Location { url: address.to_owned(), reason };
        if let Some(dir) = local_directory(address).map_err(fail)? {
            if create {
                make_folder(&dir).map_err(|e| fail(e.to_string()))?;
            } else if !dir.is_dir() {
                return Err(fail("there is no such directory".into()));
            }
            let full = dir.canonicalize().map_err(|e| fail(e.to_string()))?;
            let disk = Arc::new(DurableLocal::new(full).map_err(|e| fail(e.to_string()))?);
            let (base, address) = (Path::default(), String::new());
            return Ok(Storage { store: disk.clone(), disk: Some(disk), base, address });
        }
        let mut url = Url::parse(address).map_err(|e| fail(e.to_string()))?;
        let (store, base): (Arc<dyn ObjectStore>, _) = match url.scheme() {
            "s3" => bucket::open(&url).map(|(store, base)| (Arc::new(store) as _, base)).map_err(fail)?,
            "memory" => (Arc::new(InMemory::new()), Path::default()),
            _ => return Err(fail(SUPPORTED.into())),
        };
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Storage { store, disk: None, base, address: url.into() })
    }

    /// The folder `name` in this place.
    pub(crate) fn folder(&self, name: &str) -> Storage {
        let base = name.split('/').fold(self.base.clone(), |path, part| path.join(part));
        Storage { base, address: format!("{}{name}/", self.address), ..self.clone() }
    }

    /// The object store below this place; paths are those that [`path`](Self::path) gives.
    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    /// This place as a directory of this machine, if it is one.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        self.disk.as_ref().map(|disk| disk.fs_path(&self.base))
    }

    /// Where an object lies, for another program: its path on this machine, or its URL.
    pub(crate) fn location(&self, name: &str) -> String {
        match &self.disk {
            Some(disk) => disk.fs_path(&self.path(name)).to_string_lossy().into_owned(),
            None => format!("{}{name}", self.address),
        }
    }

    /// Where other programs find the objects: the URL of a file system or a bucket, and what goes before a
    /// [`path`](Self::path) there.
    #[cfg(feature = "ballista")]
    pub(crate) fn shared(&self) -> Result<(String, Path)> {
        let fail = |reason: String| Error::Location { url: self.location(""), reason };
        match &self.disk {
            Some(disk) => {
                let root = Path::from_absolute_path(disk.fs_path(&Path::default()));
                Ok(("file:///".into(), root.map_err(|e| fail(e.to_string()))?))
            }
            None => {
                let url = Url::parse(&self.address).map_err(|e| fail(e.to_string()))?;
                Ok((url[..Position::BeforePath].to_owned(), Path::default()))
            }
        }
    }

    /// The object store's path of `name`, which may have slashes in it.
    pub(crate) fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.base.clone(), |path, part| path.join(part))
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Bytes> {
        let read = async { self.store.get(&self.path(name)).await?.bytes().await };
        read.await.map_err(Error::storage(name))
    }

    /// Like [`get`](Self::get), with `None` where there is no such object.
    pub(crate) async fn try_get(&self, name: &str) -> Result<Option<Bytes>> {
        match self.get(name).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::Storage { source, .. }) if bucket::is_missing(&source) => {
                Err(Error::Location { url: self.location(""), reason: source.to_string() })
            }
            Err(Error::Storage { source: object_store::Error::NotFound { .. }, .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Durable when it returns.
    pub(crate) async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        let (path, begun, mut attempt) = (self.path(name), Instant::now(), 0);
        loop {
            match self.store.put(&path, PutPayload::from(bytes.clone())).await {
                Ok(_) => return Ok(()),
                // No condition was asked for: another request is in the way of this one, and is soon done (409).
                Err(object_store::Error::AlreadyExists { .. })
                    if self.disk.is_none() && begun.elapsed() < PATIENCE =>
                {
                    tokio::time::sleep(bucket::pause(attempt)).await;
                    attempt += 1;
                }
                Err(error) => return Err(Error::storage(name)(error)),
            }
        }
    }

    /// Durable when it returns; false, and nothing changed, if the name is taken. [`Error::Unsure`] if nobody knows
    /// whether the object is there, or will be; after any other error it is not.
    ///
    /// The answer of a bucket may be lost after the put took effect, and a put whose answer is lost may still take
    /// effect. So each answer but success is held against what is there under the name. As long as nothing is,
    /// the same put is sent again: at most one of them can take effect.
    pub(crate) async fn put_new(&self, name: &str, bytes: Bytes) -> Result<bool> {
        let mine = uuid::Uuid::new_v4().to_string();
        let attributes = match self.disk {
            Some(_) => Attributes::new(),
            None => Attributes::from_iter([(PUT_BY, mine.clone())]),
        };
        let options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
        let (path, begun) = (self.path(name), Instant::now());
        for attempt in 0.. {
            let put = self.store.put_opts(&path, PutPayload::from(bytes.clone()), options.clone()).await;
            let error = match put {
                Ok(_) => return Ok(true),
                Err(object_store::Error::AlreadyExists { .. }) if self.disk.is_some() => return Ok(false),
                Err(error) => error,
            };
            // The client of the bucket may have sent the put several times, of which the last was refused.
            let is_definite = self.disk.is_some() || attempt == 0 && is_refusal(&error);
            match self.is_mine(&path, &bytes, &mine).await {
                // On a disk, what is there in spite of an error may not be durable.
                Ok(Some(mine)) if !mine || self.disk.is_none() => return Ok(mine),
                Ok(None) if is_definite => return Err(Error::storage(name)(error)),
                Ok(None) if begun.elapsed() < PATIENCE => tokio::time::sleep(bucket::pause(attempt)).await,
                _ => {
                    let source = bucket::in_words(error);
                    return Err(Error::Unsure { file: name.to_owned(), source });
                }
            }
        }
        unreachable!("the loop has no end")
    }

    /// Whether the object at `path` is the one that was put with these bytes and the mark `mine`; `None` if there is
    /// none. Some stores do not keep the mark: there, the bytes decide.
    async fn is_mine(&self, path: &Path, bytes: &Bytes, mine: &str) -> object_store::Result<Option<bool>> {
        let object = match self.store.get(path).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            object => object?,
        };
        let marked = object.attributes.get(&PUT_BY).is_none_or(|by| by.as_ref() == mine);
        Ok(Some(marked && object.bytes().await? == *bytes))
    }

    /// Puts what `next` makes of the object's content in its place, and leaves the object as it is if that is
    /// `None`. Of several processes that do this at once, each sees what the one before has put. Durable when
    /// it returns.
    ///
    /// On a file system whose folders cannot be locked (NFS), the processes are not kept apart.
    pub(crate) async fn update(
        &self,
        name: &str,
        next: impl Fn(Option<Bytes>) -> Result<Option<Bytes>>,
    ) -> Result<()> {
        let Some(disk) = &self.disk else { return self.update_remote(name, next).await };
        let _locked = disk.lock_folder(&self.path(name)).await.map_err(Error::storage(name))?;
        match next(self.try_get(name).await?)? {
            Some(bytes) => self.put(name, bytes).await,
            None => Ok(()),
        }
    }

    async fn update_remote(
        &self,
        name: &str,
        next: impl Fn(Option<Bytes>) -> Result<Option<Bytes>>,
    ) -> Result<()> {
        let (store, path, begun) = (&self.store, self.path(name), Instant::now());
        loop {
            let (there, mode) = match store.get(&path).await {
                Ok(object) => {
                    let version = UpdateVersion {
                        e_tag: object.meta.e_tag.clone(),
                        version: object.meta.version.clone(),
                    };
                    (Some(object.bytes().await.map_err(Error::storage(name))?), PutMode::Update(version))
                }
                Err(object_store::Error::NotFound { .. }) => (None, PutMode::Create),
                Err(e) => return Err(Error::storage(name)(e)),
            };
            let Some(bytes) = next(there)? else { return Ok(()) };
            match store.put_opts(&path, PutPayload::from(bytes), mode.into()).await {
                Ok(_) => return Ok(()),
                // Another process was first.
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
                    if begun.elapsed() < PATIENCE => {}
                Err(e) => return Err(Error::storage(name)(e)),
            }
        }
    }

    /// An object whose name nobody knows before this returns. Durable then.
    pub(crate) async fn put_unknown(&self, name: &str, bytes: Bytes) -> Result<()> {
        match &self.disk {
            Some(disk) => disk.put_unknown(&self.path(name), bytes).await.map_err(Error::storage(name)),
            None => self.put(name, bytes).await,
        }
    }

    /// Many small objects; durable only after [`sync`](Self::sync).
    pub(crate) async fn put_many(&self, files: Vec<(String, Bytes)>) -> Result<()> {
        if let Some(disk) = &self.disk {
            let files = files.into_iter().map(|(name, bytes)| (self.path(&name), bytes)).collect();
            return disk.put_many(files).await.map_err(Error::storage("tlog"));
        }
        let put = |(name, bytes): (String, Bytes)| async move { self.put(&name, bytes).await };
        futures::stream::iter(files).map(put).buffer_unordered(SMALL_PARALLEL).try_collect().await
    }

    /// Makes durable what [`put_many`](Self::put_many) wrote.
    pub(crate) async fn sync(&self, names: &[String]) -> Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        disk.sync(names.iter().map(|name| self.path(name))).await.map_err(Error::storage("tlog"))
    }

    /// The names below `folder`, relative to this place, in no order; without files that are still being
    /// written, or that a killed process left.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let objects = self.objects(folder).await?;
        Ok(objects.into_iter().map(|(name, _)| name).filter(|name| !is_unfinished(name)).collect())
    }

    /// The names of all objects in this place, with the times of their last change: on a disk also of
    /// files that are still being written, or that a killed process left.
    pub(crate) async fn list_all(&self) -> Result<Vec<(String, DateTime<Utc>)>> {
        match self.directory() {
            Some(dir) => {
                let listed = tokio::task::spawn_blocking(move || list_directory(&dir)).await;
                listed
                    .map_err(std::io::Error::from)
                    .and_then(|listed| listed)
                    .map_err(|source| Error::Io { what: format!("listing {}", self.location("")), source })
            }
            None => {
                let objects = self.objects("").await?;
                Ok(objects.into_iter().map(|(name, object)| (name, object.last_modified)).collect())
            }
        }
    }

    /// The names below `folder`, with their sizes.
    pub(crate) async fn list_with_sizes(&self, folder: &str) -> Result<HashMap<String, u64>> {
        let objects = self.objects(folder).await?;
        Ok(objects.into_iter().map(|(name, object)| (name, object.size)).collect())
    }

    /// The objects below `folder`, by their names relative to this place.
    async fn objects(&self, folder: &str) -> Result<Vec<(String, ObjectMeta)>> {
        let prefix = if folder.is_empty() { self.base.clone() } else { self.path(folder) };
        let depth = self.base.parts().count();
        let entry = move |object: ObjectMeta| {
            let parts: Vec<_> = object.location.parts().skip(depth).map(|p| p.as_ref().to_owned()).collect();
            (parts.join("/"), object)
        };
        self.store.list(Some(&prefix)).map_ok(entry).try_collect().await.map_err(Error::storage(folder))
    }

    /// An object that may be large. Durable, and visible under its name, when this returns.
    pub(crate) async fn put_stream(
        &self,
        name: &str,
        chunks: impl Stream<Item = object_store::Result<Bytes>> + Send,
    ) -> Result<()> {
        let path = self.path(name);
        let put = async {
            let mut chunks = std::pin::pin!(chunks);
            let mut upload = WriteMultipart::new(self.store.put_multipart(&path).await?);
            loop {
                match chunks.try_next().await {
                    Ok(Some(chunk)) => upload.put(chunk),
                    Ok(None) => return upload.finish().await.map(drop),
                    Err(error) => return upload.abort().await.and(Err(error)),
                }
                if let Err(error) = upload.wait_for_capacity(PARALLEL).await {
                    return upload.abort().await.and(Err(error));
                }
            }
        };
        put.await.map_err(Error::storage(name))
    }

    /// The names of the folders directly in this place.
    pub(crate) async fn folders(&self) -> Result<Vec<String>> {
        let listed = self.store.list_with_delimiter(Some(&self.base)).await;
        let listed = listed.map_err(Error::storage(self.location("")))?;
        Ok(listed.common_prefixes.iter().filter_map(|p| p.filename().map(str::to_owned)).collect())
    }

    /// Removes objects; one that is not there is no error, and one that stays does not keep the others from being removed.
    pub(crate) async fn remove(&self, names: Vec<String>) -> Result<()> {
        let failed = |name: &str, source| Error::Io { what: format!("removing {name}"), source };
        let Some(dir) = self.directory() else {
            // A bucket takes a thousand names a request.
            let paths: Vec<_> = names.iter().map(|name| Ok(self.path(name))).collect();
            let removed = self.store.delete_stream(futures::stream::iter(paths).boxed());
            let errors = removed.filter_map(async |removed| removed.err().filter(|e| !bucket::is_gone(e)));
            let first = errors.collect::<Vec<_>>().await.into_iter().next();
            return first.map_or(Ok(()), |error| Err(failed(&self.location(""), error.into())));
        };
        // By its path: the object store's own names cannot be those of unfinished files.
        let one = async |name: String| match tokio::fs::remove_file(dir.join(&name)).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(&name, e)),
            _ => Ok(()),
        };
        let removed = futures::stream::iter(names).map(one).buffer_unordered(PARALLEL);
        removed.collect::<Vec<_>>().await.into_iter().collect()
    }
}

/// Whether a bucket has refused a request as it is, so that it has no effect.
fn is_refusal(error: &object_store::Error) -> bool {
    use object_store::Error::{NotFound, NotImplemented, PermissionDenied, Unauthenticated};
    matches!(
        error,
        PermissionDenied { .. } | Unauthenticated { .. } | NotFound { .. } | NotImplemented { .. }
    )
}

/// Whether `name` is a file that is being written, or was when its process was killed: `.tmp-…` beside its
/// place, or `…#1` where an earlier version of this program wrote a large one in parts.
pub(crate) fn is_unfinished(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or_default();
    let in_parts = file.rsplit_once('#').is_some_and(|(_, part)| part.bytes().all(|b| b.is_ascii_digit()));
    in_parts || file.starts_with(".tmp-")
}

/// The files below `dir`, by their paths from there; what vanishes meanwhile is left out.
fn list_directory(dir: &std::path::Path) -> std::io::Result<Vec<(String, DateTime<Utc>)>> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(dir) {
        let gone =
            |e: &walkdir::Error| e.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound);
        let file = match entry.and_then(|entry| Ok((entry.metadata()?, entry))) {
            Ok((metadata, entry)) if metadata.is_file() => Some((metadata.modified()?, entry)),
            Ok(_) => None,
            Err(e) if gone(&e) => None,
            Err(e) => return Err(e.into()),
        };
        if let Some((modified, entry)) = file {
            let name = entry.path().strip_prefix(dir).unwrap_or(entry.path());
            found.push((name.to_string_lossy().into_owned(), modified.into()));
        }
    }
    Ok(found)
}

/// The directory of this machine that a store's address stands for: a path, or a URL `file:///…`. None if the
/// address is another URL.
pub fn local_directory(address: &str) -> Result<Option<PathBuf>, String> {
    match Url::parse(address) {
        Ok(url) if url.scheme() == "file" => {
            url.to_file_path().map(Some).map_err(|()| "it is no local path".into())
        }
        // A one-letter scheme would be a drive, and a path has none.
        Ok(url) if url.scheme().len() > 1 && address.contains("://") => Ok(None),
        _ => Ok(Some(PathBuf::from(address))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds 1 to the number that the object holds.
    fn add_one(there: Option<Bytes>) -> Result<Option<Bytes>> {
        let text = there.map(|there| String::from_utf8_lossy(&there).into_owned());
        let number: u64 = text.map_or(0, |text| text.parse().unwrap());
        Ok(Some((number + 1).to_string().into()))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_several_that_update_an_object_each_sees_what_the_one_before_has_put() {
        let dir = tempfile::tempdir().unwrap();
        for address in [dir.path().to_str().unwrap(), "memory:///"] {
            let storage = Storage::open(address, true).unwrap().folder("below");
            let one = || async {
                for _ in 0..25 {
                    storage.update("number", add_one).await.unwrap();
                }
            };
            futures::join!(one(), one(), one(), one());
            assert_eq!(storage.get("number").await.unwrap(), "100", "{address}");
            storage.update("number", |_| Ok(None)).await.unwrap();
            assert_eq!(storage.get("number").await.unwrap(), "100", "{address}");
        }
    }
}
