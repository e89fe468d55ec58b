//! Reading. Servers answer a range with another one, with the whole object, or with less than they announce; none of that
//! passes for what was asked for.

use std::ops::Range;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use bytes::{Bytes, BytesMut};
use desfmt::ObjectKey;

use super::S3Store;
use super::date::timestamp;
use super::failure::Failure;
use crate::error::StoreErrorKind;
use crate::store::{ETag, Fetched, ObjectMeta};

/// What the headers of an answer say.
pub(super) struct Facts<'a> {
    pub(super) len: Option<i64>,
    pub(super) etag: Option<&'a str>,
    pub(super) modified: Option<&'a DateTime>,
    pub(super) range: Option<&'a str>,
}

/// A `Content-Range`: which bytes of how many, the end excluded.
#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    range: Range<u64>,
    total: u64,
}

impl ContentRange {
    /// Reads `bytes FIRST-LAST/TOTAL`.
    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        let (end, total) = (last.checked_add(1)?, total.parse().ok()?);
        (first < end && end <= total).then_some(Self { range: first..end, total })
    }
}

impl Facts<'_> {
    fn of(answer: &GetObjectOutput) -> Facts<'_> {
        Facts {
            len: answer.content_length(),
            etag: answer.e_tag(),
            modified: answer.last_modified(),
            range: answer.content_range(),
        }
    }

    /// How many bytes the body is to have.
    fn body_len(&self) -> Result<u64, Failure> {
        let len = self.len.and_then(|len| u64::try_from(len).ok());
        len.ok_or_else(|| unfit("the answer does not say its length"))
    }

    /// Where the body lies in the object, and how long that is. An answer without a range is the whole object.
    fn placed(&self) -> Result<ContentRange, Failure> {
        let len = self.body_len()?;
        let Some(text) = self.range else { return Ok(ContentRange { range: 0..len, total: len }) };
        let range = ContentRange::parse(text).ok_or_else(|| unfit(format!("Content-Range {text:?} is no range")))?;
        if range.range.end.saturating_sub(range.range.start) == len {
            Ok(range)
        } else {
            Err(unfit(format!("Content-Range {text:?} with {len} bytes")))
        }
    }

    /// What they say of the object as a whole.
    pub(super) fn meta(&self, key: &ObjectKey) -> Result<ObjectMeta, Failure> {
        let len = self.placed()?.total;
        let etag = self.etag.filter(|etag| !etag.is_empty()).ok_or_else(|| unfit("the answer has no ETag"))?;
        let modified = self.modified.and_then(timestamp).ok_or_else(|| unfit("the answer has no Last-Modified"))?;
        Ok(ObjectMeta { key: key.clone(), len, etag: ETag(etag.to_owned()), modified })
    }
}

fn unfit(reason: impl Into<String>) -> Failure {
    Failure::rule(StoreErrorKind::Corrupt, reason)
}

/// Not every server heeds a condition on a read.
pub(super) fn demand_version(meta: &ObjectMeta, etag: Option<&ETag>) -> Result<(), Failure> {
    match etag {
        Some(etag) if *etag != meta.etag => {
            Err(Failure::rule(StoreErrorKind::PreconditionFailed, format!("it is version {}", meta.etag.0)))
        }
        Some(_) | None => Ok(()),
    }
}

/// Reads a body of exactly that many bytes.
async fn collect(mut body: ByteStream, len: u64) -> Result<Bytes, Failure> {
    let broken = |error: aws_sdk_s3::primitives::ByteStreamError| {
        let mut root: &dyn std::error::Error = &error;
        while let Some(cause) = root.source() {
            root = cause;
        }
        Failure::rule(StoreErrorKind::Unavailable, format!("the body broke off: {root}"))
    };
    let wanted = usize::try_from(len).map_err(|_| unfit("more bytes than memory"))?;
    let short = |found: usize| unfit(format!("a body of {found} bytes instead of {len}"));
    let Some(first) = body.next().await.transpose().map_err(broken)? else {
        return if wanted == 0 { Ok(Bytes::new()) } else { Err(short(0)) };
    };
    let mut whole = if first.len() < wanted {
        let mut whole = BytesMut::with_capacity(wanted);
        whole.extend_from_slice(&first);
        whole
    } else {
        // The end of the body is waited for all the same: only then is the connection free for the next request.
        let more = body.next().await.transpose().map_err(broken)?.map_or(0, |more| more.len());
        return if first.len() == wanted && more == 0 {
            Ok(first)
        } else {
            Err(short(first.len().saturating_add(more)))
        };
    };
    while let Some(chunk) = body.next().await.transpose().map_err(broken)? {
        if whole.len().saturating_add(chunk.len()) > wanted {
            return Err(short(whole.len().saturating_add(chunk.len())));
        }
        whole.extend_from_slice(&chunk);
    }
    if whole.len() == wanted { Ok(whole.freeze()) } else { Err(short(whole.len())) }
}

impl S3Store {
    fn get_object(&self, key: &ObjectKey) -> GetObjectFluentBuilder {
        self.shared.client.get_object().bucket(self.bucket()).key(self.full_key(key))
    }

    pub(super) async fn read_whole(&self, key: &ObjectKey, len_max: u64) -> Result<Fetched, Failure> {
        let sent = self.get_object(key).send().await;
        let answer = sent.map_err(|error| Failure::of(&error, &self.asked("s3:GetObject")))?;
        whole_of(key, answer, len_max).await
    }

