//! What the SDK reports, by what a caller can do about it, with one line for the one who must.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::error::{StoreError, StoreErrorKind};

/// A request that failed, before it is known which operation it was part of.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: StoreErrorKind,
    pub(super) reason: Reason,
    /// How long the server asks to be left alone, if it says so.
    pub(super) retry_after: Option<Duration>,
}

/// Why, in words.
#[derive(Debug)]
pub(super) struct Reason(String);

/// What was asked of whom.
pub(super) struct Asked<'a> {
    /// What the credentials must allow for it.
    pub(super) permission: &'static str,
    pub(super) bucket: &'a str,
    pub(super) server: &'a str,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Reason {}

impl Failure {
    /// An answer that breaks the rules.
    pub(super) fn rule(kind: StoreErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: Reason(reason.into()), retry_after: None }
    }

    /// What the SDK says.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>, asked: &Asked<'_>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        match error {
            SdkError::ServiceError(answer) => Self::of_answer(answer.err(), answer.raw(), asked),
            SdkError::TimeoutError(_) => {
                Self::rule(StoreErrorKind::Unavailable, format!("{} did not answer in time", asked.server))
            }
            SdkError::ResponseError(answer) => {
                let (status, root) = (answer.raw().status().as_u16(), root_of(error));
                let text = format!("{}: an answer of status {status} that cannot be read: {root}", asked.server);
                Self::rule(StoreErrorKind::Unavailable, text)
            }
            SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => Self::of_dispatch(error, asked),
            _ => Self::rule(StoreErrorKind::Unavailable, format!("{}: {}", asked.server, root_of(error))),
        }
    }

    /// Something went wrong before there was an answer.
    fn of_dispatch(error: &(dyn Error + 'static), asked: &Asked<'_>) -> Self {
        let server = asked.server;
        if let Some(credentials) = find::<CredentialsError>(error) {
            return of_credentials(credentials);
        }
        if let Some(tls) = find::<rustls::Error>(error) {
            if matches!(tls, rustls::Error::InvalidCertificate(_)) {
                let text =
                    format!("the certificate of {server} is not trusted ({tls}); name its authority by ca_file=FILE");
                return Self::rule(StoreErrorKind::Denied, text);
            }
            return Self::rule(StoreErrorKind::Unavailable, format!("no encrypted connection to {server}: {tls}"));
        }
        Self::rule(StoreErrorKind::Unavailable, format!("{server} cannot be reached: {}", root_of(error)))
    }

    /// A service said no.
    fn of_answer(error: &dyn ProvideErrorMetadata, raw: &HttpResponse, asked: &Asked<'_>) -> Self {
        let status = raw.status().as_u16();
        let (code, message) = (error.code().unwrap_or_default(), error.message().unwrap_or_default());
        let kind = kind_of(status, code);
        let region = raw.headers().get("x-amz-bucket-region");
        let mut text = match (code, message) {
            ("", _) => format!("status {status}"),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code} ({message})"),
        };
        if let Some(hint) = hint_for(status, code, region, asked) {
            text = format!("{hint} [{text}]");
        }
        let headers = raw.headers();
        let retry_after = headers.get("retry-after").and_then(|text| pause_of(text, headers.get("date")));
        Self { retry_after, ..Self::rule(kind, text) }
    }

    /// The same, one kind told as another.
    pub(super) fn taken_for(self, from: StoreErrorKind, to: StoreErrorKind) -> Self {
        let kind = if self.kind == from { to } else { self.kind };
        Self { kind, ..self }
    }

    /// Names the operation and the object.
    pub(super) fn during(self, operation: &'static str, key: &dyn ToString) -> StoreError {
        let error = StoreError::new(self.kind, operation, key.to_string());
        error.caused_by(self.reason).to_be_repeated_after(self.retry_after.unwrap_or_default())
    }
}

