//! How long certificates hold (RFC 5280, section 4.1.2.5).

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spki::der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use spki::der::{Decode, Reader, SliceReader, Tag, TagNumber};

use super::Finding;
use crate::reason;
use crate::tls;

const AREA: &str = "tls";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Whoever renews certificates by a machine does so a month before; then something has gone wrong.
const SOON: u32 = 21;

/// What there is to say about the files of a server.
pub fn look(identity: Option<&(PathBuf, PathBuf)>, client_ca: Option<&Path>) -> Vec<Finding> {
    let mut findings = vec![];
    if let Some((certificate, key)) = identity {
        let name = certificate.display().to_string();
        match tls::read_identity(certificate, key) {
            Ok(identity) => findings.extend(identity.cert.iter().enumerate().map(|(at, der)| {
                let name = match at {
                    0 => name.clone(),
                    _ => format!("{name}, certificate {}", at + 1),
                };
                judge(&name, Validity::of(der), SystemTime::now(), RENEW)
            })),
            Err(error) => findings.push(unusable("--tls-cert", &error)),
        }
    }
    if let Some(path) = client_ca {
        let name = path.display().to_string();
        match tls::read_certificates(path) {
            Ok(all) => {
                findings.extend(
                    all.iter()
                        .map(|der| judge(&name, Validity::of(der), SystemTime::now(), RENEW)),
                );
            }
            Err(error) => {
                let error = error.context(format!("cannot read {name}"));
                findings.push(unusable("--tls-client-ca", &error));
            }
        }
    }
    findings
}

const RENEW: &str = "renew it; a running hop takes the new one by itself";

fn unusable(flag: &str, error: &anyhow::Error) -> Finding {
    Finding::problem(
        AREA,
        reason::of(error),
        format!("{flag} names a PEM file that this user can read"),
    )
}

/// From when to when a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first moment.
    pub from: SystemTime,
    /// Its last.
    pub until: SystemTime,
}

impl Validity {
    /// What a certificate says; none if it is none.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        Self::read(certificate).ok()
    }

    fn read(certificate: &[u8]) -> spki::der::Result<Self> {
        const VERSION: Tag = Tag::ContextSpecific {
            constructed: true,
            number: TagNumber(0),
        };
        let whole = AnyRef::from_der(certificate)?;
        let mut parts = SliceReader::new(whole.value())?;
        let signed = AnyRef::decode(&mut parts)?;
        let mut fields = SliceReader::new(signed.value())?;
        if Tag::peek(&fields)? == VERSION {
            AnyRef::decode(&mut fields)?;
        }
        // Number, algorithm, issuer.
        for _ in 0..3 {
            AnyRef::decode(&mut fields)?;
        }
        let validity = AnyRef::decode(&mut fields)?;
        let mut times = SliceReader::new(validity.value())?;
        Ok(Self {
            from: time(&mut times)?,
            until: time(&mut times)?,
        })
    }
}

/// Up to 2049 a time has two digits for the year, from then on four.
fn time<'a>(reader: &mut impl Reader<'a>) -> spki::der::Result<SystemTime> {
    let since = match Tag::peek(reader)? {
        Tag::UtcTime => UtcTime::decode(reader)?.to_unix_duration(),
        _ => GeneralizedTime::decode(reader)?.to_unix_duration(),
    };
    Ok(UNIX_EPOCH + since)
}

/// Whether a certificate holds, and for how long. `advice` is what to do before it does not.
pub fn judge(name: &str, validity: Option<Validity>, now: SystemTime, advice: &str) -> Finding {
    let Some(Validity { from, until }) = validity else {
        return Finding::problem(
            AREA,
            format!("{name} is no certificate that can be read"),
            advice,
        );
    };
    if let Ok(early) = from.duration_since(now)
        && !early.is_zero()
    {
        let what = format!(
            "the certificate of {name} holds from {} on only",
            humantime::format_rfc3339_seconds(from)
        );
        return Finding::problem(AREA, what, "look at the clock, or wait");
    }
    let Ok(left) = until.duration_since(now) else {
        let what = format!(
            "the certificate of {name} has expired on {}",
            humantime::format_rfc3339_seconds(until)
        );
        return Finding::problem(AREA, what, advice);
    };
    let days = left.as_secs() / DAY.as_secs();
    let what = format!("the certificate of {name} holds for {days} more days");
    match left < DAY * SOON {
        true => Finding::warning(AREA, what, advice),
        false => Finding::ok(AREA, what),
    }
}
