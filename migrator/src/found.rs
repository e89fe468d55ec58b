//! What was found of rows: counts by day, and the sums that receipts are made of.

use std::collections::{BTreeMap, BTreeSet};

use desfmt::{Date, Digest};

use crate::ledger::{Account, Claimed};
use crate::state::{Receipt, Tally};

/// What was found of the rows of a day.
#[derive(Debug, Default)]
pub(crate) struct DayFound {
    pub(crate) tally: Tally,
    sums: Sums,
    shards: BTreeSet<String>,
}

/// Sums of hashes, so that the order of rows does not matter.
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    input: [u64; 4],
    uids: [u64; 4],
}

fn add_hash(sum: &mut [u64; 4], hash: &Digest) {
    let (words, _) = hash.as_bytes().as_chunks::<8>();
    for (sum, word) in sum.iter_mut().zip(words) {
        *sum = sum.wrapping_add(u64::from_le_bytes(*word));
    }
}

fn of_sum(sum: &[u64; 4]) -> [u8; 32] {
    let bytes: Vec<u8> = sum.iter().flat_map(|word| word.to_le_bytes()).collect();
    *blake3::hash(&bytes).as_bytes()
}

impl DayFound {
    /// Counts a row that reads back with this content.
    pub(crate) fn prove(&mut self, account: &Account, digest: &Digest) {
        if let Claimed::Packed(_, shard) = &account.claimed {
            self.tally.packed += 1;
            self.tally.bytes = self.tally.bytes.saturating_add(account.len.unwrap_or(0));
            if !self.shards.contains(shard) {
                self.shards.insert(shard.clone());
            }
        } else {
            self.tally.present += 1;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&account.created_at.micros().to_le_bytes());
        hasher.update(&account.len.unwrap_or(0).to_le_bytes());
        hasher.update(digest.as_bytes());
        hasher.update(account.uid.as_bytes());
        add_hash(&mut self.sums.input, &hasher.finalize());
        add_hash(&mut self.sums.uids, &blake3::hash(account.uid.as_bytes()));
    }

    /// Adds what was found of other rows of the day.
    pub(crate) fn merge(&mut self, other: Self) {
        self.tally.add(&other.tally);
        for (sum, more) in [(&mut self.sums.input, other.sums.input), (&mut self.sums.uids, other.sums.uids)] {
            for (sum, more) in sum.iter_mut().zip(more) {
                *sum = sum.wrapping_add(more);
            }
        }
        self.shards.extend(other.shards);
    }

    /// The receipt, where something was proven.
    pub(crate) fn receipt(&self, day: Date) -> Option<Receipt> {
        let files = self.tally.packed.saturating_add(self.tally.present);
        (files > 0).then(|| Receipt {
            day,
            input_hash: of_sum(&self.sums.input),
            shards: self.shards.clone(),
            files,
            bytes: self.tally.bytes,
            uid_digest: of_sum(&self.sums.uids),
        })
    }
}

/// What was found of all rows.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) days: BTreeMap<Date, DayFound>,
}

impl Found {
    pub(crate) fn merge(&mut self, other: Self) {
        for (day, found) in other.days {
            self.days.entry(day).or_default().merge(found);
        }
    }

    /// Rows that have an account.
    pub(crate) fn accounted(&self) -> u64 {
        self.days.values().map(|day| day.tally.accounted()).sum()
    }
}
