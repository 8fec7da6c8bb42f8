//! A store's file as it is, with what is written kept in memory.
//!
//! redb writes when it opens a file (that it is in use, what it mends after a crash), and does
//! not open one that it cannot write. Over this backend it opens any file that can be read:
//! what it writes is remembered, never reaches the file, and is forgotten with the backend.
//!
//! Limit: memory for what is written, which for an opening is a few pages, and after a crash
//! as much as redb has to mend, at most the file's size.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

const PAGE: usize = 4096;

/// The file must be locked by whoever makes this: redb's own locks need one that can be written.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// How much of the file still counts: it shrinks with the store and does not grow again.
    of_file: u64,
    /// By page number.
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl Overlay {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let written = Written { len, of_file: len, pages: BTreeMap::new() };
        Ok(Self { file, written: Mutex::new(written) })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.written().len == 0
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        // A panic under the lock leaves whole pages.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, written: &Written, number: u64) -> io::Result<Box<[u8; PAGE]>> {
        if let Some(page) = written.pages.get(&number) {
            return Ok(page.clone());
        }
        let mut page = Box::new([0; PAGE]);
        let start = number * PAGE as u64;
        let there = written.of_file.saturating_sub(start).min(PAGE as u64) as usize;
        self.file.read_exact_at(&mut page[..there], start)?;
        Ok(page)
    }
}

/// The parts of a range in pages: page number, range within it, range within the whole.
fn parts(
    offset: u64,
    len: usize,
) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE as u64) as usize;
        let count = (PAGE - within).min(len - done);
        let part = (at / PAGE as u64, within..within + count, done..done + count);
        done += count;
        (count > 0).then_some(part)
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.written().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let written = self.written();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > written.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, within, whole) in parts(offset, out.len()) {
            out[whole].copy_from_slice(&self.page(&written, number)?[within]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut written = self.written();
        if len < written.len {
            // The rest of the last page reads as zero if the store grows again.
            let (last, keep) = (len / PAGE as u64, (len % PAGE as u64) as usize);
            let mut page = self.page(&written, last)?;
            page[keep..].fill(0);
            written.pages.retain(|number, _| *number < last);
            written.pages.insert(last, page);
            written.of_file = written.of_file.min(len);
        }
        written.len = len;
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut written = self.written();
        for (number, within, whole) in parts(offset, data.len()) {
            let mut page = self.page(&written, number)?;
            page[within].copy_from_slice(&data[whole]);
            written.pages.insert(number, page);
        }
        written.len = written.len.max(offset + data.len() as u64);
        Ok(())
    }
}
