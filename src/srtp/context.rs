//! One direction of one peer.

use super::cm_sha1::{self, CmSha1};
use super::gcm::{self, Gcm};
use super::index::PacketIndex;
use super::kdf::{Label, derive};
use super::path::CryptoPath;
#[cfg(debug_assertions)]
use super::spent::Spent;
use super::streams::Streams;
use crate::dtls::keying::{MasterKey, SrtpProfile};
use crate::ids::Ssrc;
use crate::packet::DropReason;
use crate::vector;

/// Most bytes that protecting adds to an RTP packet.
pub const SRTP_OVERHEAD_MAX: usize = 16;
/// Most bytes that protecting adds to an RTCP packet: tag and index word.
pub const SRTCP_OVERHEAD_MAX: usize = 20;

const _: () = assert!(SRTP_OVERHEAD_MAX >= gcm::TAG_LEN && SRTP_OVERHEAD_MAX >= cm_sha1::TAG_LEN);
const _: () = assert!(SRTCP_OVERHEAD_MAX == SRTP_OVERHEAD_MAX + RTCP_INDEX_LEN);

/// Fixed part of an RTP header, up to and including the SSRC (RFC 3550 §5.1).
const RTP_HEADER_LEN_MIN: usize = 12;
/// What SRTCP leaves in the clear: the first header and the sender's SSRC (RFC 3711 §3.4).
pub(super) const RTCP_HEADER_LEN: usize = 8;
/// E bit and SRTCP index (RFC 3711 §3.4).
pub(super) const RTCP_INDEX_LEN: usize = 4;
/// Set in the index word when the packet is encrypted.
pub(super) const E_BIT: u32 = 1 << 31;

/// 1024 packets: 20 s of one voice, and a retransmission may well be that late.
type RtpStreams = Streams<16, 16>;
/// 128 packets. As many SSRCs as there may be slots, as a browser may report on each m-line it receives under an SSRC of
/// its own; retired ones come on top.
type RtcpStreams = Streams<2, 256>;

/// What we send with. What each RTP packet takes, but for its key, lies in the first cache line.
#[repr(C, align(64))]
pub struct SrtpTx {
    rtp: Transform,
    rtcp: Transform,
    /// The next one, from 0 to 2^31; one count for all our SSRCs, which makes 2^31 the limit of the key
    /// that RFC 3711 §9.2 asks for.
    rtcp_index: u32,
    #[cfg(debug_assertions)]
    spent: Spent,
}

const _: () = assert!(size_of::<Transform>() <= vector::LINE_LEN);

/// What we receive with.
pub struct SrtpRx {
    rtp: Transform,
    rtcp: Transform,
    rtp_streams: RtpStreams,
    rtcp_streams: RtcpStreams,
}

#[cfg(feature = "tools")]
impl SrtpTx {
    /// Seals nothing: for replays of decrypted captures, never for a network.
    pub fn plaintext() -> SrtpTx {
        SrtpTx {
            rtp: Transform::Plaintext,
            rtcp: Transform::Plaintext,
            rtcp_index: 0,
            #[cfg(debug_assertions)]
            spent: Spent::default(),
        }
    }
}

#[cfg(feature = "tools")]
impl SrtpRx {
    /// Opens nothing, and still takes no packet twice: for replays of decrypted captures, never for a network.
    pub fn plaintext() -> SrtpRx {
        SrtpRx {
            rtp: Transform::Plaintext,
            rtcp: Transform::Plaintext,
            rtp_streams: RtpStreams::new(),
            rtcp_streams: RtcpStreams::new(),
        }
    }

    /// The stream has come to `index`: for recordings that begin in the middle of a call, never for a network.
    ///
    /// # Errors
    /// [`DropReason::SsrcLimit`].
    pub fn begin_at(&mut self, ssrc: Ssrc, index: PacketIndex) -> Result<(), DropReason> {
        let place = self.rtp_streams.find(ssrc);
        self.rtp_streams.accept(place, ssrc, index.0)
    }
}

