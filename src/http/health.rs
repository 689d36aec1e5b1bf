//! Liveness (the process answers, and so do its workers) and readiness (it can be sent somebody).

use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue};
use hyper::{Response, StatusCode};

use super::routes::{Body, respond};
use crate::time::NtpTime;

pub(super) const JSON: &str = "application/json";

/// Open to every origin: clients on other sites measure which of several servers answers first.
pub(super) fn health(now: NtpTime, state: Result<(), &'static str>, is_draining: bool) -> Response<Body> {
    let (code, status) = match state {
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
        Ok(()) if is_draining => (StatusCode::OK, "draining"),
        Ok(()) => (StatusCode::OK, "healthy"),
    };
    let mut body = serde_json::json!({
        "status": status,
        "service": "sfu",
        "version": env!("CARGO_PKG_VERSION"),
        "timestamp": rfc3339(now),
    });
    if let Err(detail) = state {
        body["detail"] = detail.into();
    }
    let mut response = respond(code, JSON, body.to_string());
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

pub(super) fn ready(state: Result<(), &'static str>) -> Response<Body> {
    match state {
        Ok(()) => respond(StatusCode::OK, JSON, serde_json::json!({ "status": "ready" }).to_string()),
        Err(detail) => {
            let body = serde_json::json!({ "status": "not ready", "detail": detail });
            respond(StatusCode::SERVICE_UNAVAILABLE, JSON, body.to_string())
        }
    }
}

/// RFC 3339 §5.6 in UTC, whole seconds.
pub(super) fn rfc3339(time: NtpTime) -> String {
    const UNIX_EPOCH_NTP: u64 = 2_208_988_800;
    let seconds = time.0 >> 32;
    // Seconds before 1970 can only be those after the wrap of 2036 (RFC 5905 §6).
    utc(if seconds < UNIX_EPOCH_NTP { seconds + (1 << 32) } else { seconds } - UNIX_EPOCH_NTP)
}

/// As [`rfc3339`], so many seconds after 1970 began.
pub(super) fn utc(unix: u64) -> String {
    let (year, month, day) = civil_from_days(unix / 86_400);
    let (hour, minute, second) = (unix / 3600 % 24, unix / 60 % 60, unix % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The Gregorian date so many days after 1970-01-01.
///
/// Years are taken to begin in March, so that the leap day is the last one.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_400_YEARS: u64 = 146_097;
    const DAYS_FROM_YEAR_0: u64 = 719_468; // From 0000-03-01 to 1970-01-01.
    let days = days + DAYS_FROM_YEAR_0;
    let (era, day_of_era) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// The slow obvious version.
    fn civil_by_counting(mut days: u64) -> (u64, u64, u64) {
        let mut year = 1970;
        loop {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let months = [31, 28 + u64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            for (month, length) in (1..).zip(months) {
                if days < length {
                    return (year, month, days + 1);
                }
                days -= length;
            }
            year += 1;
        }
    }

    #[test]
    fn dates_agree_with_counting() {
        for days in 0..60_000 {
            assert_eq!(civil_from_days(days), civil_by_counting(days), "day {days}");
        }
    }

    #[test]
    fn known_instants() {
        let at = |unix| rfc3339(NtpTime::from_system(UNIX_EPOCH + Duration::from_secs(unix)));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(1_000_000_000), "2001-09-09T01:46:40Z");
        assert_eq!(at(2_147_483_648), "2038-01-19T03:14:08Z"); // After the wrap of NTP seconds.
    }
}
