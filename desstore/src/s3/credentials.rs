//! Credentials in a file that somebody may replace while a mount goes on.
//!
//! The SDK's own provider reads its file once and for ever, so that a mount whose keys were rotated would have to be made
//! again. Here the file is read again whenever what it held is old.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::{self, ProvideCredentials, future};

use crate::clock::Clock;

/// How long keys are used before the file is looked at again. The SDK asks for new ones up to ten seconds earlier.
const LIFETIME: Duration = Duration::from_secs(30);

/// The credentials of a profile in a file.
#[derive(Debug)]
pub(super) struct FileCredentials {
    pub(super) file: PathBuf,
    pub(super) profile: Option<String>,
    /// How whoever the profile names, such as a role, is asked for keys.
    pub(super) config: ProviderConfig,
    pub(super) clock: Arc<dyn Clock>,
}

impl FileCredentials {
    async fn read(&self) -> provider::Result {
        let mut builder =
            ProfileFileCredentialsProvider::builder().configure(&self.config).profile_files(profile_files(&self.file));
        if let Some(name) = &self.profile {
            builder = builder.profile_name(name);
        }
        let mut credentials = builder.build().provide_credentials().await?;
        // Keys that end by themselves, such as those of a role, say when.
        if credentials.expiry().is_none() {
            *credentials.expiry_mut() = self.soon();
        }
        Ok(credentials)
    }

    fn soon(&self) -> Option<SystemTime> {
        let now = Duration::from_micros(u64::try_from(self.clock.now().micros()).unwrap_or(0));
        UNIX_EPOCH.checked_add(now)?.checked_add(LIFETIME)
    }
}

impl ProvideCredentials for FileCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.read())
    }
}

/// The user's configuration, with this file in the place of `~/.aws/credentials`.
#[expect(deprecated, reason = "the type's new home is a crate for the SDK's own use")]
pub(super) fn profile_files(credentials: &Path) -> aws_config::profile::profile_file::ProfileFiles {
    use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
    ProfileFiles::builder()
        .include_default_config_file(true)
        .with_file(ProfileFileKind::Credentials, credentials)
        .build()
}

#[cfg(test)]
mod tests {
    use desfmt::Timestamp;

    use super::*;
    use crate::StoreOptions;
    use crate::clock::ManualClock;
    use crate::s3::client::http_client;

    fn written(file: &Path, key: &str) {
        let text = format!("[des]\naws_access_key_id = {key}\naws_secret_access_key = secret\n");
        std::fs::write(file, text).unwrap();
    }

    #[tokio::test]
    async fn keys_that_were_replaced_in_the_file_are_used_and_soon_looked_at_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("credentials");
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_000_000)));
        let http = http_client(&StoreOptions::default()).unwrap();
        let config = ProviderConfig::without_region().with_http_client(http);
        let credentials = FileCredentials { file: file.clone(), profile: Some("des".to_owned()), config, clock };

        for key in ["first", "second"] {
            written(&file, key);
            let found = credentials.provide_credentials().await.unwrap();
            assert_eq!(found.access_key_id(), key);
            assert_eq!(found.expiry(), Some(UNIX_EPOCH + Duration::from_secs(1) + LIFETIME));
        }
        std::fs::remove_file(&file).unwrap();
        assert!(credentials.provide_credentials().await.is_err());
    }
}
