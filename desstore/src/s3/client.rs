//! From options to clients of the SDK.

use std::sync::Arc;

use aws_config::meta::region::RegionProviderChain;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

use super::credentials::{FileCredentials, profile_files};
use crate::clock::Clock;
use crate::location::{ConnectError, S3Location, StoreOptions};
use crate::stack;

/// The region where a server of one's own is named and no region is.
const REGION_DEFAULT: &str = "us-east-1";

pub(super) struct Clients {
    pub(super) client: Client,
    pub(super) uploads: Client,
}

pub(super) async fn connect(
    location: &S3Location,
    options: &StoreOptions,
    clock: &Arc<dyn Clock>,
) -> Result<Clients, ConnectError> {
    let refused = |reason: String| ConnectError::Options { place: location.to_string(), reason };
    demand_encryption(options).map_err(refused)?;
    let http = http_client(options).map_err(refused)?;
    let mut loaded = loader(options, http.clone()).map_err(refused)?.load().await;
    if let Some(file) = &options.credentials_file {
        let config = ProviderConfig::without_region().with_region(loaded.region().cloned()).with_http_client(http);
        let (file, profile, clock) = (file.clone(), options.profile.clone(), Arc::clone(clock));
        let credentials = SharedCredentialsProvider::new(FileCredentials { file, profile, config, clock });
        loaded = loaded.into_builder().credentials_provider(credentials).build();
    }
    if loaded.region().is_none() {
        return Err(refused(
            "no region is known; say region=NAME (or AWS_REGION, or a profile that names one)".to_owned(),
        ));
    }
    let path_style = options.path_style.unwrap_or(options.endpoint.is_some());
    // The longest request is a part of an upload, which is answered when its body has arrived.
    let attempt_max = stack::allowance(options.patience.attempt_max, options.part_bytes);
    let client = |first_byte| {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(options.connect_timeout)
            .read_timeout(first_byte)
            .operation_attempt_timeout(attempt_max)
            .build();
        let config = aws_sdk_s3::config::Builder::from(&loaded).timeout_config(timeouts).force_path_style(path_style);
        Client::from_conf(config.build())
    };
    Ok(Clients { client: client(options.first_byte_timeout), uploads: client(attempt_max) })
}

fn loader(options: &StoreOptions, http: SharedHttpClient) -> Result<ConfigLoader, String> {
    let stalls = StalledStreamProtectionConfig::enabled().grace_period(options.stall_timeout).build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(stalls)
        // Several servers refuse or even damage what the SDK does of its own accord; uploads carry a sum of ours.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = &options.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(file) = &options.credentials_file {
        std::fs::File::open(file).map_err(|error| format!("credentials_file {}: {error}", file.display()))?;
        loader = loader.profile_files(profile_files(file));
    }
    Ok(match (&options.region, &options.endpoint) {
        (Some(region), _) => loader.region(Region::new(region.clone())),
        // Only a machine in AWS is asked for its region, and only when AWS is meant.
        (None, Some(_)) => {
            let environment = aws_config::environment::EnvironmentVariableRegionProvider::new();
            let mut profile = aws_config::profile::ProfileFileRegionProvider::builder();
            if let Some(name) = &options.profile {
                profile = profile.profile_name(name);
            }
            let chain = RegionProviderChain::first_try(environment).or_else(profile.build());
            loader.region(chain.or_else(Region::new(REGION_DEFAULT)))
        }
        (None, None) => loader,
    })
}

pub(super) fn http_client(options: &StoreOptions) -> Result<SharedHttpClient, String> {
    let mut trusted = TrustStore::empty().with_native_roots(!rustls_native_certs::load_native_certs().certs.is_empty());
    if let Some(file) = &options.ca_file {
        let shown = file.display();
        let pem = std::fs::read(file).map_err(|error| format!("ca_file {shown}: {error}"))?;
        let found = rustls_native_certs::load_certs_from_paths(Some(file), None);
        if let Some(error) = found.errors.first() {
            return Err(format!("ca_file {shown}: {error}"));
        }
        let mut roots = rustls::RootCertStore::empty();
        if found.certs.is_empty() || found.certs.into_iter().any(|certificate| roots.add(certificate).is_err()) {
            return Err(format!("ca_file {shown} does not hold certificates in PEM"));
        }
        trusted = trusted.with_pem_certificate(pem);
    }
    let context = TlsContext::builder().with_trust_store(trusted).build().map_err(|error| error.to_string())?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(context)
        .build_https())
}

/// Plain HTTP shows everything to everybody on the way, so it must be asked for.
fn demand_encryption(options: &StoreOptions) -> Result<(), String> {
    let Some(rest) = options.endpoint.as_deref().and_then(|endpoint| endpoint.strip_prefix("http://")) else {
        return Ok(());
    };
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = match authority.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or(address),
        None => authority.split(':').next().unwrap_or(authority),
    };
    let is_loopback =
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if is_loopback || options.insecure {
        return Ok(());
    }
    Err(format!("endpoint http://{authority} is not encrypted; use https://, or say insecure if that is meant"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_refused_but_to_this_machine() {
        for (endpoint, insecure, is_accepted) in [
            ("http://127.0.0.1:8333", false, true),
            ("http://localhost:8333/s3", false, true),
            ("http://[::1]:8333", false, true),
            ("https://s3.example.org", false, true),
            ("http://s3.example.org", true, true),
            ("http://s3.example.org:80", false, false),
            ("http://10.0.0.1", false, false),
            ("http://127.0.0.1.example.org", false, false),
        ] {
            let mut options = StoreOptions::default();
            options.set("endpoint", Some(endpoint)).unwrap();
            options.insecure = insecure;
            assert_eq!(demand_encryption(&options).is_ok(), is_accepted, "{endpoint}");
        }
    }

    #[tokio::test]
    async fn the_bucket_stands_in_the_path_or_in_the_host_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("credentials");
        std::fs::write(&file, "[default]\naws_access_key_id = key\naws_secret_access_key = secret\n").unwrap();
        let location = S3Location { bucket: "bucket".to_owned(), prefix: String::new() };
        let clock: Arc<dyn Clock> = Arc::new(crate::clock::SystemClock::new());
        let own = Some("https://s3.example.org:9000");
        for (endpoint, path_style, expected) in [
            (None, None, "https://bucket.s3.eu-central-1.amazonaws.com/a/key?"),
            (None, Some(true), "https://s3.eu-central-1.amazonaws.com/bucket/a/key?"),
            (own, None, "https://s3.example.org:9000/bucket/a/key?"),
            (own, Some(false), "https://bucket.s3.example.org:9000/a/key?"),
        ] {
            let options = StoreOptions {
                endpoint: endpoint.map(str::to_owned),
                region: Some("eu-central-1".to_owned()),
                credentials_file: Some(file.clone()),
                path_style,
                ..StoreOptions::default()
            };
            let clients = connect(&location, &options, &clock).await.unwrap();
            let minute = aws_sdk_s3::presigning::PresigningConfig::expires_in(std::time::Duration::from_mins(1));

            let request = clients.client.get_object().bucket("bucket").key("a/key").presigned(minute.unwrap()).await;

            let request = request.unwrap();
            assert!(request.uri().starts_with(expected), "{endpoint:?} {path_style:?}: {}", request.uri());
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no certificate").unwrap();
        for path in [file.path(), std::path::Path::new("/nonexistent/ca.pem")] {
            let options = StoreOptions { ca_file: Some(path.to_owned()), ..StoreOptions::default() };
            assert!(http_client(&options).unwrap_err().contains("ca_file"));
        }
    }
}
