//! Hexadecimal digits.

/// `bytes` in lower-case hexadecimal.
pub fn hex(bytes: [u8; 16]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        let digit = |nibble: u8| DIGITS[usize::from(nibble & 0xf)];
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte)]);
    }
    digits
}
