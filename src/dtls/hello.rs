//! ClientHello (RFC 5246 §7.4.1.2 with the cookie of RFC 6347 §4.2.1): what the peer can do.
//!
//! Strict, for two reasons: the crate indexes out of bounds on extensions that do not add up, and takes a
//! session id for the cookie. A hello that does not parse here never reaches it.

use super::endpoint::Error;
use super::keying::SrtpProfile;
use super::record::VERSION_1_2;

/// Handshake message type (RFC 5246 §7.4).
pub(super) const CLIENT_HELLO: u8 = 1;

/// TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: every WebRTC endpoint has it (RFC 8827 §6.5), so it is the
/// only one we take, and the lengths of all protected records are known.
const ECDHE_ECDSA_AES_128_GCM_SHA256: u16 = 0xC02B;

/// Extensions that decide whether and how we go on.
const USE_SRTP: u16 = 14;
const EXTENDED_MASTER_SECRET: u16 = 23;
const SUPPORTED_VERSIONS: u16 = 43;

/// A ClientHello that parsed, with its body as it came.
#[derive(Clone, Debug)]
pub(super) struct Hello {
    pub(super) body: Vec<u8>,
    /// Tells one handshake of a peer from the next.
    pub(super) random: [u8; 32],
    pub(super) cookie: Vec<u8>,
    has_version: bool,
    has_cipher_suite: bool,
    has_extended_master_secret: bool,
    srtp_profiles: Option<Vec<u16>>,
}

impl Hello {
    /// Returns `None` unless every length adds up, no extension comes twice and the session id is empty.
    pub(super) fn parse(body: Vec<u8>) -> Option<Hello> {
        let mut reader = Reader(&body);
        let mut has_version = reader.u16()? == VERSION_1_2;
        let random = *reader.0.split_first_chunk::<32>()?.0;
        reader.take(32)?;
        let session_id = reader.vec8()?;
        let cookie = reader.vec8()?.0.to_vec();
        let cipher_suites = reader.vec16()?.list_u16()?;
        let compression_methods = reader.vec8()?;
        if !session_id.0.is_empty() || !compression_methods.0.contains(&0) {
            return None;
        }
        let mut extensions = if reader.0.is_empty() { Reader(&[]) } else { reader.vec16()? };
        if !reader.0.is_empty() {
            return None;
        }
        let mut seen = Vec::new();
        let mut srtp_profiles = None;
        while !extensions.0.is_empty() {
            let (kind, mut content) = (extensions.u16()?, extensions.vec16()?);
            if seen.contains(&kind) {
                return None;
            }
            seen.push(kind);
            match kind {
                USE_SRTP => {
                    srtp_profiles = Some(content.vec16()?.list_u16()?);
                    let _mki = content.vec8()?;
                }
                // RFC 8446 §4.2.1: the list replaces the version field.
                SUPPORTED_VERSIONS => has_version = content.vec8()?.list_u16()?.contains(&VERSION_1_2),
                EXTENDED_MASTER_SECRET => {}
                _ => continue,
            }
            if !content.0.is_empty() {
                return None;
            }
        }
        let has_cipher_suite = cipher_suites.contains(&ECDHE_ECDSA_AES_128_GCM_SHA256);
        let has_extended_master_secret = seen.contains(&EXTENDED_MASTER_SECRET);
        Some(Hello {
            body,
            random,
            cookie,
            has_version,
            has_cipher_suite,
            has_extended_master_secret,
            srtp_profiles,
        })
    }

    /// The profile that we prefer of those offered.
    ///
    /// # Errors
    /// What is missing for a handshake that we would finish.
    pub(super) fn choose(&self) -> Result<SrtpProfile, Error> {
        let offered = self.srtp_profiles.as_ref();
        if !self.has_version {
            Err(Error::Version)
        } else if !self.has_cipher_suite {
            Err(Error::NoCommonCipherSuite)
        } else if !self.has_extended_master_secret {
            Err(Error::NoExtendedMasterSecret)
        } else {
            let offered = offered.ok_or(Error::NoUseSrtp)?;
            SrtpProfile::ALL
                .into_iter()
                .find(|profile| offered.contains(&profile.id()))
                .ok_or(Error::NoCommonProfile)
        }
    }
}

