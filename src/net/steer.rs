//! Several workers on one port: a classic BPF program (unprivileged) gives a peer's first Binding
//! requests to the worker that the ICE user name names.
//!
//! It runs in the kernel for each datagram and says which socket of the group gets it. A number that no
//! socket has leaves the choice to the kernel, which spreads 5-tuples by a hash.

use std::io;
use std::mem;
use std::os::fd::RawFd;

/// No socket's number.
const BY_HASH: u32 = u32::MAX;

/// STUN Binding request (RFC 8489 §5).
const BINDING_REQUEST: u32 = 0x0001;
/// RFC 8489 §5.
const MAGIC_COOKIE: u32 = 0x2112_A442;
/// RFC 8489 §14.3.
const USERNAME: u32 = 0x0006;

/// Where the pieces are: message type, cookie, then behind the 20-byte header the first attribute's
/// type, length and value (RFC 8489 §5, §14).
const TYPE_AT: u32 = 0;
const COOKIE_AT: u32 = 4;
const ATTRIBUTE_AT: u32 = 20;
const VALUE_AT: u32 = 24;

/// The instructions; jumps count from the next one. Our ufrag comes first in USERNAME (RFC 8445 §7.2.2),
/// and its first character is the owner's number in base64url (RFC 4648 §5).
const PROGRAM: &[libc::sock_filter] = &[
    // A load past the end would end the program with 0, which is a worker.
    load(libc::BPF_W | libc::BPF_LEN, 0),
    jump(libc::BPF_JGE, VALUE_AT + 1, 0, 21),
    load(libc::BPF_H | libc::BPF_ABS, TYPE_AT),
    jump(libc::BPF_JEQ, BINDING_REQUEST, 0, 19),
    load(libc::BPF_W | libc::BPF_ABS, COOKIE_AT),
    jump(libc::BPF_JEQ, MAGIC_COOKIE, 0, 17),
    load(libc::BPF_H | libc::BPF_ABS, ATTRIBUTE_AT),
    jump(libc::BPF_JEQ, USERNAME, 0, 15),
    load(libc::BPF_B | libc::BPF_ABS, VALUE_AT),
    // a-z: 26 to 51
    jump(libc::BPF_JGE, b'a' as u32, 0, 3),
    jump(libc::BPF_JGT, b'z' as u32, 12, 0),
    add(26_u32.wrapping_sub(b'a' as u32)),
    answer_accumulator(),
    // A-Z: 0 to 25
    jump(libc::BPF_JGE, b'A' as u32, 0, 3),
    jump(libc::BPF_JGT, b'Z' as u32, 6, 0),
    add(0_u32.wrapping_sub(b'A' as u32)),
    answer_accumulator(),
    // 0-9: 52 to 61
    jump(libc::BPF_JGE, b'0' as u32, 0, 4),
    jump(libc::BPF_JGT, b'9' as u32, 4, 0),
    add(52 - b'0' as u32),
    answer_accumulator(),
    // _: 63, -: 62
    jump(libc::BPF_JEQ, b'_' as u32, 2, 1),
    jump(libc::BPF_JEQ, b'-' as u32, 2, 0),
    answer(BY_HASH),
    answer(63),
    answer(62),
];

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

const fn load(what: u32, offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | what, 0, 0, offset)
}

const fn jump(test: u32, operand: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, if_true, if_false, operand)
}

const fn add(operand: u32) -> libc::sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, 0, 0, operand)
}

const fn answer(value: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value)
}

const fn answer_accumulator() -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_A, 0, 0, 0)
}

/// Attaches the program to the group of sockets that `fd` shares its port with.
///
/// # Errors
/// When the kernel has no such option or no memory for it.
pub(super) fn attach(fd: RawFd) -> io::Result<()> {
    let program =
        libc::sock_fprog { len: PROGRAM.len() as libc::c_ushort, filter: PROGRAM.as_ptr().cast_mut() };
    let len = mem::size_of_val(&program) as libc::socklen_t;
    let option = libc::SO_ATTACH_REUSEPORT_CBPF;
    // SAFETY: `program` is alive and of `len` bytes; the kernel copies the instructions and writes nothing.
    let result = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const program).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would make of it: enough of classic BPF for the program above.
    fn evaluate(packet: &[u8]) -> u32 {
        let (mut accumulator, mut pc) = (0_u32, 0_usize);
        loop {
            let libc::sock_filter { code, jt, jf, k } = PROGRAM[pc];
            let code = u32::from(code);
            pc += 1;
            let at = |len: usize| packet.get(k as usize..k as usize + len);
            match code & 0x07 {
                libc::BPF_LD => {
                    let loaded = match code & 0xF8 {
                        c if c == libc::BPF_W | libc::BPF_LEN => Some(packet.len() as u32),
                        c if c == libc::BPF_W | libc::BPF_ABS => {
                            at(4).map(|b| u32::from_be_bytes(b.try_into().unwrap()))
                        }
                        c if c == libc::BPF_H | libc::BPF_ABS => {
                            at(2).map(|b| u16::from_be_bytes(b.try_into().unwrap()).into())
                        }
                        _ => at(1).map(|b| b[0].into()),
                    };
                    let Some(loaded) = loaded else { return 0 };
                    accumulator = loaded;
                }
                libc::BPF_JMP => {
                    let is_true = match code & 0xF0 {
                        libc::BPF_JEQ => accumulator == k,
                        libc::BPF_JGE => accumulator >= k,
                        _ => accumulator > k,
                    };
                    pc += usize::from(if is_true { jt } else { jf });
                }
                libc::BPF_ALU => accumulator = accumulator.wrapping_add(k),
                _ if code & libc::BPF_A != 0 => return accumulator,
                _ => return k,
            }
        }
    }

    fn binding_request(first: u8) -> Vec<u8> {
        let mut packet = vec![0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42];
        packet.extend([9; 12]);
        packet.extend([0, 6, 0, 4, first, b'x', b':', b'y']);
        packet
    }

    #[test]
    fn every_character_has_its_number() {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        for byte in 0..=255 {
            let expected = alphabet.iter().position(|c| *c == byte).map_or(BY_HASH, |index| index as u32);
            assert_eq!(evaluate(&binding_request(byte)), expected, "{byte}");
        }
    }

    #[test]
    fn anything_else_is_left_to_the_hash() {
        let request = binding_request(b'A');
        for len in 0..25 {
            assert_eq!(evaluate(&request[..len]), BY_HASH, "{len}");
        }
        assert_eq!(evaluate(&request[..25]), 0);
        for place in [0, 1, 4, 7, 20, 21] {
            let mut other = request.clone();
            other[place] ^= 0x80;
            assert_eq!(evaluate(&other), BY_HASH, "{place}");
        }
    }
}
