//! From when until when a certificate is good (RFC 5280 §4.1.2.5).

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::health::utc;

const DAY: i64 = 24 * 60 * 60;

/// How long before a certificate's end an operator is warned: authorities renew a month before it.
const WARNED_BEFORE: i64 = 14 * DAY;

/// In seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    not_before: i64,
    pub(super) not_after: i64,
}

impl Validity {
    /// `None` for what does not parse.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Validity> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let validity = parsed.validity();
        Some(Validity {
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    /// What an operator has to do about it, if anything.
    pub(super) fn warning(self, now: i64) -> Option<String> {
        if now < self.not_before {
            let from = written(self.not_before);
            return Some(format!(
                "TLS_CERT is not valid before {from}, clients refuse it until then; look whether this machine's \
                 clock is right"
            ));
        }
        let until = written(self.not_after);
        if now > self.not_after {
            return Some(format!("TLS_CERT expired at {until}, clients refuse it; renew it"));
        }
        let left = self.not_after - now;
        (left <= WARNED_BEFORE).then(|| {
            let days = left / DAY;
            let days = if days == 1 { "1 day".to_owned() } else { format!("{days} days") };
            format!("TLS_CERT expires at {until}, in {days}; renew it")
        })
    }
}

fn written(unix: i64) -> String {
    utc(unix.try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_warned_in_time_and_not_before() {
        let validity = Validity { not_before: 1_000_000_000, not_after: 1_000_000_000 + 90 * DAY };
        let left = |seconds| validity.warning(validity.not_after - seconds);
        for (warning, said) in [
            (validity.warning(999_999_999), "not valid before 2001-09-09T01:46:40Z"),
            (left(14 * DAY), "expires at 2001-12-08T01:46:40Z, in 14 days"),
            (left(2 * DAY - 1), "in 1 day;"),
            (left(0), "in 0 days"),
            (left(-1), "expired at 2001-12-08T01:46:40Z"),
        ] {
            let warning = warning.unwrap();
            assert!(warning.starts_with("TLS_CERT ") && warning.contains(said), "{warning}");
        }
        assert_eq!((validity.warning(1_000_000_000), left(14 * DAY + 1)), (None, None));
    }

    #[test]
    fn any_date_can_be_written() {
        for unix in [i64::MIN, -1, 0, 253_402_300_799] {
            assert!(Validity { not_before: 0, not_after: unix }.warning(i64::MAX).is_some());
        }
        assert_eq!(written(253_402_300_799), "9999-12-31T23:59:59Z"); // RFC 5280 §4.1.2.5: without an end.
    }
}