impl SrtpTx {
    /// Derives the session keys; `master` itself is not kept.
    ///
    /// # Panics
    /// Unless key and salt have the profile's lengths.
    pub fn new(profile: SrtpProfile, master: &MasterKey) -> SrtpTx {
        SrtpTx::on(CryptoPath::best(), profile, master)
    }

    /// The same, on a path of the caller's choosing.
    ///
    /// # Panics
    /// Unless key and salt have the profile's lengths.
    pub fn on(path: CryptoPath, profile: SrtpProfile, master: &MasterKey) -> SrtpTx {
        SrtpTx {
            rtp: Transform::for_rtp(path, profile, master),
            rtcp: Transform::for_rtcp(path, profile, master),
            rtcp_index: 0,
            #[cfg(debug_assertions)]
            spent: Spent::default(),
        }
    }

    /// What it runs on.
    pub fn path(&self) -> CryptoPath {
        self.rtp.path()
    }

    /// A packet is sealed in a moment.
    pub fn fetch_keys(&self) {
        match &self.rtp {
            Transform::Gcm(gcm) => gcm.fetch(),
            Transform::CmSha1(cm_sha1) => cm_sha1.fetch(),
            #[cfg(feature = "tools")]
            Transform::Plaintext => {}
        }
    }

    /// Seals `header` and `payload` into `out` (at least their lengths + [`SRTP_OVERHEAD_MAX`]). The
    /// header's sequence number is `index.seq()`; the caller never uses an index of an SSRC twice.
    /// Returns the length, in bytes.
    ///
    /// # Errors
    /// [`DropReason::IndexExhausted`] beyond 2^48 − 1, [`DropReason::TooLong`] when it does not fit `out`,
    /// [`DropReason::RtpMalformed`] for a header of less than 12 bytes. Nothing was sealed then, and the
    /// index may be used.
    ///
    /// # Panics
    /// In debug builds, when the index does not match the header, was used before, or is 2^16 or more behind the
    /// SSRC's highest. As many SSRCs are remembered as a client may have slots.
    pub fn protect_rtp(
        &mut self,
        index: PacketIndex,
        header: &[u8],
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<usize, DropReason> {
        if header.len() < RTP_HEADER_LEN_MIN {
            return Err(DropReason::RtpMalformed);
        }
        debug_assert_eq!(header[2..4], index.seq().to_be_bytes(), "the header's sequence number");
        if index > PacketIndex::MAX {
            return Err(DropReason::IndexExhausted);
        }
        let len = header.len() + payload.len() + self.rtp.tag_len();
        let out = out.get_mut(..len).ok_or(DropReason::TooLong)?;
        let ssrc = Ssrc(u32_at(header, 8));
        #[cfg(debug_assertions)]
        self.spent.spend(ssrc, index);
        match &self.rtp {
            Transform::Gcm(gcm) => gcm.seal_rtp(ssrc, index.0, header, payload, out),
            Transform::CmSha1(cm) => cm.seal_rtp(ssrc, index.0, header, payload, out),
            #[cfg(feature = "tools")]
            Transform::Plaintext => {
                let (start, end) = out.split_at_mut(header.len());
                start.copy_from_slice(header);
                end.copy_from_slice(payload);
            }
        }
        Ok(len)
    }

    /// Seals a compound packet into `out` (+ [`SRTCP_OVERHEAD_MAX`]); the 31-bit SRTCP index is counted
    /// here. Returns the length, in bytes.
    ///
    /// # Errors
    /// [`DropReason::IndexExhausted`] after 2^31 packets, [`DropReason::TooLong`] when it does not fit
    /// `out`, [`DropReason::RtcpMalformed`] for less than 8 bytes.
    pub fn protect_rtcp(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        if packet.len() < RTCP_HEADER_LEN {
            return Err(DropReason::RtcpMalformed);
        }
        if self.rtcp_index >= E_BIT {
            return Err(DropReason::IndexExhausted);
        }
        let len = packet.len() + self.rtcp.tag_len() + RTCP_INDEX_LEN;
        let out = out.get_mut(..len).ok_or(DropReason::TooLong)?;
        let ssrc = Ssrc(u32_at(packet, 4));
        let index = self.rtcp_index;
        self.rtcp_index += 1;
        match &self.rtcp {
            Transform::Gcm(gcm) => gcm.seal_rtcp(ssrc, index, packet, out),
            Transform::CmSha1(cm) => cm.seal_rtcp(ssrc, index, packet, out),
            #[cfg(feature = "tools")]
            Transform::Plaintext => {
                let (start, end) = out.split_at_mut(packet.len());
                start.copy_from_slice(packet);
                end.copy_from_slice(&(index | E_BIT).to_be_bytes());
            }
        }
        Ok(len)
    }
}

impl SrtpRx {
    /// Derives the session keys; `master` itself is not kept.
    ///
    /// # Panics
    /// Unless key and salt have the profile's lengths.
    pub fn new(profile: SrtpProfile, master: &MasterKey) -> SrtpRx {
        SrtpRx::on(CryptoPath::best(), profile, master)
    }

