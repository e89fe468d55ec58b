//! Sorts any number of rows in bounded memory: sorted runs on disk, merged as they are read.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::io;
use std::ops::Range;

use desfmt::BucketBits;

use crate::limits;
use crate::rows::{EncodedRow, RowLog, RowLogWriter, RowReader};
use crate::spool::Spool;

/// Reads all rows of a log ordered by day, bucket in an archive of `bits`, and uid.
pub(crate) fn sorted(log: &RowLog, bits: BucketBits, spool: &Spool) -> io::Result<SortedRows> {
    sorted_within(log, bits, spool, limits::SORT_BYTES)
}

fn sorted_within(log: &RowLog, bits: BucketBits, spool: &Spool, memory: usize) -> io::Result<SortedRows> {
    // Where everything fits, the runs stay in memory: one run, nothing to merge.
    let fits = usize::try_from(log.len()).is_ok_and(|len| len <= memory);
    let mut out = RowLogWriter::with_memory(spool, if fits { usize::MAX } else { 0 });
    let mut runs: Vec<Range<u64>> = Vec::new();
    let mut run = Run::default();
    let mut reader = log.read_all();
    while let Some(row) = reader.next_row()? {
        run.push(row, bits);
        if run.memory() > memory {
            runs.push(run.write_sorted(bits, &mut out)?);
        }
    }
    runs.push(run.write_sorted(bits, &mut out)?);
    drop(run);
    let log = out.finish()?;
    let buffer = (limits::MERGE_BYTES / runs.len().max(1)).clamp(4 << 10, 256 << 10);
    let mut heads = BinaryHeap::with_capacity(runs.len());
    for run in runs {
        let head = Head { reader: log.read(run, buffer), row: Vec::new(), bits };
        heads.extend(head.advance()?);
    }
    Ok(SortedRows { heads, current: Vec::new() })
}

/// Rows that are being gathered: their bytes back to back, and where each begins.
#[derive(Default)]
struct Run {
    bytes: Vec<u8>,
    rows: Vec<(u64, Range<usize>)>,
}

impl Run {
    fn push(&mut self, row: EncodedRow<'_>, bits: BucketBits) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(row.bytes());
        self.rows.push((row.group_key(bits), start..self.bytes.len()));
    }

    fn memory(&self) -> usize {
        self.bytes.len() + self.rows.len() * size_of::<(u64, Range<usize>)>()
    }

    fn row(&self, range: &Range<usize>) -> EncodedRow<'_> {
        EncodedRow::new(self.bytes.get(range.clone()).unwrap_or_default())
    }

    fn write_sorted(&mut self, bits: BucketBits, out: &mut RowLogWriter<'_>) -> io::Result<Range<u64>> {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_unstable_by(|(key, row), (other_key, other)| {
            key.cmp(other_key).then_with(|| self.row(row).compare(self.row(other), bits))
        });
        let start = out.position();
        for (_, row) in &rows {
            out.push(self.row(row))?;
        }
        self.bytes.clear();
        rows.clear();
        self.rows = rows;
        Ok(start..out.position())
    }
}

/// A run that is being read, and its next row.
struct Head {
    reader: RowReader,
    row: Vec<u8>,
    bits: BucketBits,
}

impl Head {
    /// Moves to the next row; `None` at the end of the run.
    fn advance(mut self) -> io::Result<Option<Self>> {
        let Some(row) = self.reader.next_row()? else {
            return Ok(None);
        };
        self.row.clear();
        self.row.extend_from_slice(row.bytes());
        Ok(Some(self))
    }
}

/// The heap gives the greatest first, so the order is turned round: the smallest row comes first.
impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        EncodedRow::new(&other.row).compare(EncodedRow::new(&self.row), self.bits)
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

/// All rows in order.
pub(crate) struct SortedRows {
    heads: BinaryHeap<Head>,
    current: Vec<u8>,
}

impl SortedRows {
    /// The next row, or `None` at the end.
    pub(crate) fn next_row(&mut self) -> io::Result<Option<EncodedRow<'_>>> {
        let Some(mut head) = self.heads.pop() else {
            return Ok(None);
        };
        std::mem::swap(&mut self.current, &mut head.row);
        self.heads.extend(head.advance()?);
        Ok(Some(EncodedRow::new(&self.current)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::tests::any_row;

    proptest! {
        #[test]
        fn rows_come_out_in_order_and_each_once(
            rows in proptest::collection::vec(any_row(), 0..80),
            memory in prop_oneof![Just(100_usize), Just(1_000), Just(1 << 20)],
            bits in 0_u8..=16,
        ) {
            let bits = BucketBits::new(bits).unwrap();
            let root = tempfile::tempdir().unwrap();
            let spool = Spool::open(root.path()).unwrap();
            let mut writer = RowLogWriter::new(&spool);
            for row in &rows {
                writer.encode(row).unwrap().unwrap();
            }

            let mut sorted = sorted_within(&writer.finish().unwrap(), bits, &spool, memory).unwrap();
            let mut read = Vec::new();
            while let Some(row) = sorted.next_row().unwrap() {
                read.push((row.group(bits).unwrap(), row.decode().unwrap()));
            }

            prop_assert!(read.is_sorted_by_key(|(group, row)| (group.date, group.bucket, row.uid.clone())));
            let key = |row: &crate::rows::Row| format!("{row:?}");
            let mut found: Vec<_> = read.iter().map(|(_, row)| key(row)).collect();
            let mut expected: Vec<_> = rows.iter().map(key).collect();
            found.sort();
            expected.sort();
            prop_assert_eq!(found, expected);
        }
    }
}
