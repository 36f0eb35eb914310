//! The part of a file that is being looked at.

use std::io::{self, ErrorKind, Read};

use memchr::{memchr_iter, memrchr};

use super::text::characters;
use crate::Position;

/// How much is read at a time.
const CHUNK: usize = 64 << 10;

/// Bytes of a file from the first that is not passed on, and where in the file that is.
#[derive(Debug)]
pub(super) struct Window<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    ended: bool,
    position: Position,
}

impl<R: Read> Window<R> {
    pub(super) fn new(reader: R) -> Self {
        let position = Position { line: 1, column: 1 };
        Window { reader, buffer: Vec::new(), start: 0, ended: false, position }
    }

    /// What was read and not passed.
    pub(super) fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Where the rest begins.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Reads more of the file. False at its end.
    pub(super) fn more(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        // What was passed goes before the buffer would have to grow for it.
        if self.start > self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let length = self.buffer.len();
        self.buffer.resize(length + CHUNK, 0);
        let read = loop {
            match self.reader.read(self.buffer.get_mut(length..).unwrap_or_default()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(length + read.as_ref().copied().unwrap_or(0).min(CHUNK));
        self.ended = matches!(read, Ok(0));
        Ok(read? > 0)
    }

    /// The byte that stands so far behind the first; `None` behind the file's end.
    pub(super) fn peek(&mut self, offset: usize) -> io::Result<Option<u8>> {
        loop {
            if let Some(byte) = self.rest().get(offset) {
                return Ok(Some(*byte));
            }
            if !self.more()? {
                return Ok(None);
            }
        }
    }

    /// The first byte behind `offset` that is no white space, looking at no more than `limit`.
    pub(super) fn peek_behind_blank(&mut self, offset: usize, limit: usize) -> io::Result<Option<u8>> {
        self.peek_behind(offset, limit, |byte| byte.is_ascii_whitespace())
    }

    /// The same on the same line.
    pub(super) fn peek_behind_spaces(&mut self, offset: usize, limit: usize) -> io::Result<Option<u8>> {
        self.peek_behind(offset, limit, |byte| matches!(byte, b' ' | b'\t' | b'\r'))
    }

    fn peek_behind(
        &mut self,
        offset: usize,
        limit: usize,
        blank: impl Fn(u8) -> bool,
    ) -> io::Result<Option<u8>> {
        for at in offset..offset.saturating_add(limit) {
            match self.peek(at)? {
                Some(byte) if blank(byte) => {}
                other => return Ok(other),
            }
        }
        Ok(None)
    }

    /// Passes bytes.
    pub(super) fn pass(&mut self, length: usize) {
        let passed = self.rest().get(..length).unwrap_or(self.rest());
        let Position { mut line, mut column } = self.position;
        line += memchr_iter(b'\n', passed).count() as u64;
        column = match memrchr(b'\n', passed) {
            Some(newline) => 1 + characters(passed.get(newline + 1..).unwrap_or_default()),
            None => column + characters(passed),
        };
        self.start += passed.len();
        self.position = Position { line, column };
    }

    /// Passes a byte-order mark. It counts for no column.
    pub(super) fn skip_byte_order_mark(&mut self) -> io::Result<()> {
        self.peek(2)?;
        if self.rest().starts_with(b"\xef\xbb\xbf") {
            self.start += 3;
        }
        Ok(())
    }

    /// Passes white space.
    pub(super) fn skip_blank(&mut self) -> io::Result<()> {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_ascii_start().len();
            let all = blank == rest.len();
            self.pass(blank);
            if !all || !self.more()? {
                return Ok(());
            }
        }
    }

    /// Passes white space and `//` comments, of whatever length.
    pub(super) fn skip_blank_and_comments(&mut self) -> io::Result<()> {
        loop {
            self.skip_blank()?;
            if self.peek(1)?.is_none() || !self.rest().starts_with(b"//") {
                return Ok(());
            }
            loop {
                let rest = self.rest();
                let newline = memchr::memchr(b'\n', rest);
                self.pass(newline.unwrap_or(rest.len()));
                if newline.is_some() || !self.more()? {
                    break;
                }
            }
        }
    }
}
