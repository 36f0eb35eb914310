//! The error that a client gets: a code for its program, and a text for people.

use std::borrow::Cow;
use std::io;

use rustix::io::Errno;

use super::packets::Code;

/// An error of a request.
#[derive(Debug)]
pub(super) struct Refusal {
    pub code: Code,
    pub text: Cow<'static, str>,
}

impl Refusal {
    pub(super) fn new(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        Refusal { code, text: text.into() }
    }

    pub(super) fn missing() -> Self {
        Refusal::new(Code::NoSuchFile, "there is no such file or folder")
    }

    pub(super) fn denied(text: impl Into<Cow<'static, str>>) -> Self {
        Refusal::new(Code::PermissionDenied, text)
    }

    pub(super) fn failure(text: impl Into<Cow<'static, str>>) -> Self {
        Refusal::new(Code::Failure, text)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        let errno = Errno::from_io_error(&error);
        match errno {
            Some(Errno::NOENT) => Refusal::missing(),
            Some(Errno::NOSPC | Errno::DQUOT) => {
                tracing::error!(%error, "SFTP: no space is left for an upload");
                Refusal::failure("no space is left on the server")
            }
            Some(Errno::EXIST) => Refusal::failure("a file of this name is there already"),
            Some(Errno::NAMETOOLONG) => Refusal::failure("the name is too long"),
            // The system's message may name folders that a client must not see.
            _ => {
                tracing::warn!(%error, "SFTP: a file operation failed");
                Refusal::failure("the server failed; its log says why")
            }
        }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}
