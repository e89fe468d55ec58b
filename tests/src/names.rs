//! How a uid is shown in a directory, written down a second time from `docs/semantics.md`, so that a slip in the program
//! does not hide itself.

/// The file name of a uid that is not too long to be shown whole.
pub fn shown_name(uid: &str) -> String {
    match uid {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => uid.replace('%', "%25").replace('/', "%2F").replace('\0', "%00"),
    }
}