    /// The same, on a path of the caller's choosing.
    ///
    /// # Panics
    /// Unless key and salt have the profile's lengths.
    pub fn on(path: CryptoPath, profile: SrtpProfile, master: &MasterKey) -> SrtpRx {
        SrtpRx {
            rtp: Transform::for_rtp(path, profile, master),
            rtcp: Transform::for_rtcp(path, profile, master),
            rtp_streams: RtpStreams::new(),
            rtcp_streams: RtcpStreams::new(),
        }
    }

    /// What it runs on.
    pub fn path(&self) -> CryptoPath {
        self.rtp.path()
    }

    /// Opens a packet in place, whose header of `header_len` bytes says `ssrc` and `seq`. Returns its
    /// index and the length of the plaintext packet (header included).
    ///
    /// On error the bytes behind the header may be spoilt, and nothing else has changed.
    ///
    /// # Errors
    /// [`DropReason::TooShort`], [`DropReason::Replayed`], [`DropReason::IndexExhausted`],
    /// [`DropReason::BadAuthTag`]; [`DropReason::SsrcLimit`] for an authentic packet of one SSRC too many.
    ///
    /// # Panics
    /// In debug builds, when `ssrc` or `seq` is not what the bytes say.
    pub fn unprotect_rtp(
        &mut self,
        ssrc: Ssrc,
        seq: u16,
        header_len: usize,
        bytes: &mut [u8],
    ) -> Result<(PacketIndex, usize), DropReason> {
        let len = bytes.len().checked_sub(self.rtp.tag_len()).ok_or(DropReason::TooShort)?;
        if header_len < RTP_HEADER_LEN_MIN || header_len > len {
            return Err(DropReason::TooShort);
        }
        // CM's tag covers header and ROC: with an SSRC and a sequence number that are not the header's it
        // would verify, and the replay window would be that of another packet.
        debug_assert_eq!((ssrc.0, &bytes[2..4]), (u32_at(bytes, 8), &seq.to_be_bytes()[..]), "the header's");
        let place = self.rtp_streams.find(ssrc);
        let index = match self.rtp_streams.highest(place) {
            Some(highest) => PacketIndex(highest).nearest(seq).ok_or(DropReason::IndexExhausted)?,
            // A stream starts at ROC 0 (RFC 3711 §3.3.1).
            None => PacketIndex(seq.into()),
        };
        if self.rtp_streams.has_seen(place, index.0) {
            return Err(DropReason::Replayed);
        }
        match &self.rtp {
            Transform::Gcm(gcm) => gcm.open_rtp(ssrc, index.0, header_len, bytes)?,
            Transform::CmSha1(cm) => cm.open_rtp(ssrc, index.0, header_len, bytes)?,
            #[cfg(feature = "tools")]
            Transform::Plaintext => {}
        }
        self.rtp_streams.accept(place, ssrc, index.0)?;
        Ok((index, len))
    }

