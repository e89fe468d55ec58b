//! Checksums that an input may demand: the file must hash to it, or it is not packed.

use std::fmt;
use std::str::FromStr;

use desfmt::Digest;
use sha2::Digest as _;

/// What a content must hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// By BLAKE3.
    Blake3([u8; 32]),
    /// By SHA-256.
    Sha256([u8; 32]),
    /// By MD5: against damage only, anybody can forge it.
    Md5([u8; 16]),
}

/// How a checksum is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumAlgorithm {
    /// BLAKE3.
    Blake3,
    /// SHA-256.
    Sha256,
    /// MD5.
    Md5,
}

impl ChecksumAlgorithm {
    /// Takes the bytes of a checksum; `None` where there are too many or too few.
    pub fn checksum(self, bytes: &[u8]) -> Option<Checksum> {
        Some(match self {
            Self::Blake3 => Checksum::Blake3(bytes.try_into().ok()?),
            Self::Sha256 => Checksum::Sha256(bytes.try_into().ok()?),
            Self::Md5 => Checksum::Md5(bytes.try_into().ok()?),
        })
    }
}

impl FromStr for ChecksumAlgorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "blake3" => Ok(Self::Blake3),
            "sha256" => Ok(Self::Sha256),
            "md5" => Ok(Self::Md5),
            other => Err(format!("{other:?} is no checksum that is known; blake3, sha256 and md5 are")),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blake3(_) => "BLAKE3",
            Self::Sha256(_) => "SHA-256",
            Self::Md5(_) => "MD5",
        })
    }
}

impl Checksum {
    pub(crate) fn encode(self) -> Vec<u8> {
        let (kind, bytes): (u8, &[u8]) = match &self {
            Self::Blake3(bytes) => (0, bytes),
            Self::Sha256(bytes) => (1, bytes),
            Self::Md5(bytes) => (2, bytes),
        };
        [&[kind], bytes].concat()
    }

    pub(crate) fn decode(encoded: &[u8]) -> Option<Self> {
        let (kind, bytes) = encoded.split_first()?;
        let algorithm = match kind {
            0 => ChecksumAlgorithm::Blake3,
            1 => ChecksumAlgorithm::Sha256,
            2 => ChecksumAlgorithm::Md5,
            _ => return None,
        };
        algorithm.checksum(bytes)
    }
}

/// Checks a content against what it must hash to, a piece at a time.
#[derive(Debug)]
pub struct ChecksumCheck {
    expected: Checksum,
    state: State,
}

/// What is computed beside the BLAKE3 that everybody needs.
#[derive(Debug)]
enum State {
    Nothing,
    Sha256(sha2::Sha256),
    Md5(md5::Md5),
}

impl ChecksumCheck {
    /// Begins.
    pub fn new(expected: Checksum) -> Self {
        let state = match expected {
            Checksum::Blake3(_) => State::Nothing,
            Checksum::Sha256(_) => State::Sha256(sha2::Sha256::new()),
            Checksum::Md5(_) => State::Md5(md5::Md5::new()),
        };
        Self { expected, state }
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        match &mut self.state {
            State::Nothing => {}
            State::Sha256(hasher) => hasher.update(piece),
            State::Md5(hasher) => hasher.update(piece),
        }
    }

    /// True where the content, of which the BLAKE3 is known anyway, is the one expected.
    pub fn is_met(self, digest: &Digest) -> bool {
        match (self.expected, self.state) {
            (Checksum::Blake3(expected), State::Nothing) => *digest.as_bytes() == expected,
            (Checksum::Sha256(expected), State::Sha256(hasher)) => hasher.finalize()[..] == expected,
            (Checksum::Md5(expected), State::Md5(hasher)) => hasher.finalize()[..] == expected,
            (Checksum::Blake3(_) | Checksum::Sha256(_) | Checksum::Md5(_), _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(algorithm: ChecksumAlgorithm, hex: &str, content: &[u8]) -> bool {
        let bytes: Vec<u8> =
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..][..2], 16).unwrap()).collect();
        let mut check = ChecksumCheck::new(algorithm.checksum(&bytes).unwrap());
        check.update(content);
        check.is_met(&blake3::hash(content))
    }

    #[test]
    fn each_algorithm_knows_its_content() {
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let md5 = "900150983cd24fb0d6963f7d28e17f72";
        let blake3 = blake3::hash(b"abc").to_hex();
        for (algorithm, hex) in [
            (ChecksumAlgorithm::Sha256, sha256),
            (ChecksumAlgorithm::Md5, md5),
            (ChecksumAlgorithm::Blake3, blake3.as_str()),
        ] {
            assert!(checks(algorithm, hex, b"abc"), "{algorithm:?}");
            assert!(!checks(algorithm, hex, b"abd"), "{algorithm:?}");
        }
    }

    #[test]
    fn a_checksum_of_another_length_is_none() {
        assert_eq!(ChecksumAlgorithm::Md5.checksum(&[0; 32]), None);
        assert_eq!(ChecksumAlgorithm::Sha256.checksum(&[0; 16]), None);
    }
}
