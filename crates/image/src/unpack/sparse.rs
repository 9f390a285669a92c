//! Sparse files in tar archives: old GNU headers and PAX 0.0, 0.1 and 1.0 maps.

use super::pax::{Records, decimal};
use super::reader::{SPECIAL_BYTES_MAX, TarError, numeric};

/// The most fragments of one file: what a map of the largest size could hold.
const FRAGMENTS_MAX: usize = 128 * 1024;

/// A run of stored bytes and where it belongs in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Where a PAX archive keeps the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PaxFormat {
    /// Versions 0.0 and 0.1: in the records.
    InRecords,
    /// Version 1.0: before the content.
    InData,
}

/// The sparse format the records announce, if any.
pub(crate) fn pax_format(records: &Records) -> Option<PaxFormat> {
    match (
        records.get(b"GNU.sparse.major"),
        records.get(b"GNU.sparse.minor"),
    ) {
        (Some(b"1"), Some(b"0")) => Some(PaxFormat::InData),
        (Some(b"0"), Some(b"0" | b"1")) => Some(PaxFormat::InRecords),
        (Some(_), _) => None,
        (None, _) => {
            let announced = [&b"GNU.sparse.map"[..], b"GNU.sparse.numblocks"];
            let found = announced.into_iter().any(|key| records.get(key).is_some());
            found.then_some(PaxFormat::InRecords)
        }
    }
}

/// The map of versions 0.0 (repeated keys) and 0.1 (one list).
pub(crate) fn from_records(records: &Records) -> Result<Vec<Fragment>, TarError> {
    let bad = || TarError::Header("malformed sparse map");
    let mut numbers = Vec::new();
    if let Some(list) = records.get(b"GNU.sparse.map") {
        for number in list.split(|byte| *byte == b',') {
            numbers.push(decimal(number).ok_or_else(bad)?);
        }
    } else {
        for (key, value) in records.iter() {
            let expected = match key {
                b"GNU.sparse.offset" => 0,
                b"GNU.sparse.numbytes" => 1,
                _ => continue,
            };
            if numbers.len() % 2 != expected {
                return Err(bad());
            }
            numbers.push(decimal(value).ok_or_else(bad)?);
        }
    }
    let stated = records.number(b"GNU.sparse.numblocks")?;
    let count = u64::try_from(numbers.len() / 2).expect("usize fits u64");
    if numbers.len() % 2 != 0 || stated.is_some_and(|stated| stated != count) {
        return Err(bad());
    }
    check_count(numbers.len() / 2)?;
    Ok(numbers
        .chunks_exact(2)
        .map(|pair| Fragment {
            offset: pair[0],
            length: pair[1],
        })
        .collect())
}

/// Adds the fragments of one old GNU header (24 bytes each, the list ends at an empty one).
pub(crate) fn push_gnu(fragments: &mut Vec<Fragment>, table: &[u8]) -> Result<(), TarError> {
    for slot in table.chunks_exact(24) {
        if slot[0] == 0 {
            break;
        }
        let number = |field| {
            let number = numeric(field)?;
            u64::try_from(number).map_err(|_| TarError::Header("malformed sparse map"))
        };
        fragments.push(Fragment {
            offset: number(&slot[..12])?,
            length: number(&slot[12..])?,
        });
    }
    Ok(())
}

pub(crate) fn check_count(count: usize) -> Result<(), TarError> {
    if count > FRAGMENTS_MAX {
        let what = "the number of fragments of a sparse file";
        let limit = u64::try_from(FRAGMENTS_MAX).expect("a small number");
        return Err(TarError::Limit { what, limit });
    }
    Ok(())
}

/// Fragments lie in order, within the file, without overlap, and account for every stored byte.
pub(crate) fn validate(
    fragments: &[Fragment],
    real_size: u64,
    stored: u64,
) -> Result<(), TarError> {
    let bad = TarError::Header("contradictory sparse map");
    let (mut end, mut sum) = (0_u64, 0_u64);
    for fragment in fragments {
        let next = fragment.offset.checked_add(fragment.length);
        let total = sum.checked_add(fragment.length);
        match (next, total) {
            (Some(next), Some(total)) if fragment.offset >= end && next <= real_size => {
                end = next;
                sum = total;
            }
            _ => return Err(bad),
        }
    }
    if sum != stored || i64::try_from(real_size).is_err() {
        return Err(bad);
    }
    Ok(())
}

/// Reads the map of version 1.0 block by block.
#[derive(Debug, Default)]
pub(crate) struct MapInData {
    bytes: Vec<u8>,
    /// Bytes and complete lines seen so far.
    parsed: usize,
    numbers: Vec<u64>,
}

impl MapInData {
    /// Adds a block; answers the map when this block completed it.
    pub(crate) fn push(&mut self, block: &[u8]) -> Result<Option<Vec<Fragment>>, TarError> {
        let bad = || TarError::Header("malformed sparse map");
        self.bytes.extend_from_slice(block);
        if u64::try_from(self.bytes.len()).expect("usize fits u64") > SPECIAL_BYTES_MAX {
            let what = "a sparse map (bytes)";
            return Err(TarError::Limit {
                what,
                limit: SPECIAL_BYTES_MAX,
            });
        }
        while let Some(length) = self.bytes[self.parsed..]
            .iter()
            .position(|byte| *byte == b'\n')
        {
            let line = &self.bytes[self.parsed..self.parsed + length];
            self.numbers.push(decimal(line).ok_or_else(bad)?);
            self.parsed += length + 1;
            let count = usize::try_from(self.numbers[0]).map_err(|_| bad())?;
            check_count(count)?;
            if self.numbers.len() == 1 + 2 * count {
                let pairs = self.numbers[1..].chunks_exact(2);
                let fragment = |pair: &[u64]| Fragment {
                    offset: pair[0],
                    length: pair[1],
                };
                return Ok(Some(pairs.map(fragment).collect()));
            }
        }
        Ok(None)
    }
}