    /// Opens a compound packet in place. Returns the length of the plaintext.
    ///
    /// RFC 3711 §3.4 lets a sender leave SRTCP unencrypted, packet by packet; the profiles of RFC 5764
    /// encrypt it, browsers do, and so a clear E bit is taken for forgery.
    ///
    /// On error the bytes behind the header may be spoilt, and nothing else has changed.
    ///
    /// # Errors
    /// [`DropReason::TooShort`], [`DropReason::SrtcpUnencrypted`], [`DropReason::Replayed`],
    /// [`DropReason::BadAuthTag`]; [`DropReason::SsrcLimit`] for an authentic packet of one SSRC too many.
    pub fn unprotect_rtcp(&mut self, bytes: &mut [u8]) -> Result<usize, DropReason> {
        let overhead = self.rtcp.tag_len() + RTCP_INDEX_LEN;
        let len = bytes.len().checked_sub(overhead).ok_or(DropReason::TooShort)?;
        if len < RTCP_HEADER_LEN {
            return Err(DropReason::TooShort);
        }
        let index_word = match &self.rtcp {
            Transform::Gcm(_) => u32_at(bytes, bytes.len() - RTCP_INDEX_LEN),
            Transform::CmSha1(_) => u32_at(bytes, len),
            #[cfg(feature = "tools")]
            Transform::Plaintext => u32_at(bytes, len),
        };
        if index_word & E_BIT == 0 {
            return Err(DropReason::SrtcpUnencrypted);
        }
        let index = index_word & !E_BIT;
        let ssrc = Ssrc(u32_at(bytes, 4));
        let place = self.rtcp_streams.find(ssrc);
        if self.rtcp_streams.has_seen(place, index.into()) {
            return Err(DropReason::Replayed);
        }
        match &self.rtcp {
            Transform::Gcm(gcm) => gcm.open_rtcp(ssrc, index, bytes)?,
            Transform::CmSha1(cm) => cm.open_rtcp(ssrc, index, bytes)?,
            #[cfg(feature = "tools")]
            Transform::Plaintext => {}
        }
        self.rtcp_streams.accept(place, ssrc, index.into())?;
        Ok(len)
    }
}

/// What one session key does; SRTP and SRTCP of a direction have one each.
enum Transform {
    Gcm(Gcm),
    CmSha1(CmSha1),
    /// Nothing at all. The server is built without it.
    #[cfg(feature = "tools")]
    Plaintext,
}

impl Transform {
    fn for_rtp(path: CryptoPath, profile: SrtpProfile, master: &MasterKey) -> Transform {
        Transform::new(path, profile, master, Label::RtpKey, Label::RtpAuth, Label::RtpSalt)
    }

    fn for_rtcp(path: CryptoPath, profile: SrtpProfile, master: &MasterKey) -> Transform {
        Transform::new(path, profile, master, Label::RtcpKey, Label::RtcpAuth, Label::RtcpSalt)
    }

    fn new(
        path: CryptoPath,
        profile: SrtpProfile,
        master: &MasterKey,
        key: Label,
        auth: Label,
        salt: Label,
    ) -> Transform {
        assert_eq!(master.key.len(), profile.key_len(), "master key of {profile:?}");
        assert_eq!(master.salt.len(), profile.salt_len(), "master salt of {profile:?}");
        match profile {
            SrtpProfile::AeadAes128Gcm => {
                Transform::Gcm(Gcm::new(path, &derive::<16>(master, key)[..], &derive(master, salt)))
            }
            SrtpProfile::AeadAes256Gcm => {
                Transform::Gcm(Gcm::new(path, &derive::<32>(master, key)[..], &derive(master, salt)))
            }
            SrtpProfile::AesCm128HmacSha1_80 => Transform::CmSha1(CmSha1::new(
                path,
                &derive(master, key),
                &derive(master, auth),
                &derive(master, salt),
            )),
        }
    }

    fn path(&self) -> CryptoPath {
        match self {
            Transform::Gcm(gcm) => gcm.path(),
            Transform::CmSha1(cm) => cm.path(),
            #[cfg(feature = "tools")]
            Transform::Plaintext => CryptoPath::Portable,
        }
    }

