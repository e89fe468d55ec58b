//! A bucket that keeps every version of its objects, looked into past the programs under test: nothing that they have left
//! in an older version escapes.

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use bytes::Bytes;

use crate::{S3Place, S3Server};

/// A bucket with versioning switched on.
#[derive(Debug)]
pub struct VersionedBucket {
    name: String,
    place: S3Place,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

/// Everything that a bucket keeps below a prefix.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// All versions of all objects, by key, with what is in them.
    pub versions: Vec<(String, Bytes)>,
    /// Markers that say that an object was deleted.
    pub markers: Vec<String>,
}

impl VersionedBucket {
    /// Makes a bucket of that name on a server.
    pub fn create(server: &S3Server, name: &str) -> Self {
        server.create_bucket(name);
        let (key, secret) = S3Server::keys();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .credentials_provider(Credentials::new(key, secret, None, None, "tests"))
            .endpoint_url(server.endpoint())
            .force_path_style(true)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::new("us-east-1"))
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let place = server.place_at(&format!("s3://{name}/archive"));
        let bucket = Self { name: name.to_owned(), place, client: Client::from_conf(config.build()), runtime };
        let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let asked = bucket.client.put_bucket_versioning().bucket(name).versioning_configuration(enabled).send();
        bucket.runtime.block_on(asked).expect("versions of a bucket");
        bucket
    }

    /// Where an archive goes in it.
    pub const fn place(&self) -> &S3Place {
        &self.place
    }

    /// Everything that it keeps.
    pub fn kept(&self) -> Kept {
        self.runtime.block_on(async {
            let mut kept = Kept::default();
            let (mut key, mut version) = (None, None);
            loop {
                let page = self.client.list_object_versions().bucket(&self.name);
                let page = page.set_key_marker(key).set_version_id_marker(version).send().await.expect("a listing");
                for marker in page.delete_markers() {
                    kept.markers.push(marker.key().unwrap_or_default().to_owned());
                }
                for one in page.versions() {
                    let key = one.key().unwrap_or_default();
                    let asked = self.client.get_object().bucket(&self.name).key(key);
                    let found = asked.set_version_id(one.version_id().map(str::to_owned)).send().await;
                    let body = found.expect("a version").body.collect().await.expect("its bytes");
                    kept.versions.push((key.to_owned(), body.into_bytes()));
                }
                if page.is_truncated() != Some(true) {
                    return kept;
                }
                key = page.next_key_marker().map(str::to_owned);
                version = page.next_version_id_marker().map(str::to_owned);
            }
        })
    }
}