/// Cannot run past its end.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn vec8(&mut self) -> Option<Reader<'a>> {
        let len = self.u8()?;
        self.take(len.into()).map(Reader)
    }

    pub(super) fn vec16(&mut self) -> Option<Reader<'a>> {
        let len = self.u16()?;
        self.take(len.into()).map(Reader)
    }

    pub(super) fn vec24(&mut self) -> Option<Reader<'a>> {
        let [high, low] = [self.u8()?.into(), usize::from(self.u16()?)];
        self.take(high << 16 | low).map(Reader)
    }

    fn list_u16(&self) -> Option<Vec<u16>> {
        let (pairs, rest) = self.0.as_chunks::<2>();
        rest.is_empty().then(|| pairs.iter().map(|&pair| u16::from_be_bytes(pair)).collect())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &(content.len() as u16).to_be_bytes(), content].concat()
    }

    fn use_srtp(profiles: &[u16]) -> Vec<u8> {
        let list: Vec<u8> = profiles.iter().flat_map(|profile| profile.to_be_bytes()).collect();
        extension(USE_SRTP, &[&(list.len() as u16).to_be_bytes()[..], &list, &[0]].concat())
    }

    fn hello(version: u16, suites: &[u16], extensions: &[Vec<u8>]) -> Vec<u8> {
        let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
        let extensions = extensions.concat();
        [
            &version.to_be_bytes()[..],
            &[9; 32],
            &[0, 0],
            &(suites.len() as u16).to_be_bytes(),
            &suites,
            &[1, 0],
            &(extensions.len() as u16).to_be_bytes(),
            &extensions,
        ]
        .concat()
    }

    /// The smallest hello that we would go on with.
    pub(in crate::dtls) fn acceptable(profiles: &[u16]) -> Vec<u8> {
        hello(VERSION_1_2, &[0xC02B], &[extension(EXTENDED_MASTER_SECRET, &[]), use_srtp(profiles)])
    }

    #[test]
    fn our_preference_wins_whatever_the_order() {
        let chosen = |profiles: &[u16]| Hello::parse(acceptable(profiles)).unwrap().choose();
        assert_eq!(chosen(&[1, 8, 7]), Ok(SrtpProfile::AeadAes128Gcm));
        assert_eq!(chosen(&[1, 2, 8]), Ok(SrtpProfile::AeadAes256Gcm));
        assert_eq!(chosen(&[2, 1]), Ok(SrtpProfile::AesCm128HmacSha1_80));
        // SRTP_AES128_CM_HMAC_SHA1_32 and SRTP_NULL_HMAC_SHA1_80 are not ours.
        assert_eq!(chosen(&[2, 5]), Err(Error::NoCommonProfile));
        assert_eq!(chosen(&[]), Err(Error::NoCommonProfile));
    }

    #[test]
    fn what_is_missing_has_a_name() {
        let ems = extension(EXTENDED_MASTER_SECRET, &[]);
        let chosen = |version, suite, extensions: &[Vec<u8>]| {
            Hello::parse(hello(version, &[suite], extensions)).unwrap().choose()
        };
        assert_eq!(chosen(0xFEFF, 0xC02B, &[ems.clone(), use_srtp(&[7])]), Err(Error::Version));
        assert_eq!(
            chosen(VERSION_1_2, 0x0000, &[ems.clone(), use_srtp(&[7])]),
            Err(Error::NoCommonCipherSuite)
        );
        assert_eq!(chosen(VERSION_1_2, 0xC02B, &[use_srtp(&[7])]), Err(Error::NoExtendedMasterSecret));
        assert_eq!(chosen(VERSION_1_2, 0xC02B, std::slice::from_ref(&ems)), Err(Error::NoUseSrtp));
        let only_1_3 = extension(SUPPORTED_VERSIONS, &[2, 0xFE, 0xFC]);
        assert_eq!(chosen(VERSION_1_2, 0xC02B, &[ems, use_srtp(&[7]), only_1_3]), Err(Error::Version));
    }

    #[test]
    fn lengths_that_do_not_add_up_are_refused() {
        let good = acceptable(&[7, 8, 1]);
        assert!(Hello::parse(good.clone()).is_some());
        for len in 0..good.len() {
            // A hello may end before its extensions (RFC 5246 §7.4.1.2), and nowhere else.
            let without_extensions = 2 + 32 + 1 + 1 + 4 + 2;
            assert_eq!(Hello::parse(good[..len].to_vec()).is_some(), len == without_extensions, "{len}");
        }
        assert!(Hello::parse([&good[..], &[0]].concat()).is_none());
        let twice = hello(VERSION_1_2, &[0xC02B], &[use_srtp(&[7]), use_srtp(&[1])]);
        assert!(Hello::parse(twice).is_none());
        let odd = extension(USE_SRTP, &[0, 3, 0, 7, 0, 0]);
        assert!(Hello::parse(hello(VERSION_1_2, &[0xC02B], &[odd])).is_none());
        let mut with_session_id = good.clone();
        with_session_id[34] = 1;
        with_session_id.insert(35, 0);
        assert!(Hello::parse(with_session_id).is_none());
    }

    #[test]
    fn no_single_byte_makes_it_panic() {
        let good = acceptable(&[7, 8, 1]);
        for position in 0..good.len() {
            for value in 0..=255 {
                let mut bytes = good.clone();
                bytes[position] = value;
                let _ = Hello::parse(bytes).map(|hello| hello.choose());
            }
        }
    }
}
