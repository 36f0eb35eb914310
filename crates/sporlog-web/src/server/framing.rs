//! Where the requests of an HTTP/1 connection begin and end, and whether anybody could see that differently.
//!
//! A proxy and a server that disagree about where a request ends can be made to take one client's
//! bytes for another's request. The parser behind this is lenient in places: it takes a lone line feed
//! for a line's end, and with both `Content-Length` and `Transfer-Encoding` it goes by the latter. So
//! the bytes are followed here first, and at the first that is open to two readings it is over:
//!
//! * a line that ends in anything but CR LF, or a CR without LF;
//! * a header continued on the next line (obs-fold);
//! * `Content-Length` twice, or with `Transfer-Encoding`, or not a plain number;
//! * any `Transfer-Encoding` but `chunked`, or that twice;
//! * a chunk whose size or end is not as it should be.

/// Longest name that is looked for, and one more.
const NAME: usize = 18;
/// Longest value of a header that is looked at.
const VALUE: usize = 32;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A request, or an empty line before it.
    Start,
    RequestLine,
    Name,
    Value(Header),
    /// So many bytes of a body.
    Body(u64),
    /// A chunk's size: so many digits of it were there.
    Size(u8),
    /// What may follow a chunk's size on its line.
    Extension,
    Data(u64),
    /// The line end after a chunk.
    DataEnd,
    /// A line after the last chunk; whether it is empty so far.
    Trailer(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    Length,
    Encoding,
    Other,
}

/// A byte, by its place in what was given, at which it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault(pub usize);

/// Follows a connection's requests.
#[derive(Debug)]
pub(super) struct Framing {
    place: Place,
    previous: u8,
    text: [u8; VALUE],
    used: usize,
    length: Option<u64>,
    chunked: bool,
    size: u64,
}

impl Framing {
    pub(super) fn new() -> Self {
        let (text, used) = ([0; VALUE], 0);
        Framing { place: Place::Start, previous: 0, text, used, length: None, chunked: false, size: 0 }
    }

    /// Whether a request's head has begun and is not complete.
    pub(super) fn in_head(&self) -> bool {
        matches!(self.place, Place::RequestLine | Place::Name | Place::Value(_))
    }

    /// Whether all that was begun is complete.
    pub(super) fn between_requests(&self) -> bool {
        self.place == Place::Start
    }