    fn tag_len(&self) -> usize {
        match self {
            Transform::Gcm(_) => gcm::TAG_LEN,
            Transform::CmSha1(_) => cm_sha1::TAG_LEN,
            #[cfg(feature = "tools")]
            Transform::Plaintext => 0,
        }
    }
}

/// Four bytes at `at`, which the caller has checked to be there.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::vector::{self, Ctr, HmacSha1};

    const SSRC: Ssrc = Ssrc(0xDECA_FBAD);

    fn master(profile: SrtpProfile) -> MasterKey {
        MasterKey {
            key: Zeroizing::new((0..profile.key_len() as u8).collect()),
            salt: Zeroizing::new((0xA0..0xA0 + profile.salt_len() as u8).collect()),
        }
    }

    /// What this processor is at its best with, and what runs on any.
    fn paths_and_profiles() -> impl Iterator<Item = (CryptoPath, SrtpProfile)> {
        let paths = [CryptoPath::best(), CryptoPath::Portable];
        paths.into_iter().flat_map(|path| SrtpProfile::ALL.into_iter().map(move |profile| (path, profile)))
    }

    fn pair(path: CryptoPath, profile: SrtpProfile) -> (SrtpTx, SrtpRx) {
        (SrtpTx::on(path, profile, &master(profile)), SrtpRx::on(path, profile, &master(profile)))
    }

    fn header(ssrc: Ssrc, seq: u16) -> [u8; 12] {
        let mut header = [0x80, 111, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0];
        header[2..4].copy_from_slice(&seq.to_be_bytes());
        header[8..].copy_from_slice(&ssrc.0.to_be_bytes());
        header
    }

    fn sealed(tx: &mut SrtpTx, ssrc: Ssrc, index: u64) -> Vec<u8> {
        let index = PacketIndex(index);
        let mut out = [0; 200];
        let len = tx.protect_rtp(index, &header(ssrc, index.seq()), b"a voice", &mut out).unwrap();
        out[..len].to_vec()
    }

    fn open(rx: &mut SrtpRx, mut bytes: Vec<u8>) -> Result<u64, DropReason> {
        let (ssrc, seq) = (Ssrc(u32_at(&bytes, 8)), u16::from_be_bytes([bytes[2], bytes[3]]));
        let (index, len) = rx.unprotect_rtp(ssrc, seq, 12, &mut bytes)?;
        assert_eq!(&bytes[..12], header(ssrc, seq));
        assert_eq!(&bytes[12..len], b"a voice");
        Ok(index.0)
    }

    fn rtcp(ssrc: Ssrc) -> Vec<u8> {
        [&[0x80, 201, 0, 1][..], &ssrc.0.to_be_bytes(), b"a report"].concat()
    }

    fn sealed_rtcp(tx: &mut SrtpTx, ssrc: Ssrc) -> Vec<u8> {
        let mut out = [0; 100];
        let len = tx.protect_rtcp(&rtcp(ssrc), &mut out).unwrap();
        out[..len].to_vec()
    }

    fn open_rtcp(rx: &mut SrtpRx, mut bytes: Vec<u8>) -> Result<(), DropReason> {
        let len = rx.unprotect_rtcp(&mut bytes)?;
        assert_eq!(bytes[..len], rtcp(Ssrc(u32_at(&bytes, 4))));
        Ok(())
    }

    #[test]
    fn what_is_protected_opens_once() {
        for (path, profile) in paths_and_profiles() {
            let (mut tx, mut rx) = pair(path, profile);
            for index in [5, 4, 7, 6, 70] {
                let packet = sealed(&mut tx, SSRC, index);
                assert_eq!(open(&mut rx, packet.clone()), Ok(index));
                assert_eq!(open(&mut rx, packet), Err(DropReason::Replayed));
            }
            for ssrc in [SSRC, Ssrc(1), SSRC] {
                let packet = sealed_rtcp(&mut tx, ssrc);
                assert_eq!(open_rtcp(&mut rx, packet.clone()), Ok(()));
                assert_eq!(open_rtcp(&mut rx, packet), Err(DropReason::Replayed));
            }
        }
    }

