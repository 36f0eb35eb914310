//! A JSON file, read in pieces of changing size, must come to the same records as read whole.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use sporlog_record::json::RecordReader;

struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let size = self.1.min(buffer.len()).min(self.0.len());
        buffer[..size].copy_from_slice(&self.0[..size]);
        self.0 = &self.0[size..];
        Ok(size)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((size, file)) = input.split_first() else { return };
    let read = |pieces: usize| -> Vec<_> {
        let records = RecordReader::new(Pieces(file, pieces), 1 << 12);
        records.map(|r| r.map(|r| (r.bytes, r.at)).map_err(|e| e.to_string())).collect()
    };
    assert_eq!(read(usize::from(*size) + 1), read(usize::MAX));
});
