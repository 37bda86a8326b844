//! Entity tags of exports.
//!
//! An export follows from the version of the catalogue, the query, the format and the program. Its entity tag consists
//! of a digest of the version and a digest of all of that, so the import recognises the tag of any current export,
//! filtered or not, without knowing its query.

use hyper::header::HeaderValue;

use crate::{digest::hex, http::etag::content_id, versions::Version};

/// The digits of each digest.
const DIGITS: usize = 32;

/// Returns the text of a version at the start of the name of an export, followed by `@`.
pub(crate) fn version_prefix(version: Version) -> String {
    let Version { number, token } = version;
    format!("{number}-{token}@")
}

/// Returns the strong entity tag of the export with this name, which starts with a [`version_prefix`].
pub(crate) fn export_etag(name: &str) -> HeaderValue {
    let version = name.split_inclusive('@').next().unwrap_or_default();
    let tag = format!("\"{}.{}\"", digest(version), digest(name));
    HeaderValue::from_str(&tag).unwrap_or_else(|error| unreachable!("hexadecimal digits fit a header: {error}"))
}

/// Returns whether `etag` is the strong entity tag of an export of this version.
pub(crate) fn is_etag_of_version(etag: &str, version: Version) -> bool {
    let rest = etag.strip_prefix('"').and_then(|rest| rest.strip_prefix(&digest(&version_prefix(version))));
    let name = rest.and_then(|rest| rest.strip_prefix('.')?.strip_suffix('"'));
    name.is_some_and(|name| name.len() == DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn digest(text: &str) -> String {
    hex(&content_id(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn etag_names_the_version_and_the_export() {
        let version = Version { number: 7, token: Uuid::from_u128(1) };
        let name = version_prefix(version) + "search=a%40b.xlsx";
        let etag = export_etag(&name).to_str().unwrap().to_owned();
        assert!(is_etag_of_version(&etag, version));
        assert_ne!(export_etag(&(version_prefix(version) + ".csv")), etag);
        for other in [Version { number: 8, ..version }, Version { token: Uuid::from_u128(2), ..version }] {
            assert!(!is_etag_of_version(&etag, other));
        }
        for wrong in [format!("W/{etag}"), etag.replace('.', "-"), etag.replace('.', ".0"), etag[1..].to_owned()] {
            assert!(!is_etag_of_version(&wrong, version), "{wrong}");
        }
    }
}