    #[test]
    fn the_index_follows_across_the_wrap_and_back() {
        for (path, profile) in paths_and_profiles() {
            let (mut tx, mut rx) = pair(path, profile);
            for index in [65_530, 65_536, 65_535, 65_538, 65_537, 65_534, 90_000, 120_000, 131_080, 131_071] {
                let packet = sealed(&mut tx, SSRC, index);
                assert_eq!(open(&mut rx, packet), Ok(index), "{path:?} {profile:?}");
            }
        }
    }

    #[test]
    fn a_packet_of_another_round_does_not_verify() {
        for (path, profile) in paths_and_profiles() {
            let (mut tx, mut rx) = pair(path, profile);
            let far = sealed(&mut tx, SSRC, (3 << 16) + 9);
            assert_eq!(open(&mut rx, far), Err(DropReason::BadAuthTag));
        }
    }

    /// Forgeries of every sort leave the receiver as it was, down to the size of its tables.
    #[test]
    fn nothing_changes_before_the_tag_verifies() {
        for (path, profile) in paths_and_profiles() {
            let (mut tx, mut rx) = pair(path, profile);
            for forged in 0..1000_u32 {
                let mut packet = sealed(&mut tx, Ssrc(forged), 77);
                *packet.last_mut().unwrap() ^= 1;
                assert_eq!(open(&mut rx, packet), Err(DropReason::BadAuthTag));
                let mut packet = sealed_rtcp(&mut tx, Ssrc(forged));
                packet[9] ^= 1;
                assert_eq!(open_rtcp(&mut rx, packet), Err(DropReason::BadAuthTag));
            }
            assert_eq!(rx.rtp_streams.find(Ssrc(7)), super::super::streams::Place::New);
            assert_eq!(rx.rtcp_streams.find(Ssrc(7)), super::super::streams::Place::New);

            assert_eq!(open(&mut rx, sealed(&mut tx, SSRC, 100)), Ok(100));
            let next = sealed(&mut tx, SSRC, 101);
            // A forged jump forward would push 101 out of the window, or move the ROC.
            for seq in [101_u16, 1200, 30_000, 32_867, 40_000, 65_535] {
                let mut packet = sealed(&mut tx, SSRC, 100_000 + u64::from(seq));
                packet[2..4].copy_from_slice(&seq.to_be_bytes());
                assert_eq!(open(&mut rx, packet), Err(DropReason::BadAuthTag), "{seq}");
            }
            assert_eq!(open(&mut rx, next), Ok(101));
        }
    }

    #[test]
    fn rtp_window_is_1024_and_rtcp_window_128() {
        let (mut tx, mut rx) = pair(CryptoPath::best(), SrtpProfile::AeadAes128Gcm);
        let packets: Vec<_> = (0..=1024).map(|i| sealed(&mut tx, SSRC, 2000 + i)).collect();
        assert_eq!(open(&mut rx, packets[1024].clone()), Ok(3024));
        assert_eq!(open(&mut rx, packets[1].clone()), Ok(2001));
        assert_eq!(open(&mut rx, packets[0].clone()), Err(DropReason::Replayed));

        let reports: Vec<_> = (0..=128).map(|_| sealed_rtcp(&mut tx, SSRC)).collect();
        assert_eq!(open_rtcp(&mut rx, reports[128].clone()), Ok(()));
        assert_eq!(open_rtcp(&mut rx, reports[1].clone()), Ok(()));
        assert_eq!(open_rtcp(&mut rx, reports[0].clone()), Err(DropReason::Replayed));
    }

