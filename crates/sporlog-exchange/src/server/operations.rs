//! Operations on an account's files that are recorded in the `access` log: uploads, downloads, renames and
//! removals.
//!
//! Each is recorded before it happens. If the row cannot be written, the operation is refused.

use std::sync::Arc;

use serde_json::{Value, json};

use super::account::AccountState;
use super::context::Session;
use super::disk::{self, blocking};
use super::downloads::Download;
use super::listing;
use super::path::{Folder, VirtualPath};
use super::record::Row;
use super::refusal::Refusal;
use super::uploads::{self, Renamed, Upload};
use super::{fetched, metrics};

/// The operations of an account on a connection.
pub(super) struct Operations {
    pub session: Arc<Session>,
    pub account: Arc<AccountState>,
}

impl Operations {
    /// Writes a row about an operation that is about to happen; durable when this returns.
    async fn record(&self, action: &'static str, message: String, parameters: Value) -> Result<(), Refusal> {
        let row = Row { action, message, parameters, ..self.session.row(&self.account.name) };
        let recorded = self.session.context.recorder.record(row).await;
        recorded.map_err(|_| {
            Refusal::failure("the operation could not be recorded, and was not done; try again later")
        })
    }

    /// Opens a file for reading. The download is recorded before the first byte is sent.
    pub(super) async fn download(&self, folder: &Folder, name: &str) -> Result<Download, Refusal> {
        let (file, attributes) = blocking(|| {
            let file = self.account.folder(folder)?.read(name)?;
            let attributes = disk::of_file(&file)?;
            Ok::<_, std::io::Error>((file, attributes))
        })?;
        let path = format!("{}/{name}", folder.path());
        let parameters = json!({ "file": path, "size": attributes.size });
        self.record("SFTP_DOWNLOAD", format!("download of {path}"), parameters).await?;
        Ok(Download::new(file, attributes, path, &self.session, &self.account))
    }

    /// Closes an upload: the file is moved into the inbox once it is synced and the upload is recorded.
    pub(super) async fn close(&self, upload: &Upload) -> Result<(), Refusal> {
        upload.begin_close()?;
        let name = &upload.name;
        let attributes = upload.attributes()?;
        let size = attributes.size;
        let parameters = json!({ "file": name, "bytes": upload.written, "size": size, "complete": true });
        let recorded = self.record("SFTP_UPLOAD", format!("upload of {name}"), parameters);
        // Syncing and recording run side by side.
        tokio::try_join!(upload.sync(), recorded)?;
        if upload.finish()? {
            self.account.delivered.remember(name, attributes);
            self.session.context.events.file_closed(&self.account.name, name, false);
        }
        metrics::transferred("up", true);
        Ok(())
    }

    /// Records that an upload ended without the file being closed, or that closing failed.
    pub(super) fn broke_off(&self, upload: &Upload) {
        metrics::transferred("up", false);
        let name = &upload.name;
        let parameters = json!({ "file": name, "bytes": upload.written, "complete": false });
        let message = format!("upload of {name} broke off");
        let row = Row { action: "SFTP_UPLOAD", message, parameters, ..self.session.row(&self.account.name) };
        self.session.context.recorder.note(row);
    }

    /// Removes a file: a supplier's that is not claimed yet, or a municipality's that was fetched.
    pub(super) async fn remove(&self, target: VirtualPath) -> Result<(), Refusal> {
        let VirtualPath::File(folder, name) = target else {
            return Err(Refusal::denied("folders cannot be removed"));
        };
        let path = format!("{}/{name}", folder.path());
        let attributes =
            blocking(|| listing::stat(&self.account, &VirtualPath::File(folder.clone(), name.clone())))?;
        if folder == Folder::Receipts {
            return Err(Refusal::denied("receipts can only be read"));
        }
        if let Folder::Month(_) = folder {
            if !self.account.delete_fetched {
                return Err(Refusal::denied("this account may not delete files"));
            }
            if !self.account.fetched.has(&fetched::key(&path, &attributes)) {
                return Err(Refusal::denied("a file can be deleted once it has been fetched to its end"));
            }
        }
        let parameters = json!({ "file": path, "size": attributes.size });
        self.record("SFTP_DELETE", format!("{path} is deleted"), parameters).await?;
        blocking(|| match folder {
            Folder::Inbox => {
                self.account.delivered.forget(&name);
                uploads::remove(&self.account, &name)
            }
            folder => {
                let folder = self.account.folder(&folder)?;
                folder.remove(&name)?;
                Ok(folder.sync()?)
            }
        })
    }

    /// Renames a file in the inbox. A change from a temporary name completes the file.
    pub(super) async fn rename(
        &self,
        from: VirtualPath,
        to: VirtualPath,
        replace: bool,
    ) -> Result<(), Refusal> {
        let (from, to) = match (from, to) {
            (VirtualPath::File(Folder::Inbox, from), VirtualPath::File(Folder::Inbox, to)) => (from, to),
            _ => return Err(Refusal::denied("only files in /ind can be renamed, and only within it")),
        };
        let attributes = blocking(|| uploads::stat(&self.account, &from))?;
        if from == to {
            return Ok(());
        }
        let parameters = json!({ "file": from, "to": to, "size": attributes.size });
        self.record("SFTP_RENAME", format!("{from} is renamed to {to}"), parameters).await?;
        let renamed = blocking(|| uploads::rename(&self.account, &from, &to, replace))?;
        self.account.delivered.forget(&from);
        if let Renamed::Delivered { is_final } = renamed {
            self.account.delivered.remember(&to, attributes);
            self.session.context.events.file_closed(&self.account.name, &to, is_final);
        }
        Ok(())
    }
}
