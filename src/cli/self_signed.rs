//! Self-signed TLS certificates.

use jiff::{Timestamp, ToSpan, tz::Offset};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};

/// Validity of a certificate in days; browsers accept no longer one.
pub(super) const VALIDITY_DAYS: i32 = 397;

/// Returns a certificate for host names and IP addresses, and its private key (P-256), both in PEM.
///
/// It is valid from yesterday on, because a client's clock may be behind. Fails when a name is neither an IP address nor
/// ASCII.
pub(super) fn generate(names: &[String]) -> anyhow::Result<(String, String)> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "TestShop, self-signed");
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    let yesterday = Offset::UTC.to_datetime(Timestamp::now()).date().yesterday()?;
    let end = yesterday.checked_add(VALIDITY_DAYS.days())?;
    let [begin, end] = [yesterday, end].map(|date| {
        let [month, day] = [date.month(), date.day()].map(i8::unsigned_abs);
        date_time_ymd(date.year().into(), month, day)
    });
    (params.not_before, params.not_after) = (begin, end);
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}
