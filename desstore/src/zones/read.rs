//! Reading: shards from the first of their zones that has them, documents from their home, or from copies that are known to
//! be complete.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use desfmt::document::DOCUMENT_LEN_MAX;
use desfmt::{ObjectKey, layout};

use super::trust::Scope;
use super::{Class, ZoneStore, tagged};
use crate::error::{StoreError, StoreErrorKind};
use crate::stack;
use crate::store::{Depth, ObjectStore, Page, list_all};

/// More debts than this are not told apart: every copy is behind then.
const DEBTS_MAX: usize = 10_000;

/// Why a document cannot be read while its home is away.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the home zone {home} is away, and {reason}")]
struct NoCopy {
    home: String,
    reason: &'static str,
    source: StoreError,
}

/// True where a failure tells nothing of the object: a zone that refuses everybody is as good as one that is away.
const fn says_nothing(kind: StoreErrorKind) -> bool {
    match kind {
        StoreErrorKind::NotFound | StoreErrorKind::AlreadyExists | StoreErrorKind::PreconditionFailed => false,
        StoreErrorKind::Denied
        | StoreErrorKind::Throttled
        | StoreErrorKind::Unavailable
        | StoreErrorKind::Full
        | StoreErrorKind::Corrupt
        | StoreErrorKind::Unsupported => true,
    }
}

