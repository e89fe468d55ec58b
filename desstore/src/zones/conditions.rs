//! Whether the zones honour conditional writes: writers need them in every zone, since copies are created and replaced under
//! conditions too.

use futures_util::future::join_all;

use super::ZoneStore;
use crate::archive::ArchiveError;
use crate::clock::Randomness;
use crate::probe::{Conditions, UNCONDITIONAL, probe};

/// What one zone makes of conditions.
#[derive(Debug)]
pub struct ZoneConditions {
    /// The zone.
    pub zone: String,
    /// What was found, or why it could not be tried.
    pub found: Result<Conditions, ArchiveError>,
}

impl ZoneStore {
    /// Tries conditional writes in every zone. About 25 requests to each.
    pub async fn probe_zones(&self, random: &dyn Randomness) -> Vec<ZoneConditions> {
        let probed = self.zones.iter().map(async |zone| ZoneConditions {
            zone: zone.name.clone(),
            found: probe(zone.store.as_ref(), random).await,
        });
        join_all(probed).await
    }

    /// Makes sure that all zones honour conditions, for whoever is about to write. A zone that is away is none to write to;
    /// only the home of the documents must be there.
    pub async fn demand_conditions(&self, random: &dyn Randomness) -> Result<(), ArchiveError> {
        for (place, ZoneConditions { zone, found }) in self.probe_zones(random).await.into_iter().enumerate() {
            match found {
                Ok(Conditions::Honoured) => {}
                Ok(Conditions::CreateOnly | Conditions::Ignored) => {
                    return Err(ArchiveError::refused(format!("zone {zone}: {UNCONDITIONAL}")));
                }
                Err(ArchiveError::Store(error)) if place != self.home() && error.kind.is_transient() => {
                    tracing::warn!(zone, %error, "the zone is away; what it misses is owed to it");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