    pub(super) async fn read_changed(
        &self,
        key: &ObjectKey,
        etag: &ETag,
        len_max: u64,
    ) -> Result<Option<Fetched>, Failure> {
        let answer = match self.get_object(key).if_none_match(&etag.0).send().await {
            Ok(answer) => answer,
            Err(error) if error.raw_response().is_some_and(|raw| raw.status().as_u16() == 304) => return Ok(None),
            Err(error) => return Err(Failure::of(&error, &self.asked("s3:GetObject"))),
        };
        if answer.e_tag() == Some(etag.0.as_str()) {
            return Ok(None);
        }
        whole_of(key, answer, len_max).await.map(Some)
    }

    pub(super) async fn read_range(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
        etag: Option<&ETag>,
    ) -> Result<Bytes, Failure> {
        let Some(last) = range.end.checked_sub(1).filter(|last| range.start <= *last) else {
            return self.read_nothing(key, &range, etag).await;
        };
        let asked = self.get_object(key).range(format!("bytes={}-{last}", range.start));
        let sent = asked.set_if_match(etag.map(|etag| etag.0.clone())).send().await;
        let answer = sent.map_err(|error| Failure::of(&error, &self.asked("s3:GetObject")))?;
        let facts = Facts::of(&answer);
        let placed = facts.placed()?;
        demand_version(&facts.meta(key)?, etag)?;
        if placed.range != range {
            return Err(unfit(format!("bytes {:?} of {} came for {range:?}", placed.range, placed.total)));
        }
        collect(answer.body, range.end.saturating_sub(range.start)).await
    }

    /// An empty range is within the object or it is not.
    async fn read_nothing(&self, key: &ObjectKey, range: &Range<u64>, etag: Option<&ETag>) -> Result<Bytes, Failure> {
        let (meta, _) = self.head_object(key, etag).await?;
        if range.start == range.end && range.end <= meta.len {
            Ok(Bytes::new())
        } else {
            Err(unfit(format!("{range:?} is beyond {} bytes", meta.len)))
        }
    }

    pub(super) async fn read_tail(&self, key: &ObjectKey, len: u64) -> Result<Fetched, Failure> {
        if len == 0 {
            let (meta, _) = self.head_object(key, None).await?;
            return Ok(Fetched { meta, bytes: Bytes::new() });
        }
        let answer = match self.get_object(key).range(format!("bytes=-{len}")).send().await {
            Ok(answer) => answer,
            // An empty object has no last bytes, and some servers refuse to give more bytes than there are.
            Err(error) if error.raw_response().is_some_and(|raw| raw.status().as_u16() == 416) => {
                let (meta, _) = self.head_object(key, None).await?;
                if meta.len > len {
                    return Err(unfit(format!("the last {len} of {} bytes were refused", meta.len)));
                }
                return self.read_whole(key, len).await;
            }
            Err(error) => return Err(Failure::of(&error, &self.asked("s3:GetObject"))),
        };
        let facts = Facts::of(&answer);
        let (placed, meta) = (facts.placed()?, facts.meta(key)?);
        let wanted = placed.total.saturating_sub(len)..placed.total;
        if placed.range != wanted {
            return Err(unfit(format!("bytes {:?} of {} came for the last {len}", placed.range, placed.total)));
        }
        let bytes = collect(answer.body, wanted.end.saturating_sub(wanted.start)).await?;
        Ok(Fetched { meta, bytes })
    }
}

async fn whole_of(key: &ObjectKey, answer: GetObjectOutput, len_max: u64) -> Result<Fetched, Failure> {
    let facts = Facts::of(&answer);
    let (placed, meta) = (facts.placed()?, facts.meta(key)?);
    if placed.range != (0..placed.total) {
        return Err(unfit("a part came for the whole object"));
    }
    if meta.len > len_max {
        return Err(unfit(format!("it has {} bytes, at most {len_max} are read", meta.len)));
    }
    let bytes = collect(answer.body, meta.len).await?;
    Ok(Fetched { meta, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read_or_refused() {
        assert_eq!(ContentRange::parse("bytes 5-9/20"), Some(ContentRange { range: 5..10, total: 20 }));
        for text in [
            "bytes 9-5/20",
            "bytes 5-20/20",
            "bytes */20",
            "bytes 5-9/*",
            "items 5-9/20",
            "bytes 0-18446744073709551615/1",
            "",
        ] {
            assert_eq!(ContentRange::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_body_that_is_not_its_range_is_refused() {
        let facts = |len, range| Facts { len, etag: Some("x"), modified: None, range };
        assert!(facts(Some(5), Some("bytes 5-9/20")).placed().is_ok());
        assert!(facts(Some(4), Some("bytes 5-9/20")).placed().is_err());
        assert!(facts(None, None).placed().is_err());
        assert_eq!(facts(Some(7), None).placed().unwrap(), ContentRange { range: 0..7, total: 7 });
    }

    #[tokio::test]
    async fn a_body_of_another_length_is_refused() {
        for (len, is_right) in [(3, true), (2, false), (4, false), (0, false)] {
            assert_eq!(collect(ByteStream::from_static(b"abc"), len).await.is_ok(), is_right, "{len}");
        }
        assert!(collect(ByteStream::from_static(b""), 0).await.is_ok());
    }
}
