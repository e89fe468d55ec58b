//! How a shard that is compressed anew is compressed: by a sample of the files that stay, and of nothing else.

use std::borrow::Cow;
use std::cell::Cell;

use desstore::ArchiveError;
use desstore::repack::{Chooser, Chosen, LiveFiles};

use crate::build::{Choice, RunChooser, Sample};
use crate::compression::{Compression, Framing, ShardCodec};
use crate::limits;

/// Chooses as des-pack does.
#[derive(Debug, Clone, Copy)]
pub struct SampleChooser {
    /// What the user wants.
    pub compression: Compression,
    /// How much content is compressed together.
    pub framing: Framing,
}

impl Chooser for SampleChooser {
    fn choose(&self, files: &mut LiveFiles<'_>) -> Result<Chosen, ArchiveError> {
        let bytes = files.bytes();
        let mut runs = RunChooser::new(bytes);
        let mut sample = Sample::default();
        let choice = Cell::new(Choice::Skip);
        files.for_each(
            &mut |len| {
                choice.set(runs.choose(len));
                match choice.get() {
                    Choice::Skip => 0,
                    Choice::Train => limits::TRAINING_FILE_BYTES,
                    Choice::Judge => limits::SAMPLE_FILE_BYTES,
                }
            },
            &mut |head| match choice.get() {
                Choice::Skip => {}
                Choice::Train => sample.training.push(Cow::Owned(head)),
                Choice::Judge => sample.judged.push(Cow::Owned(head)),
            },
        )?;
        let chosen = ShardCodec::choose(self.compression, self.framing, &sample, bytes);
        let ShardCodec { codec, dictionary, frame_size } = chosen.map_err(|error| ArchiveError::Refused {
            reason: format!("no codec can be chosen for what stays of a shard: {error}"),
        })?;
        Ok(Chosen { codec, level: self.compression.level, dictionary, frame_size })
    }
}
