//! Several packets sealed with AES in counter mode and HMAC-SHA1 (RFC 3711 §4), four hashes side by side: those of one
//! packet's receivers have one length.

use super::Job;
use super::sha1::{DIGEST_LEN, HmacSha1, step_count};

/// Hashes side by side: more find no registers.
const LANE_COUNT: usize = 4;

/// Seals every job. Those that need equally many steps of the hash gain by being neighbours.
///
/// # Panics
/// When an `out` is not as long as header, payload and tag, which is what of the digest is wanted: 20 bytes at most.
pub fn seal_many(jobs: &mut [Job<'_>]) {
    for job in &mut *jobs {
        let authenticated_len = job.header.len() + job.payload.len();
        assert!(
            (authenticated_len..=authenticated_len + DIGEST_LEN).contains(&job.out.len()),
            "room for all of it"
        );
        let (header, out) = job.out.split_at_mut(job.header.len());
        header.copy_from_slice(job.header);
        job.cipher.apply(job.iv, job.payload, &mut out[..job.payload.len()]);
    }
    let mut rest = jobs;
    while let [first, ..] = rest {
        let steps = step_count_of(first);
        let is_full =
            rest.len() >= LANE_COUNT && rest[1..LANE_COUNT].iter().all(|job| step_count_of(job) == steps);
        let (lanes, others) = rest.split_at_mut(if is_full { LANE_COUNT } else { 1 });
        match lanes.first_chunk_mut::<LANE_COUNT>() {
            Some(lanes) => tag(lanes),
            None => lanes.as_chunks_mut::<1>().0.iter_mut().for_each(tag),
        }
        rest = others;
    }
}

fn step_count_of(job: &Job<'_>) -> usize {
    step_count(job.header.len() + job.payload.len() + job.end.len())
}

fn tag<const N: usize>(jobs: &mut [Job<'_>; N]) {
    let digests = HmacSha1::digests(
        jobs.each_ref().map(|job| job.mac),
        jobs.each_ref().map(|job| &job.out[..job.header.len() + job.payload.len()]),
        jobs.each_ref().map(|job| &job.end[..]),
    );
    for (job, digest) in jobs.iter_mut().zip(digests) {
        let tag = &mut job.out[job.header.len() + job.payload.len()..];
        tag.copy_from_slice(&digest[..tag.len()]);
    }
}
