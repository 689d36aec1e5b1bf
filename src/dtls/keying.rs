//! What a finished handshake hands to SRTP: profile and master keys (RFC 5764 §4.1.2, §4.2).

use webrtc_dtls::conn::DTLSConn;
use webrtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use webrtc_util::KeyingMaterialExporter;
use zeroize::Zeroizing;

/// SRTP protection profile (RFC 5764 §4.1.2, RFC 7714 §14.2), the preferred first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SrtpProfile {
    /// SRTP_AEAD_AES_128_GCM, 0x0007.
    AeadAes128Gcm,
    /// SRTP_AEAD_AES_256_GCM, 0x0008.
    AeadAes256Gcm,
    /// SRTP_AES128_CM_HMAC_SHA1_80, 0x0001.
    AesCm128HmacSha1_80,
}

impl SrtpProfile {
    /// In the order of our preference.
    pub const ALL: [SrtpProfile; 3] =
        [SrtpProfile::AeadAes128Gcm, SrtpProfile::AeadAes256Gcm, SrtpProfile::AesCm128HmacSha1_80];

    /// The two bytes of the `use_srtp` extension.
    pub const fn id(self) -> u16 {
        match self {
            SrtpProfile::AeadAes128Gcm => 0x0007,
            SrtpProfile::AeadAes256Gcm => 0x0008,
            SrtpProfile::AesCm128HmacSha1_80 => 0x0001,
        }
    }

    /// As RFC 5764 §4.1.2 and RFC 7714 §14.2 name it.
    pub const fn name(self) -> &'static str {
        match self {
            SrtpProfile::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
            SrtpProfile::AeadAes256Gcm => "SRTP_AEAD_AES_256_GCM",
            SrtpProfile::AesCm128HmacSha1_80 => "SRTP_AES128_CM_HMAC_SHA1_80",
        }
    }

    /// Master key length in bytes.
    pub const fn key_len(self) -> usize {
        match self {
            SrtpProfile::AeadAes128Gcm | SrtpProfile::AesCm128HmacSha1_80 => 16,
            SrtpProfile::AeadAes256Gcm => 32,
        }
    }

    /// Master salt length in bytes.
    pub const fn salt_len(self) -> usize {
        match self {
            SrtpProfile::AeadAes128Gcm | SrtpProfile::AeadAes256Gcm => 12,
            SrtpProfile::AesCm128HmacSha1_80 => 14,
        }
    }
}

/// One direction's master key and salt; [`SrtpProfile::key_len`] and [`SrtpProfile::salt_len`] bytes.
pub struct MasterKey {
    /// The key, zeroed when dropped.
    pub key: Zeroizing<Vec<u8>>,
    /// The salt, zeroed when dropped.
    pub salt: Zeroizing<Vec<u8>>,
}

/// What the handshake agreed on.
pub struct KeyingMaterial {
    /// The negotiated profile.
    pub profile: SrtpProfile,
    /// What the client protects with: our receiving side.
    pub client: MasterKey,
    /// What the server protects with: our sending side.
    pub server: MasterKey,
}

impl From<SrtpProfile> for SrtpProtectionProfile {
    fn from(profile: SrtpProfile) -> SrtpProtectionProfile {
        match profile {
            SrtpProfile::AeadAes128Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            SrtpProfile::AeadAes256Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
            SrtpProfile::AesCm128HmacSha1_80 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        }
    }
}

/// RFC 5764 §4.2.
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";

impl KeyingMaterial {
    /// Takes the keys out of a finished handshake; `None` unless it agreed on `profile`.
    pub(super) async fn export(conn: &DTLSConn, profile: SrtpProfile) -> Option<KeyingMaterial> {
        if conn.selected_srtpprotection_profile() != profile.into() {
            return None;
        }
        let len = 2 * (profile.key_len() + profile.salt_len());
        let state = conn.connection_state().await;
        let material = state.export_keying_material(EXPORTER_LABEL, &[], len).await.ok()?;
        KeyingMaterial::split(profile, &Zeroizing::new(material))
    }

    /// Cuts exported material: client key, server key, client salt, server salt (RFC 5764 §4.2). `None`
    /// when it is too short.
    pub(super) fn split(profile: SrtpProfile, material: &[u8]) -> Option<KeyingMaterial> {
        let (keys, salts) = material.split_at_checked(2 * profile.key_len())?;
        let (client_key, server_key) = keys.split_at(profile.key_len());
        let (client_salt, rest) = salts.split_at_checked(profile.salt_len())?;
        let (server_salt, _) = rest.split_at_checked(profile.salt_len())?;
        let master = |key: &[u8], salt: &[u8]| MasterKey {
            key: Zeroizing::new(key.to_vec()),
            salt: Zeroizing::new(salt.to_vec()),
        };
        Some(KeyingMaterial {
            profile,
            client: master(client_key, client_salt),
            server: master(server_key, server_salt),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn material_is_cut_as_the_rfc_has_it() {
        for profile in SrtpProfile::ALL {
            let (key_len, salt_len) = (profile.key_len(), profile.salt_len());
            let part = |byte: u8, len: usize| vec![byte; len];
            let material =
                [part(1, key_len), part(2, key_len), part(3, salt_len), part(4, salt_len)].concat();
            let keys = KeyingMaterial::split(profile, &material).unwrap();
            assert_eq!((&*keys.client.key, &*keys.server.key), (&part(1, key_len), &part(2, key_len)));
            assert_eq!((&*keys.client.salt, &*keys.server.salt), (&part(3, salt_len), &part(4, salt_len)));
            assert!(KeyingMaterial::split(profile, &material[1..]).is_none());
        }
    }
}