    #[test]
    fn a_clear_e_bit_is_refused_even_with_a_valid_tag() {
        use super::super::vectors::vector;
        for (path, profile) in paths_and_profiles() {
            let (mut tx, mut rx) = pair(path, profile);
            let tagged = match profile {
                SrtpProfile::AeadAes128Gcm => Some(("key_128", "tagged_128")),
                SrtpProfile::AeadAes256Gcm => Some(("key_256", "tagged_256")),
                SrtpProfile::AesCm128HmacSha1_80 => None,
            };
            if let Some((key, packet)) = tagged {
                let (_, mut rx) = pair(path, profile);
                let salt = vector("rfc7714_16", "salt").try_into().unwrap();
                rx.rtcp = Transform::Gcm(Gcm::new(path, &vector("rfc7714_16", key), &salt));
                let mut bytes = vector("rfc7714_17", packet);
                assert_eq!(rx.unprotect_rtcp(&mut bytes), Err(DropReason::SrtcpUnencrypted));
            }
            let mut packet = sealed_rtcp(&mut tx, SSRC);
            let at = packet.len() - if profile == SrtpProfile::AesCm128HmacSha1_80 { 14 } else { 4 };
            packet[at] &= 0x7F;
            assert_eq!(open_rtcp(&mut rx, packet), Err(DropReason::SrtcpUnencrypted));
        }
    }

    #[test]
    fn short_packets_are_refused_by_length_alone() {
        for (path, profile) in paths_and_profiles() {
            let (mut tx, mut rx) = pair(path, profile);
            let rtp_len_min = 12 + tx.rtp.tag_len();
            for len in 0..rtp_len_min {
                let opened = rx.unprotect_rtp(SSRC, 0, 12, &mut vec![0x80; len]);
                assert_eq!(opened, Err(DropReason::TooShort));
            }
            for header_len in [0, 11, 13, usize::MAX] {
                let opened = rx.unprotect_rtp(SSRC, 0, header_len, &mut vec![0x80; rtp_len_min]);
                assert_eq!(opened, Err(DropReason::TooShort));
            }
            for len in 0..8 + 4 + tx.rtcp.tag_len() {
                assert_eq!(rx.unprotect_rtcp(&mut vec![0xFF; len]), Err(DropReason::TooShort));
            }
            // The shortest there are: no payload, and a header with an SSRC.
            let mut out = [0; 64];
            let len = tx.protect_rtp(PacketIndex(3), &header(SSRC, 3), &[], &mut out).unwrap();
            assert_eq!(rx.unprotect_rtp(SSRC, 3, 12, &mut out[..len]), Ok((PacketIndex(3), 12)));
            let len = tx.protect_rtcp(&rtcp(SSRC)[..8], &mut out).unwrap();
            assert_eq!(rx.unprotect_rtcp(&mut out[..len]), Ok(8));
        }
    }

    #[test]
    fn what_does_not_fit_is_not_sealed() {
        for (path, profile) in paths_and_profiles() {
            let (mut tx, _) = pair(path, profile);
            let len = 12 + 5 + tx.rtp.tag_len();
            let short = tx.protect_rtp(PacketIndex(1), &header(SSRC, 1), &[0; 5], &mut vec![0; len - 1]);
            assert_eq!(short, Err(DropReason::TooLong));
            // The index is still to be had.
            let fits = tx.protect_rtp(PacketIndex(1), &header(SSRC, 1), &[0; 5], &mut vec![0; len]);
            assert_eq!(fits, Ok(len));
            let stub = tx.protect_rtp(PacketIndex(2), &header(SSRC, 2)[..11], &[0; 5], &mut [0; 64]);
            assert_eq!(stub, Err(DropReason::RtpMalformed));

            let len = rtcp(SSRC).len() + 4 + tx.rtcp.tag_len();
            assert_eq!(tx.protect_rtcp(&rtcp(SSRC), &mut vec![0; len - 1]), Err(DropReason::TooLong));
            assert_eq!(tx.protect_rtcp(&rtcp(SSRC), &mut vec![0; len]), Ok(len));
            assert_eq!(tx.protect_rtcp(&rtcp(SSRC)[..7], &mut [0; 64]), Err(DropReason::RtcpMalformed));
        }
    }