/// The pause that a `Retry-After` asks for: so many seconds, or until a time by the server's own clock.
fn pause_of(text: &str, now: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let read = |text: &str| DateTime::from_str(text, DateTimeFormat::HttpDate).ok().map(|time| time.secs());
    let seconds = read(text)?.checked_sub(read(now?)?)?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// What an answer calls for. Codes come before statuses: HEAD has no code, and servers differ in statuses.
fn kind_of(status: u16, code: &str) -> StoreErrorKind {
    match (code, status) {
        // A bucket that is not there is never a missing object: nothing is known of any object.
        (
            "NoSuchBucket"
            | "PermanentRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidToken"
            | "TokenRefreshRequired"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "RequestTimeTooSkewed"
            | "AccessDenied",
            _,
        ) => StoreErrorKind::Denied,
        ("SlowDown" | "Throttling" | "TooManyRequests" | "RequestLimitExceeded" | "ConditionalRequestConflict", _) => {
            StoreErrorKind::Throttled
        }
        ("QuotaExceeded" | "InsufficientCapacity", _) => StoreErrorKind::Full,
        // What arrived was not what was sent, or not all of it.
        ("BadDigest" | "IncompleteBody" | "XAmzContentSHA256Mismatch" | "InvalidDigest", _) => StoreErrorKind::Corrupt,
        ("RequestTimeout" | "InternalError" | "ServiceUnavailable" | "NoSuchUpload" | "InvalidPart", _) => {
            StoreErrorKind::Unavailable
        }
        (_, 404) => StoreErrorKind::NotFound,
        (_, 412 | 304) => StoreErrorKind::PreconditionFailed,
        (_, 409 | 429 | 503) => StoreErrorKind::Throttled,
        (_, 301 | 307 | 401 | 403) => StoreErrorKind::Denied,
        (_, 507) => StoreErrorKind::Full,
        (_, 416) => StoreErrorKind::Corrupt,
        (_, 500..) => {
            if status == 501 {
                StoreErrorKind::Unsupported
            } else {
                StoreErrorKind::Unavailable
            }
        }
        (_, _) => StoreErrorKind::Unsupported,
    }
}

/// What to do about an answer, where that can be said.
fn hint_for(status: u16, code: &str, region: Option<&str>, asked: &Asked<'_>) -> Option<String> {
    let Asked { bucket, server, permission, .. } = asked;
    match (code, status) {
        ("NoSuchBucket", _) => {
            Some(format!("{server} has no bucket {bucket}; check its name, the endpoint and the region"))
        }
        ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _)
        | (_, 301 | 307) => Some(match region {
            Some(region) => format!("bucket {bucket} lies in region {region}; say region={region}"),
            None => {
                format!("bucket {bucket} lies in another region or behind another endpoint; say region= or endpoint=")
            }
        }),
        ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken", _) => {
            Some("the credentials have expired; renew them".to_owned())
        }
        ("InvalidAccessKeyId", _) => Some(format!("{server} does not know these credentials")),
        ("SignatureDoesNotMatch", _) => Some("the secret key is not the right one".to_owned()),
        ("RequestTimeTooSkewed", _) => Some("the clock of this machine is wrong".to_owned()),
        ("AccessDenied" | "", 401 | 403) => {
            Some(format!("the credentials do not allow {permission} on this in bucket {bucket}"))
        }
        ("SlowDown", _) | (_, 429) => Some(format!("{server} asks for fewer requests")),
        _ => None,
    }
}

fn of_credentials(error: &CredentialsError) -> Failure {
    let root = root_of(error);
    if matches!(error, CredentialsError::CredentialsNotLoaded(_)) {
        let remedy = "give profile=NAME or credentials_file=FILE, or set AWS_ACCESS_KEY_ID";
        return Failure::rule(StoreErrorKind::Denied, format!("no credentials were found; {remedy}"));
    }
    if matches!(error, CredentialsError::InvalidConfiguration(_)) {
        return Failure::rule(StoreErrorKind::Denied, format!("the credentials are not set up right: {root}"));
    }
    Failure::rule(StoreErrorKind::Unavailable, format!("the credentials cannot be had now: {root}"))
}

/// The first cause of a type, also within what `io::Error` wraps.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        if let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && let Some(found) = find::<T>(inner)
        {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// The innermost cause, which says the most.
fn root_of(error: &(dyn Error + 'static)) -> String {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_what_can_be_done() {
        for (status, code, kind) in [
            (404, "NoSuchKey", StoreErrorKind::NotFound),
            (404, "", StoreErrorKind::NotFound),
            (404, "NoSuchBucket", StoreErrorKind::Denied),
            (412, "PreconditionFailed", StoreErrorKind::PreconditionFailed),
            (409, "ConditionalRequestConflict", StoreErrorKind::Throttled),
            (403, "AccessDenied", StoreErrorKind::Denied),
            (400, "ExpiredToken", StoreErrorKind::Denied),
            (400, "BadDigest", StoreErrorKind::Corrupt),
            (503, "SlowDown", StoreErrorKind::Throttled),
            (429, "", StoreErrorKind::Throttled),
            (500, "InternalError", StoreErrorKind::Unavailable),
            (502, "", StoreErrorKind::Unavailable),
            (501, "NotImplemented", StoreErrorKind::Unsupported),
            (400, "InvalidArgument", StoreErrorKind::Unsupported),
            (507, "", StoreErrorKind::Full),
        ] {
            assert_eq!(kind_of(status, code), kind, "{status} {code}");
        }
    }

    #[test]
    fn a_pause_is_read_as_seconds_or_as_a_time() {
        let (now, later) = (Some("Sat, 01 Mar 2025 10:00:00 GMT"), "Sat, 01 Mar 2025 10:00:07 GMT");
        for (text, now, pause) in [
            ("3", None, Some(3)),
            (" 0 ", now, Some(0)),
            (later, now, Some(7)),
            (later, None, None),
            ("Sat, 01 Mar 2025 09:00:00 GMT", now, Some(0)),
            ("soon", now, None),
            ("-1", now, None),
        ] {
            assert_eq!(pause_of(text, now), pause.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_wrong_region_is_answered_with_the_right_one() {
        let asked = Asked { permission: "s3:GetObject", bucket: "b", server: "AWS" };
        let hint = hint_for(301, "PermanentRedirect", Some("eu-central-1"), &asked).unwrap();
        assert!(hint.contains("region=eu-central-1"), "{hint}");
    }
}
