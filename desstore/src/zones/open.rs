//! Opening: all zones that answer must hold the same archive.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock};

use desfmt::document::{self, DOCUMENT_LEN_MAX, Identity as IdentityDocument};
use desfmt::{FormatError, layout};
use futures_util::future::join_all;

use super::trust::Trust;
use super::{Identity, Zone, ZoneMap, ZoneSettings, ZoneStore};
use crate::clock::{Clock, Randomness};
use crate::error::{StoreError, StoreErrorKind};
use crate::store::Fetched;

/// Zones that do not belong together.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ZoneError {
    /// A zone holds another archive than the others.
    #[error(
        "zone {zone} holds archive {found} and zone {other} archive {expected}; one of them is the wrong bucket or prefix"
    )]
    Foreign {
        /// The zone.
        zone: String,
        /// What it holds.
        found: String,
        /// A zone that holds something else.
        other: String,
        /// What that is.
        expected: String,
    },
    /// A copy has an archive and the home has none.
    #[error(
        "zone {zone} holds an archive, but its home zone {home} has no des.json; home is the wrong bucket or prefix, or \
         has lost it"
    )]
    NoHome {
        /// The zone.
        zone: String,
        /// The home of the documents.
        home: String,
    },
    /// The archive has another number of buckets than the ranges.
    #[error("the ranges are written for n_bits = {configured}, but the archive has {found}")]
    OtherBits {
        /// What the ranges say.
        configured: u8,
        /// What the archive says.
        found: u8,
    },
    /// A `des.json` that cannot be understood.
    #[error("the des.json of zone {zone}")]
    Damaged {
        /// The zone.
        zone: String,
        /// What is wrong with it.
        source: FormatError,
    },
    /// No zone can be used.
    #[error("no zone can be used; of zone {zone}")]
    Unreachable {
        /// The first of them.
        zone: String,
        /// Why not.
        source: StoreError,
    },
}

impl ZoneStore {
    /// Opens zones. Those that are away are looked at when they are back. One request to each.
    pub async fn open(
        zones: Vec<Zone>,
        map: ZoneMap,
        settings: ZoneSettings,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Randomness>,
    ) -> Result<Arc<Self>, ZoneError> {
        let store = Self {
            zones,
            map,
            settings,
            clock,
            random,
            identity: OnceLock::new(),
            trust: Trust::default(),
            joined: Mutex::new(HashSet::new()),
            unsettled: Mutex::new(HashSet::new()),
            asking: tokio::sync::Mutex::new(()),
        };
        let answers = join_all((0..store.zones.len()).map(|zone| store.look_at(zone))).await;
        store.compare(&answers)?;
        store.ask_debts().await;
        Ok(Arc::new(store))
    }

    async fn look_at(&self, zone: usize) -> Result<Option<Fetched>, StoreError> {
        let store = self.store(zone).ok_or_else(|| Self::no_zone("get", ""))?;
        let key = layout::identity();
        let asked = store.get(&key, DOCUMENT_LEN_MAX);
        match self.within(self.settings.deadline, "get", key.as_str(), asked).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn compare(&self, answers: &[Result<Option<Fetched>, StoreError>]) -> Result<(), ZoneError> {
        let home = self.home();
        let is_empty_home = matches!(answers.get(home), Some(Ok(None)));
        let mut first: Option<(usize, IdentityDocument)> = None;
        let mut joined = HashSet::new();
        for (zone, answer) in answers.iter().enumerate() {
            let fetched = match answer {
                Ok(Some(fetched)) => fetched,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(zone = self.name(zone), %error, "the zone is away");
                    continue;
                }
            };
            if is_empty_home {
                let (zone, home) = (self.name(zone).to_owned(), self.name(home).to_owned());
                return Err(ZoneError::NoHome { zone, home });
            }
            let identity: IdentityDocument = document::decode(&fetched.bytes)
                .map_err(|source| ZoneError::Damaged { zone: self.name(zone).to_owned(), source })?;
            if let Some(configured) = self.map.bits().filter(|bits| *bits != identity.bits()) {
                return Err(ZoneError::OtherBits { configured: configured.get(), found: identity.bits().get() });
            }
            match &first {
                Some((other, expected)) if *expected != identity => {
                    return Err(ZoneError::Foreign {
                        zone: self.name(zone).to_owned(),
                        found: identity.archive.to_string(),
                        other: self.name(*other).to_owned(),
                        expected: expected.archive.to_string(),
                    });
                }
                Some(_) => {}
                None => {
                    let known = Identity { bits: identity.bits(), bytes: fetched.bytes.clone() };
                    drop(self.identity.set(known));
                    first = Some((zone, identity));
                }
            }
            joined.insert(zone);
        }
        match answers.first() {
            Some(Err(error)) if answers.iter().all(Result::is_err) => {
                return Err(ZoneError::Unreachable { zone: self.name(0).to_owned(), source: error.clone() });
            }
            Some(_) | None => {}
        }
        if let Ok(mut known) = self.joined.lock() {
            *known = joined;
        }
        Ok(())
    }
}
