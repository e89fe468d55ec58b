//! The store's own time, from the `Date` of an answer.

use std::sync::{Arc, OnceLock};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use desfmt::Timestamp;

use super::failure::Failure;
use crate::error::StoreErrorKind;

/// Keeps the date of the answer to one request.
#[derive(Debug, Clone, Default)]
pub(super) struct DateTap(Arc<OnceLock<DateTime>>);

impl DateTap {
    /// The date.
    pub(super) fn time(&self) -> Result<Timestamp, Failure> {
        let told = self.0.get().and_then(timestamp);
        told.ok_or_else(|| Failure::rule(StoreErrorKind::Corrupt, "the answer has no date"))
    }
}

impl Intercept for DateTap {
    fn name(&self) -> &'static str {
        "DateTap"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let told = context.response().headers().get("date");
        if let Some(date) = told.and_then(|text| DateTime::from_str(text, DateTimeFormat::HttpDate).ok()) {
            // The first answer is the only one.
            self.0.get_or_init(|| date);
        }
        Ok(())
    }
}

/// Whole seconds: headers know no more, and listings must not know more than headers.
pub(super) fn timestamp(time: &DateTime) -> Option<Timestamp> {
    time.secs().checked_mul(1_000_000).map(Timestamp::from_micros)
}
