//! The rules of the protocol that the simulation breaks, one at a time, to show that it would notice.
//!
//! Where a rule is followed the code asks [`keeps`], which is true in every build but that of this crate's own tests.

/// A rule that can be broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A reader finishes the listing before it reads folded sets.
    LogBeforeFolded,
    /// A fold keeps what was folded before.
    FoldUnites,
    /// A fold replaces the folded set only if it is unchanged.
    FoldCompares,
    /// A fold removes records only once they are folded.
    FoldCommitsFirst,
    /// A fold removes records ten minutes after its commit.
    FoldWaits,
    /// A fold takes in the records of batches.
    FoldReadsBatches,
    /// A record that shrinks leaves its hash.
    ShrinkLeavesHash,
    /// A record shrinks when no object holds its uid.
    ShrinkProves,
    /// A manifest is replaced only if it is unchanged.
    CommitCompares,
    /// A swap needs its old shards to be live still.
    SwapNeedsOld,
    /// A retired or condemned key stays so.
    TerminalStays,
    /// An object that is live is not condemned.
    LiveIsNotCondemned,
    /// A swap retires what it takes out.
    SwapRetires,
    /// What is forgotten leaves its numbers used up.
    ForgottenIsUsedUp,
    /// The time of a retirement is that of the commit.
    TimesSettle,
    /// A shard's name was never used.
    NamesAreFresh,
    /// A shard is created, never overwritten.
    ShardsAreCreated,
    /// What was uploaded is read back before the commit.
    UploadIsReadBack,
    /// Only files with a tombstone are dropped.
    OnlyDeadAreDropped,
    /// Births survive.
    BirthsSurvive,
    /// What is read is compared with what the manifest says of it.
    SourceIsVerified,
    /// Whoever lost a race leaves his object alone.
    LoserLeavesObject,
    /// What is retired is deleted after the grace period.
    GraceIsWaited,
    /// The grace period is counted by the store's clock.
    GraceByStoreClock,
    /// What is deleted is proven to be elsewhere.
    DeletionIsProven,
    /// A proof looks into the shards that are live, not only at the list of them.
    ProofReadsSuccessor,
    /// An orphan is condemned before it is deleted.
    OrphanIsCondemned,
    /// A manifest forgets what is proven gone.
    ForgottenIsGone,
    /// What is brought back comes under a new name.
    RollbackCopies,
    /// A day without a manifest is searched for objects.
    MissingIsNotEmpty,
    /// A commit looks whether a new file was deleted meanwhile.
    CommitLooksForDeletions,
    /// A deletion whose record may not have been written is not reported as done.
    UnknownIsNoSuccess,
}

#[cfg(test)]
impl Rule {
    /// All of them.
    pub(crate) const ALL: [Self; 32] = [
        Self::LogBeforeFolded,
        Self::FoldUnites,
        Self::FoldCompares,
        Self::FoldCommitsFirst,
        Self::FoldWaits,
        Self::FoldReadsBatches,
        Self::ShrinkLeavesHash,
        Self::ShrinkProves,
        Self::CommitCompares,
        Self::SwapNeedsOld,
        Self::TerminalStays,
        Self::LiveIsNotCondemned,
        Self::SwapRetires,
        Self::ForgottenIsUsedUp,
        Self::TimesSettle,
        Self::NamesAreFresh,
        Self::ShardsAreCreated,
        Self::UploadIsReadBack,
        Self::OnlyDeadAreDropped,
        Self::BirthsSurvive,
        Self::SourceIsVerified,
        Self::LoserLeavesObject,
        Self::GraceIsWaited,
        Self::GraceByStoreClock,
        Self::DeletionIsProven,
        Self::ProofReadsSuccessor,
        Self::OrphanIsCondemned,
        Self::ForgottenIsGone,
        Self::RollbackCopies,
        Self::MissingIsNotEmpty,
        Self::CommitLooksForDeletions,
        Self::UnknownIsNoSuccess,
    ];
}

/// True unless a test has broken the rule.
#[cfg(not(test))]
pub(crate) const fn keeps(_rule: Rule) -> bool {
    true
}

#[cfg(test)]
pub(crate) use broken::keeps;

#[cfg(test)]
pub(crate) mod broken {
    //! Which rule this thread breaks.

    use std::cell::Cell;

    use super::Rule;

    thread_local! {
        static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    pub(crate) fn keeps(rule: Rule) -> bool {
        BROKEN.get() != Some(rule)
    }

    /// Breaks a rule on this thread from now on.
    pub(crate) fn set(rule: Option<Rule>) {
        BROKEN.set(rule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_broken_only_by_the_thread_that_breaks_it() {
        broken::set(Some(Rule::FoldWaits));

        assert!(!keeps(Rule::FoldWaits) && keeps(Rule::FoldUnites));
        assert!(std::thread::spawn(|| keeps(Rule::FoldWaits)).join().unwrap());

        broken::set(None);
        assert!(keeps(Rule::FoldWaits));
    }
}