    /// Follows the next bytes.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let Place::Body(left) | Place::Data(left) = self.place {
                let rest = bytes.len() - at;
                let taken = usize::try_from(left).map_or(rest, |left| left.min(rest));
                at += taken;
                let left = left - taken as u64;
                self.place = match self.place {
                    Place::Body(_) if left == 0 => Place::Start,
                    Place::Body(_) => Place::Body(left),
                    _ if left == 0 => Place::DataEnd,
                    _ => Place::Data(left),
                };
                self.previous = 0;
                continue;
            }
            self.step(byte).ok_or(Fault(at))?;
            self.previous = byte;
            at += 1;
        }
        Ok(())
    }

    /// One byte of a line; `None` if it must not stand there.
    fn step(&mut self, byte: u8) -> Option<()> {
        match (self.previous, byte) {
            (b'\r', b'\n') => return self.end_of_line(),
            (b'\r', _) | (_, b'\n') => return None,
            (_, b'\r') => return Some(()),
            _ => {}
        }
        match self.place {
            Place::Start => self.place = Place::RequestLine,
            Place::Name if self.used == 0 && matches!(byte, b' ' | b'\t') => return None,
            Place::Name if byte == b':' => self.place = Place::Value(self.header()?),
            Place::Name => self.keep(byte),
            Place::Value(Header::Length | Header::Encoding) => {
                // Longer than any value that is allowed.
                if self.used == VALUE {
                    return None;
                }
                self.keep(byte);
            }
            Place::Size(digits) => match (char::from(byte).to_digit(16), byte) {
                (Some(_), _) if digits == 15 => return None,
                (Some(digit), _) => {
                    self.size = self.size * 16 + u64::from(digit);
                    self.place = Place::Size(digits + 1);
                }
                (None, b';' | b' ' | b'\t') if digits > 0 => self.place = Place::Extension,
                _ => return None,
            },
            Place::DataEnd => return None,
            Place::Trailer(_) => self.place = Place::Trailer(false),
            Place::RequestLine | Place::Value(Header::Other) | Place::Extension => {}
            Place::Body(_) | Place::Data(_) => {}
        }
        Some(())
    }

    fn keep(&mut self, byte: u8) {
        if let Some(place) = self.text.get_mut(self.used) {
            *place = byte.to_ascii_lowercase();
            self.used += 1;
        }
    }

    fn kept(&self) -> &[u8] {
        self.text.get(..self.used).unwrap_or_default()
    }

    /// The header whose name has ended.
    fn header(&mut self) -> Option<Header> {
        let name = self.kept().get(..self.used.min(NAME)).unwrap_or_default();
        let header = match name {
            b"content-length" => Header::Length,
            b"transfer-encoding" => Header::Encoding,
            _ => Header::Other,
        };
        self.used = 0;
        let framed = self.length.is_some() || self.chunked;
        (header == Header::Other || !framed).then_some(header)
    }

    fn end_of_line(&mut self) -> Option<()> {
        match self.place {
            // Empty lines before a request are allowed.
            Place::Start => return Some(()),
            Place::Name if self.used == 0 => {
                self.size = 0;
                self.place = match (self.chunked, self.length.take()) {
                    (true, _) => Place::Size(0),
                    (_, None | Some(0)) => Place::Start,
                    (_, Some(length)) => Place::Body(length),
                };
                self.chunked = false;
                return Some(());
            }
            Place::Value(Header::Length) => {
                let digits = self.kept().trim_ascii();
                if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
                    return None;
                }
                let value = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
                self.length = Some(digits.iter().fold(0, value));
            }
            Place::Value(Header::Encoding) if self.kept().trim_ascii() != b"chunked" => return None,
            Place::Value(Header::Encoding) => self.chunked = true,
            Place::Size(0) => return None,
            Place::Size(_) | Place::Extension => {
                let size = std::mem::take(&mut self.size);
                self.place = if size == 0 { Place::Trailer(true) } else { Place::Data(size) };
                return Some(());
            }
            Place::DataEnd => {
                self.place = Place::Size(0);
                return Some(());
            }
            Place::Trailer(empty) => {
                self.place = if empty { Place::Start } else { Place::Trailer(true) };
                return Some(());
            }
            _ => {}
        }
        self.used = 0;
        self.place = Place::Name;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    fn follow(text: &str) -> Result<Framing, Fault> {
        let mut framing = Framing::new();
        framing.follow(text.as_bytes()).map(|()| framing)
    }

    #[test]
    fn requests_that_mean_one_thing_are_followed_to_their_end() {
        for text in [
            GET,
            "\r\n\r\nGET / HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\na\nb\rc",
            "POST / HTTP/1.1\r\ncontent-LENGTH:\t5 \r\n\r\n\r\n\r\n\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\na\nb\rc\r\nA ; x=y\r\n0123456789\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\nC: d\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length-X: 5\r\nTransfer-Encodings: x\r\nContent-Lengt: 3\r\n\r\n",
        ] {
            // And so are two of them in a row, however they are cut.
            let twice = format!("{text}{text}");
            let mut framing = Framing::new();
            for byte in twice.as_bytes() {
                framing.follow(&[*byte]).unwrap_or_else(|e| panic!("{twice:?}: {e:?}"));
            }
            assert!(framing.between_requests(), "{twice:?}: {framing:?}");
            let whole = follow(&twice).unwrap_or_else(|e| panic!("{twice:?}: {e:?}"));
            assert!(whole.between_requests(), "{twice:?}: {whole:?}");
        }
    }

    #[test]
    fn what_can_be_read_two_ways_ends_it() {
        for text in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
            "\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\tb: c\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
            "POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\nabcde",
            "POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\nabcde",
            "POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\nabcde",
            "POST / HTTP/1.1\r\nContent-Length: 0x5\r\n\r\nabcde",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\nabcde",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 000000000000000000000000000000000005\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\nabcde\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdeX\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nb\r\nabcde\r\n0\r\n\r\n",
        ] {
            assert!(follow(text).is_err(), "{text:?}");
            // As the second of two requests, too: right after one, or after one with a body.
            assert!(follow(&format!("{GET}{text}")).is_err(), "{text:?}");
            let after = format!("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc{text}");
            assert!(follow(&after).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_head_is_known_to_have_begun() {
        let mut framing = Framing::new();
        for (piece, begun) in
            [("", false), ("\r\n", false), ("G", true), ("ET / HTTP/1.1\r", true), ("\n", true)]
        {
            framing.follow(piece.as_bytes()).expect("in order");
            assert_eq!(framing.in_head(), begun, "{piece:?}");
        }
        framing.follow(b"Content-Length: 2\r\n\r\n").expect("in order");
        assert!(!framing.in_head() && !framing.between_requests());
        framing.follow(b"ab").expect("in order");
        assert!(framing.between_requests());
    }

    proptest! {
        #[test]
        fn any_bytes_however_cut_end_at_the_same_place(
            bytes in proptest::collection::vec(proptest::sample::select(b"\r\n :aC5;0G".to_vec()), 0..60),
            cut in 0usize..60,
        ) {
            let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
            for start in [&b""[..], &head[..]] {
                let all = [start, &bytes].concat();
                let mut whole = Framing::new();
                let at_once = whole.follow(&all).err().map(|fault| fault.0);
                let mut parts = Framing::new();
                let (first, second) = all.split_at(cut.min(all.len()));
                let in_parts = match parts.follow(first) {
                    Err(fault) => Some(fault.0),
                    Ok(()) => parts.follow(second).err().map(|fault| fault.0 + first.len()),
                };
                prop_assert_eq!(at_once, in_parts);
            }
        }
    }
}
