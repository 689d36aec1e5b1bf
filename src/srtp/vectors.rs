//! Reads `tests/vectors/srtp.txt`.

const TEXT: &str = include_str!("../../tests/vectors/srtp.txt");

/// The bytes of one named value.
pub(super) fn vector(section: &str, name: &str) -> Vec<u8> {
    let (_, text) = TEXT.split_once(&format!("\n[{section}]\n")).expect("a section of that name");
    let section = text.split_once("\n[").map_or(text, |(section, _)| section);
    let text = section
        .split_inclusive('\n')
        .filter(|line| !line.starts_with('#'))
        .collect::<String>()
        .replace("\n ", " ");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
    let digits: Vec<u8> = value
        .expect("a value of that name")
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