    #[test]
    fn indices_end() {
        for (path, profile) in paths_and_profiles() {
            let (mut tx, mut rx) = pair(path, profile);
            tx.rtcp_index = (1 << 31) - 1;
            let last = sealed_rtcp(&mut tx, SSRC);
            assert_eq!(open_rtcp(&mut rx, last), Ok(()));
            for _ in 0..2 {
                let beyond = tx.protect_rtcp(&rtcp(SSRC), &mut [0; 64]);
                assert_eq!(beyond, Err(DropReason::IndexExhausted));
            }

            let last = sealed(&mut tx, SSRC, PacketIndex::MAX.0);
            let beyond = tx.protect_rtp(PacketIndex(1 << 48), &header(SSRC, 0), &[], &mut [0; 64]);
            assert_eq!(beyond, Err(DropReason::IndexExhausted));
            let near = PacketIndex::MAX.0 - 9;
            rx.rtp_streams.accept(rx.rtp_streams.find(SSRC), SSRC, near).unwrap();
            assert_eq!(open(&mut rx, last.clone()), Ok(PacketIndex::MAX.0));
            let mut wrapped = last;
            wrapped[2..4].copy_from_slice(&[0, 0]);
            assert_eq!(open(&mut rx, wrapped), Err(DropReason::IndexExhausted));
        }
    }

    #[test]
    fn one_ssrc_too_many_is_refused_and_the_others_live_on() {
        let (mut tx, mut rx) = pair(CryptoPath::best(), SrtpProfile::AeadAes128Gcm);
        let most = 16 + super::super::streams::RETIRED_MAX as u32;
        for ssrc in 0..most {
            assert_eq!(open(&mut rx, sealed(&mut tx, Ssrc(ssrc), 1)), Ok(1));
        }
        assert_eq!(open(&mut rx, sealed(&mut tx, Ssrc(most), 1)), Err(DropReason::SsrcLimit));
        // The first to come was retired long ago: nothing of it can be replayed.
        assert_eq!(open(&mut rx, sealed(&mut tx, Ssrc(0), 0)), Err(DropReason::Replayed));
        assert_eq!(open(&mut rx, sealed(&mut tx, Ssrc(0), 2)), Ok(2));
    }

    /// `AUDIO_SLOTS` may be 256.
    #[test]
    fn a_browser_may_report_on_each_slot_under_an_ssrc_of_its_own() {
        let (mut tx, mut rx) = pair(CryptoPath::best(), SrtpProfile::AeadAes128Gcm);
        for ssrc in (0..=256).chain(0..=256) {
            let mut out = [0; 64];
            let len = tx.protect_rtcp(&rtcp(Ssrc(ssrc)), &mut out).unwrap();
            assert!(rx.unprotect_rtcp(&mut out[..len]).is_ok(), "{ssrc}");
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "a second time")]
    fn an_index_used_twice_panics_in_debug_builds() {
        let (mut tx, _) = pair(CryptoPath::best(), SrtpProfile::AeadAes128Gcm);
        for index in [1, 2, 3, 2] {
            sealed(&mut tx, SSRC, index);
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "sequence number")]
    fn an_index_that_is_not_the_headers_panics_in_debug_builds() {
        let (mut tx, _) = pair(CryptoPath::best(), SrtpProfile::AeadAes128Gcm);
        let _ = tx.protect_rtp(PacketIndex(1), &header(SSRC, 2), &[], &mut [0; 64]);
    }

    #[test]
    #[should_panic(expected = "master salt")]
    fn a_salt_of_another_profile_is_our_fault() {
        SrtpTx::new(SrtpProfile::AeadAes128Gcm, &master(SrtpProfile::AesCm128HmacSha1_80));
    }

    /// Both directions of a peer, with one stream each, keep far below the 32 KiB of a connected peer.
    #[test]
    fn a_context_is_small() {
        assert!(size_of::<SrtpTx>() <= 256, "{}", size_of::<SrtpTx>());
        assert!(size_of::<SrtpRx>() <= 256, "{}", size_of::<SrtpRx>());
        // Behind a box each, four times a peer.
        assert!(size_of::<vector::Gcm>() <= 640, "{}", size_of::<vector::Gcm>());
        assert!(size_of::<(Ctr, HmacSha1)>() <= 640, "{}", size_of::<(Ctr, HmacSha1)>());
    }
}
