//! What is done in an account's name, and goes on record: files that come, go, are renamed or removed.
//!
//! It is recorded before it happens, and what cannot be recorded is not done.

use std::sync::Arc;

use serde_json::{Value, json};

use super::context::Visit;
use super::disk::{self, blocking};
use super::downloads::Download;
use super::listing;
use super::member::Member;
use super::path::{Folder, Place};
use super::record::Row;
use super::refusal::Refusal;
use super::uploads::{self, Renamed, Upload};
use super::{fetched, metrics};

/// An account on a connection.
pub(super) struct Acts {
    pub visit: Arc<Visit>,
    pub member: Arc<Member>,
}

impl Acts {
    /// Records something before it happens.
    async fn record(&self, action: &'static str, message: String, parameters: Value) -> Result<(), Refusal> {
        let row = Row { action, message, parameters, ..self.visit.row(&self.member.name) };
        let recorded = self.visit.context.recorder.record(row).await;
        recorded.map_err(|_| {
            Refusal::failure("this could not be recorded, and so it was not done; try again later")
        })
    }

    /// Opens a file for reading. That is on record before the first byte is handed out.
    pub(super) async fn download(&self, folder: &Folder, name: &str) -> Result<Download, Refusal> {
        let (file, attributes) = blocking(|| {
            let file = self.member.folder(folder)?.read(name)?;
            let attributes = disk::of_file(&file)?;
            Ok::<_, std::io::Error>((file, attributes))
        })?;
        let path = format!("{}/{name}", folder.path());
        let parameters = json!({ "file": path, "size": attributes.size });
        self.record("SFTP_DOWNLOAD", format!("download of {path}"), parameters).await?;
        Ok(Download::new(file, attributes, path, &self.visit, &self.member))
    }

    /// Closes an upload: what is durable and on record is moved into the inbox.
    pub(super) async fn close(&self, upload: &Upload) -> Result<(), Refusal> {
        upload.begin_close()?;
        let name = &upload.name;
        let size = upload.attributes()?.size;
        let parameters = json!({ "file": name, "bytes": upload.written, "size": size, "complete": true });
        let recorded = self.record("SFTP_UPLOAD", format!("upload of {name}"), parameters);
        // Neither waits for the other; the file waits for both.
        tokio::try_join!(upload.sync(), recorded)?;
        if upload.finish()? {
            self.visit.context.events.file_closed(&self.member.name, name, false);
        }
        metrics::transferred("up", true);
        Ok(())
    }

    /// An upload has ended without being closed, or could not be.
    pub(super) fn broke_off(&self, upload: &Upload) {
        metrics::transferred("up", false);
        let name = &upload.name;
        let parameters = json!({ "file": name, "bytes": upload.written, "complete": false });
        let message = format!("upload of {name} broke off");
        let row = Row { action: "SFTP_UPLOAD", message, parameters, ..self.visit.row(&self.member.name) };
        self.visit.context.recorder.note(row);
    }

    /// Removes a file: one that is not taken yet, or one that was fetched.
    pub(super) async fn remove(&self, place: Place) -> Result<(), Refusal> {
        let Place::File(folder, name) = place else {
            return Err(Refusal::denied("folders cannot be removed"));
        };
        let path = format!("{}/{name}", folder.path());
        let attributes =
            blocking(|| listing::stat(&self.member, &Place::File(folder.clone(), name.clone())))?;
        if folder == Folder::Receipts {
            return Err(Refusal::denied("receipts can be read, and nothing else"));
        }
        if let Folder::Month(_) = folder {
            if !self.member.delete_fetched {
                return Err(Refusal::denied("this account may not delete files"));
            }
            if !self.member.fetched.has(&fetched::key(&path, &attributes)) {
                return Err(Refusal::denied("a file can be deleted once it has been fetched to its end"));
            }
        }
        let parameters = json!({ "file": path, "size": attributes.size });
        self.record("SFTP_DELETE", format!("{path} is deleted"), parameters).await?;
        blocking(|| match folder {
            Folder::Inbox => uploads::remove(&self.member, &name),
            folder => {
                let folder = self.member.folder(&folder)?;
                folder.remove(&name)?;
                Ok(folder.sync()?)
            }
        })
    }

    /// Gives a file in the inbox another name, with which it may be complete.
    pub(super) async fn rename(&self, from: Place, to: Place, replace: bool) -> Result<(), Refusal> {
        let (from, to) = match (from, to) {
            (Place::File(Folder::Inbox, from), Place::File(Folder::Inbox, to)) => (from, to),
            _ => return Err(Refusal::denied("only files in /ind can be renamed, and only within it")),
        };
        let size = blocking(|| uploads::stat(&self.member, &from))?.size;
        if from == to {
            return Ok(());
        }
        let parameters = json!({ "file": from, "to": to, "size": size });
        self.record("SFTP_RENAME", format!("{from} is renamed to {to}"), parameters).await?;
        if let Renamed::Delivered { is_final } =
            blocking(|| uploads::rename(&self.member, &from, &to, replace))?
        {
            self.visit.context.events.file_closed(&self.member.name, &to, is_final);
        }
        Ok(())
    }
}
