//! Sample messages of RFC 5769 §2.1 to §2.3, in hexadecimal: header, then one attribute a line.

/// Password of all three.
pub(crate) const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

/// §2.1: a Binding request of `evtj:h6vY`.
pub(crate) const REQUEST: &str = "
000100582112a442b7e7a701bc34d686fa87dfae
80220010 5354554e207465737420636c69656e74
00240004 6e0001ff
80290008 932ff9b151263b36
00060009 6576746a3a68367659202020
00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
80280004 e57a3bcf
";

/// §2.2: a success response to `192.0.2.1:32853`.
pub(crate) const RESPONSE_IPV4: &str = "
0101003c2112a442b7e7a701bc34d686fa87dfae
8022000b 7465737420766563746f7220
00200008 0001a147e112a643
00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7
80280004 c07d4c96
";

/// §2.3: a success response to `[2001:db8:1234:5678:11:2233:4455:6677]:32853`.
pub(crate) const RESPONSE_IPV6: &str = "
010100482112a442b7e7a701bc34d686fa87dfae
8022000b 7465737420766563746f7220
00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9
00080014 a382954e4be67bf11784c97c8292c275bfe3ed41
80280004 c8fb0b4c
";

/// The bytes of a message.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