impl ZoneStore {
    /// Reads where the key belongs, with the same call in each zone. The zone that answered, and its answer.
    pub(super) async fn read<T: Send, F>(
        &self,
        operation: &'static str,
        key: &ObjectKey,
        call: impl Fn(Arc<dyn ObjectStore>) -> F + Send + Sync,
    ) -> Result<(usize, T), StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        self.read_in(operation, key, |_, store| call(store)).await
    }

    /// The same with a call that depends on the zone.
    pub(super) async fn read_in<T: Send, F>(
        &self,
        operation: &'static str,
        key: &ObjectKey,
        call: impl Fn(usize, Arc<dyn ObjectStore>) -> F + Send + Sync,
    ) -> Result<(usize, T), StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let all: Vec<usize>;
        let zones = match self.class(key.as_str()) {
            Class::Shard(zones) | Class::Flat(zones) => zones,
            Class::Anywhere => {
                all = (0..self.zones.len()).collect();
                &all
            }
            Class::Identity => return self.read_document(operation, key.as_str(), Scope::Identity, call).await,
            Class::Replaced(date) | Class::Once(date) => {
                return self.read_document(operation, key.as_str(), Scope::Day(date), call).await;
            }
            Class::Home => {
                let home = self.home();
                let store = self.store(home).ok_or_else(|| Self::no_zone(operation, key.as_str()))?;
                return Ok((home, call(home, Arc::clone(store)).await?));
            }
        };
        self.fall_over(operation, key.as_str(), zones, call).await
    }

    /// Asks zone after zone within one deadline. "There is none" is the answer only if all say so.
    async fn fall_over<T: Send, F>(
        &self,
        operation: &'static str,
        key: &str,
        zones: &[usize],
        call: impl Fn(usize, Arc<dyn ObjectStore>) -> F + Send + Sync,
    ) -> Result<(usize, T), StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let began = self.clock.monotonic();
        let mut failure = Self::no_zone(operation, key);
        let mut to_ask = u32::try_from(zones.len()).unwrap_or(u32::MAX);
        for (place, zone) in zones.iter().enumerate() {
            let Some(store) = self.store(*zone) else { continue };
            let spent = self.clock.monotonic().saturating_sub(began);
            let share = self.settings.deadline.saturating_sub(spent).checked_div(to_ask).unwrap_or_default();
            to_ask = to_ask.saturating_sub(1).max(1);
            let attempt = call(*zone, Arc::clone(store));
            let outcome =
                if zones.len() == 1 { attempt.await } else { self.within(share, operation, key, attempt).await };
            match outcome {
                Ok(answer) => return Ok((*zone, answer)),
                Err(error) => {
                    tracing::debug!(zone = self.name(*zone), %error, "asking the next zone");
                    if place == 0 || failure.kind == StoreErrorKind::NotFound {
                        failure = error;
                    }
                }
            }
        }
        Err(failure)
    }

    /// Asks the home of the documents, and where it does not answer the copies that were complete lately.
    async fn read_document<T: Send, F>(
        &self,
        operation: &'static str,
        key: &str,
        scope: Scope,
        call: impl Fn(usize, Arc<dyn ObjectStore>) -> F + Send + Sync,
    ) -> Result<(usize, T), StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let home = self.home();
        let store = self.store(home).ok_or_else(|| Self::no_zone(operation, key))?;
        let attempt = call(home, Arc::clone(store));
        if self.zones.len() == 1 {
            return Ok((home, attempt.await?));
        }
        let half = self.settings.deadline.checked_div(2).unwrap_or_default();
        let away = match self.within(half, operation, key, attempt).await {
            Err(error) if says_nothing(error.kind) => error,
            outcome => {
                self.keep_informed().await;
                return Ok((home, outcome?));
            }
        };
        let reason = if scope == Scope::Identity || self.may_use_copies() {
            for zone in self.copies().filter(|zone| self.trust.is_complete(*zone, scope)) {
                let Some(store) = self.store(zone) else { continue };
                if !self.is_ours(zone).await {
                    continue;
                }
                match self.within(half, operation, key, call(zone, Arc::clone(store))).await {
                    Err(error) if says_nothing(error.kind) => {}
                    outcome => return Ok((zone, outcome?)),
                }
            }
            "no copy of it that answers is known to be complete"
        } else {
            "it is too long ago that its copies were known to be complete"
        };
        let home = self.name(home).to_owned();
        Err(StoreError::new(away.kind, operation, key).caused_by(NoCopy { home, reason, source: away }))
    }

    fn may_use_copies(&self) -> bool {
        self.trust.is_informed(self.clock.monotonic(), self.settings.max_staleness)
    }

    /// Waits for an answer for at most so long.
    pub(super) async fn within<T: Send>(
        &self,
        after: Duration,
        operation: &'static str,
        key: &str,
        attempt: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        stack::within(self.clock.as_ref(), after, (operation, key), attempt).await
    }

    /// Reads the debts, if that was not done lately and nobody is at it.
    async fn keep_informed(&self) {
        if self.trust.is_informed(self.clock.monotonic(), self.settings.debts_every) {
            return;
        }
        if let Ok(_asking) = self.asking.try_lock() {
            self.ask_debts().await;
        }
    }

    /// Reads the debts. A failure leaves what is known as it is.
    pub(super) async fn ask_debts(&self) {
        let Some(store) = self.store(self.home()) else { return };
        let asked = self.clock.monotonic();
        let names: Vec<&str> = self.zones.iter().map(|zone| zone.name.as_str()).collect();
        match list_all(store.as_ref(), layout::DEBTS, Depth::Recursive, DEBTS_MAX).await {
            Ok(listing) => self.trust.learn(asked, &listing, &names),
            Err(error) if error.kind == StoreErrorKind::Corrupt => self.trust.distrust(asked, names.len()),
            Err(error) => tracing::debug!(%error, "debts of zones not read"),
        }
    }

    /// True where the zone holds this archive and no other.
    async fn is_ours(&self, zone: usize) -> bool {
        if self.joined.lock().unwrap_or_else(PoisonError::into_inner).contains(&zone) {
            return true;
        }
        let (Some(store), Some(identity)) = (self.store(zone), self.identity.get()) else { return false };
        match store.get(&layout::identity(), DOCUMENT_LEN_MAX).await {
            Ok(found) if found.bytes == identity.bytes => {
                self.joined.lock().unwrap_or_else(PoisonError::into_inner).insert(zone);
                true
            }
            Ok(_) => {
                tracing::error!(zone = self.name(zone), "the zone holds another archive");
                false
            }
            Err(_) => false,
        }
    }

    /// Lists documents at home or in a copy, and shards in the homes of their ranges one after the other.
    pub(super) async fn list_zones(&self, prefix: &str, depth: Depth, token: Option<&str>) -> Result<Page, StoreError> {
        let unknown = || StoreError::new(StoreErrorKind::Corrupt, "list", prefix);
        let is_document = [layout::MANIFESTS, layout::TOMBSTONES].iter().any(|documents| prefix.starts_with(documents));
        let (zone, inner) = match token.map(|token| token.split_once(':').ok_or_else(unknown)).transpose()? {
            None if is_document => {
                let scope = layout::day_of(prefix).map_or(Scope::All, Scope::Day);
                let call = |_, store: Arc<dyn ObjectStore>| async move { store.list(prefix, depth, None).await };
                let (zone, page) = self.read_document("list", prefix, scope, call).await?;
                return Ok(self.page_of(zone, page, false));
            }
            None => (self.group_home(prefix).unwrap_or_else(|| self.home()), None),
            Some((zone, inner)) => {
                (zone.parse().map_err(|_| unknown())?, Some(inner).filter(|inner| !inner.is_empty()))
            }
        };
        let store = self.store(zone).ok_or_else(unknown)?;
        let page = store.list(prefix, depth, inner).await?;
        let is_spread = !is_document && self.group_home(prefix).is_none();
        Ok(self.page_of(zone, page, is_spread))
    }

    /// The home of the one group whose shards a listing asks for.
    fn group_home(&self, prefix: &str) -> Option<usize> {
        let bits = self.identity.get()?.bits;
        let bucket = layout::parse_shards_prefix(prefix, bits)?;
        self.map.zones(bucket, bits).first().copied()
    }

    /// Keeps what belongs to the zone, and says where the listing goes on.
    fn page_of(&self, zone: usize, page: Page, is_spread: bool) -> Page {
        let mut next = page.next.map(|inner| format!("{zone}:{inner}"));
        if is_spread && next.is_none() {
            let homes = self.map.homes();
            let after = homes.iter().skip_while(|home| **home != zone).nth(1);
            next = after.map(|zone| format!("{zone}:"));
        }
        let is_here = |key: &str| match self.class(key) {
            Class::Shard(zones) | Class::Flat(zones) => zones.first() == Some(&zone),
            Class::Anywhere => true,
            Class::Identity | Class::Replaced(_) | Class::Once(_) | Class::Home => !is_spread || zone == self.home(),
        };
        let objects = page.objects.into_iter().filter(|object| is_here(object.key.as_str()));
        Page { objects: objects.map(|object| tagged(zone, object)).collect(), next }
    }
}
