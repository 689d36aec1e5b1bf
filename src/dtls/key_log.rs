//! Keys as a line of text, for those who record a call to look into it (`KEYLOG_DIR`), in the spirit of SSLKEYLOGFILE:
//!
//! ```text
//! SRTP 1720000000 17 SRTP_AEAD_AES_128_GCM <client key> <client salt> <server key> <server salt>
//! ```
//!
//! Seconds since 1970 of the handshake's end, the transport, the profile of RFC 5764 §4.1.2 or RFC 7714 §14.2, then master
//! keys and salts as RFC 5764 §4.2 names them, in hexadecimal: the client's protect what the client sends. No room, no
//! user, no address. Lines that are empty or begin with `#` mean nothing.

use std::fmt::Write;

use zeroize::Zeroizing;

use super::keying::{KeyingMaterial, MasterKey, SrtpProfile};
use crate::ids::TransportId;

/// Longest line: numbers of 20 digits, the longest profile, and twice 32 + 12 bytes in hexadecimal.
pub const LINE_LEN_MAX: usize = 300;

const LABEL: &str = "SRTP";

/// What a line says.
pub struct Entry {
    /// Seconds since 1970.
    pub time: u64,
    /// Whose.
    pub transport: TransportId,
    /// What the handshake agreed on.
    pub keys: KeyingMaterial,
}

/// Why a line is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not eight words, the first of them `SRTP`.
    #[error("it does not read SRTP, time, transport, profile and four values")]
    Words,
    /// A time or a transport that is no number.
    #[error("its time or transport is no number")]
    Number,
    /// A profile that we do not know.
    #[error("its profile is unknown")]
    Profile,
    /// A key or salt that is no hexadecimal of the profile's length.
    #[error("a key or salt is not of the profile's length in hexadecimal")]
    Key,
}

/// The line of a handshake, its end included.
pub fn line(time: u64, transport: TransportId, keys: &KeyingMaterial) -> Zeroizing<String> {
    // With room for all of it at once: what is moved to grow would be left behind.
    let mut line = Zeroizing::new(String::with_capacity(LINE_LEN_MAX));
    // A `String` takes everything.
    let _ = write!(line, "{LABEL} {time} {transport} {}", keys.profile.name());
    for bytes in [&keys.client.key, &keys.client.salt, &keys.server.key, &keys.server.salt] {
        line.push(' ');
        for byte in bytes.iter() {
            line.push(digit(byte >> 4));
            line.push(digit(byte & 0xF));
        }
    }
    line.push('\n');
    line
}

/// What a line says; `None` for one that says nothing.
///
/// # Errors
/// What is wrong with it.
pub fn parse(line: &str) -> Result<Option<Entry>, Error> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let mut word = || words.next().ok_or(Error::Words);
    if word()? != LABEL {
        return Err(Error::Words);
    }
    let (time, transport, name) = (word()?, word()?, word()?);
    let [client_key, client_salt, server_key, server_salt] = [word()?, word()?, word()?, word()?];
    if words.next().is_some() {
        return Err(Error::Words);
    }
    let number = |text: &str| text.parse::<u64>().map_err(|_| Error::Number);
    let profile =
        SrtpProfile::ALL.into_iter().find(|profile| profile.name() == name).ok_or(Error::Profile)?;
    let master = |key, salt| {
        Ok(MasterKey { key: bytes(key, profile.key_len())?, salt: bytes(salt, profile.salt_len())? })
    };
    Ok(Some(Entry {
        time: number(time)?,
        transport: TransportId(number(transport)?),
        keys: KeyingMaterial {
            profile,
            client: master(client_key, client_salt)?,
            server: master(server_key, server_salt)?,
        },
    }))
}

fn digit(nibble: u8) -> char {
    char::from(b"0123456789abcdef"[usize::from(nibble)])
}

fn bytes(text: &str, len: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
    if text.len() != 2 * len {
        return Err(Error::Key);
    }
    let nibble = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8).ok_or(Error::Key);
    let mut bytes = Zeroizing::new(Vec::with_capacity(len));
    for pair in text.as_bytes().chunks_exact(2) {
        bytes.push(nibble(pair[0])? << 4 | nibble(pair[1])?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(profile: SrtpProfile) -> KeyingMaterial {
        let len = 2 * (profile.key_len() + profile.salt_len());
        let material: Vec<u8> = (0..len as u8).map(|byte| byte.wrapping_mul(37) ^ 0xA5).collect();
        KeyingMaterial::split(profile, &material).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        for profile in SrtpProfile::ALL {
            let keys = keys(profile);
            let line = line(u64::MAX, TransportId(u64::MAX), &keys);
            assert!(line.len() <= LINE_LEN_MAX, "{}", line.len());
            assert!(line.ends_with('\n') && line.lines().count() == 1);
            let entry = parse(&line).unwrap().unwrap();
            assert_eq!((entry.time, entry.transport), (u64::MAX, TransportId(u64::MAX)));
            assert_eq!(entry.keys.profile, profile);
            for (read, written) in [(&entry.keys.client, &keys.client), (&entry.keys.server, &keys.server)] {
                assert_eq!((&read.key, &read.salt), (&written.key, &written.salt));
            }
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let good = line(1, TransportId(2), &keys(SrtpProfile::AeadAes128Gcm));
        let error = |text: &str| parse(text).err();
        assert_eq!(error(&good), None);
        assert!(parse(" \n").unwrap().is_none() && parse("# SRTP").unwrap().is_none());
        assert_eq!(error(&good.replace("SRTP ", "SRTP2 ")), Some(Error::Words));
        assert_eq!(error(&format!("{} more", good.trim())), Some(Error::Words));
        assert_eq!(error(good.rsplit_once(' ').unwrap().0), Some(Error::Words));
        assert_eq!(error(&good.replace(" 1 2 ", " 1 -2 ")), Some(Error::Number));
        assert_eq!(error(&good.replace("AES_128", "AES_192")), Some(Error::Profile));
        assert_eq!(error(&good.replace("AES_128", "AES_256")), Some(Error::Key));
        assert_eq!(error(&format!("{}x", &good[..good.len() - 2])), Some(Error::Key));
        assert_eq!(error(&good[..good.len() - 2]), Some(Error::Key));
    }

    proptest! {
        #[test]
        fn any_text_is_a_line_or_is_refused(text in ".{0,400}", at in 0..200_usize, other: char) {
            let _ = parse(&text);
            let good = line(1, TransportId(2), &keys(SrtpProfile::AesCm128HmacSha1_80));
            let mutant: String = good.chars().enumerate().map(|(i, c)| if i == at { other } else { c }).collect();
            let _ = parse(&mutant);
        }
    }
}
