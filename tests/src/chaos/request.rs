//! What a request asks for, seen from outside.

use hyper::header::{AUTHORIZATION, HeaderMap, IF_NONE_MATCH, RANGE};
use hyper::http::request::Parts;
use hyper::{Method, Uri};

/// Kinds of requests, as a bill would tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A whole object.
    Get,
    /// A range or tail of an object.
    GetRange,
    /// An object, if it has changed.
    GetIfChanged,
    /// The facts of an object or bucket.
    Head,
    /// A page of a listing.
    List,
    /// A page of a listing of versions or uploads.
    ListOther,
    /// An object written.
    Put,
    /// An upload in parts begun.
    CreateUpload,
    /// A part.
    Part,
    /// An upload in parts made an object.
    CompleteUpload,
    /// An upload in parts taken back.
    AbortUpload,
    /// An object removed.
    Delete,
    /// Many objects removed.
    DeleteMany,
    /// Anything else.
    Other,
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Of which kind.
    pub kind: Kind,
    /// `/BUCKET/KEY`.
    pub path: String,
    /// What follows the `?`.
    pub query: String,
    /// The `Range`.
    pub range: Option<String>,
    /// All headers.
    headers: HeaderMap,
}

impl Asked {
    pub(super) fn of(parts: &Parts) -> Self {
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let range = parts.headers.get(RANGE).and_then(|range| range.to_str().ok()).map(str::to_owned);
        let is_conditional = parts.headers.contains_key(IF_NONE_MATCH);
        let kind = kind_of(&parts.method, &query, range.is_some(), is_conditional);
        Self { kind, path: path_of(&parts.uri), query, range, headers: parts.headers.clone() }
    }

    /// A header, if it was sent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Who signed for which region, as `KEY/DATE/REGION/s3/aws4_request`.
    pub(super) fn credential(&self) -> &str {
        let signed = self.headers.get(AUTHORIZATION).and_then(|signed| signed.to_str().ok()).unwrap_or_default();
        let credential = signed.split_once("Credential=").map_or("", |(_, rest)| rest);
        credential.split(',').next().unwrap_or_default()
    }
}

fn path_of(uri: &Uri) -> String {
    uri.path().to_owned()
}

fn kind_of(method: &Method, query: &str, has_range: bool, is_conditional: bool) -> Kind {
    let has = |name: &str| query.split('&').any(|part| part.split('=').next() == Some(name));
    match *method {
        Method::GET if has("list-type") => Kind::List,
        Method::GET if has("versions") || has("uploads") => Kind::ListOther,
        Method::GET if has_range => Kind::GetRange,
        Method::GET if is_conditional => Kind::GetIfChanged,
        Method::GET => Kind::Get,
        Method::HEAD => Kind::Head,
        Method::PUT if has("partNumber") => Kind::Part,
        Method::PUT => Kind::Put,
        Method::POST if has("uploads") => Kind::CreateUpload,
        Method::POST if has("uploadId") => Kind::CompleteUpload,
        Method::POST if has("delete") => Kind::DeleteMany,
        Method::DELETE if has("uploadId") => Kind::AbortUpload,
        Method::DELETE => Kind::Delete,
        _ => Kind::Other,
    }
}
