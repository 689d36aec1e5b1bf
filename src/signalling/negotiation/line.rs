//! m-lines as both sides agreed on them. Index and tag stay for ever.

use super::Voice;
use crate::ids::{Mid, PayloadType, SlotIndex, Ssrc, TrackId};
use crate::rtp::extension::ExtensionIds;
use crate::sdp::{Extensions, Format, Opus, remote};
use crate::worker::command::PublishedStream;

/// An m-line.
pub(super) struct Line {
    /// Only a rejected m-line can lack it.
    pub(super) mid: Option<Mid>,
    pub(super) format: Format,
    /// `None` once rejected by either side. Then the next offer of either side may put a new m-line, with a tag of
    /// its own, in its place (RFC 8829 §5.2.2).
    pub(super) audio: Option<Audio>,
}

/// An m-line in use.
pub(super) struct Audio {
    pub(super) opus: Opus,
    pub(super) extensions: Extensions,
    /// What the client sends with, as far as it said.
    pub(super) ssrcs: Vec<Ssrc>,
    /// The client would send here.
    pub(super) client_sends: bool,
    /// The client would receive here.
    pub(super) client_receives: bool,
    /// Agreed: the client sends and we listen.
    pub(super) is_receiving: bool,
    /// Made by an offer of ours.
    pub(super) is_ours: bool,
    /// Once there, it stays until the client receives here no longer: then another m-line may have it.
    pub(super) slot: Option<SlotLine>,
}

/// An m-line's slot.
pub(super) struct SlotLine {
    pub(super) index: SlotIndex,
    /// Of its SSRC, counted from the transport's first. A new one each time that it is taken up.
    pub(super) ssrc_number: u32,
    /// Agreed: we send, and `a=msid` names this voice.
    pub(super) voice: Option<Voice>,
    /// The worker's number for Opus, once it knows the slot.
    pub(super) added: Option<PayloadType>,
    /// The worker's SSRC, by number.
    pub(super) added_ssrc_number: u32,
    /// What the worker sends on it, as far as we know.
    pub(super) source: Option<TrackId>,
    /// What the client was told that it carries.
    pub(super) told: Option<TrackId>,
}

impl Line {
    /// A new m-line of the client's.
    pub(super) fn of(media: &remote::Media) -> Line {
        let audio = media.is_usable().then(|| media.opus(None)).flatten().map(|opus| Audio {
            opus,
            extensions: media.extensions,
            ssrcs: media.ssrcs.clone(),
            client_sends: media.direction.sends(),
            client_receives: media.direction.receives(),
            is_receiving: false,
            is_ours: false,
            slot: None,
        });
        Line { mid: media.mid, format: media.format, audio }
    }

    /// A new m-line of ours.
    pub(super) fn ours(mid: Mid, opus: Opus, extensions: Extensions) -> Line {
        let audio = Audio {
            opus,
            extensions,
            ssrcs: Vec::new(),
            client_sends: false,
            client_receives: true,
            is_receiving: false,
            is_ours: true,
            slot: None,
        };
        Line { mid: Some(mid), format: Format::AUDIO, audio: Some(audio) }
    }

    /// The same m-line in a later description.
    pub(super) fn check(&self, media: &remote::Media) -> Result<(), &'static str> {
        // A rejected one may have lost its tag.
        let is_same = media.mid == self.mid || (media.is_rejected && media.mid.is_none());
        if !is_same {
            return Err("an m-line changed its a=mid");
        }
        (media.format.kind == self.format.kind).then_some(()).ok_or("an m-line changed its kind")
    }

    /// A new m-line of ours may take its place.
    pub(super) fn is_reusable(&self) -> bool {
        self.audio.is_none() && self.format.kind == Format::AUDIO.kind
    }

    pub(super) fn slot(&self) -> Option<&SlotLine> {
        self.audio.as_ref()?.slot.as_ref()
    }

    pub(super) fn slot_mut(&mut self) -> Option<&mut SlotLine> {
        self.audio.as_mut()?.slot.as_mut()
    }

    /// What the client publishes here, if that is agreed.
    pub(super) fn published(&self) -> Option<PublishedStream> {
        let audio = self.audio.as_ref().filter(|audio| audio.is_receiving)?;
        Some(PublishedStream {
            mid: self.mid?,
            // Any other m-line on which the client would send was answered without our listening.
            is_only: true,
            ssrcs: audio.ssrcs.clone(),
            payload_type: audio.opus.payload_type,
            extensions: extension_ids(&audio.extensions),
        })
    }
}

impl Audio {
    /// Opus among the client's formats, with the number agreed before if that is still there.
    /// `None` where the worker already sends with a number that is not.
    pub(super) fn opus_of(&self, media: &remote::Media) -> Option<Opus> {
        let opus = media.opus(Some(self.opus.payload_type))?;
        let added = self.slot.as_ref().and_then(|slot| slot.added);
        added.is_none_or(|added| added == opus.payload_type).then_some(opus)
    }
}

pub(super) fn extension_ids(extensions: &Extensions) -> ExtensionIds {
    let Extensions { audio_level, mid, abs_capture_time } = *extensions;
    ExtensionIds { audio_level, mid, abs_capture_time }
}
