//! The key that signs the journal's heads: Ed25519, kept in a file of its own, away from what it vouches for.

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use supercargo_market::journal::Hash;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("reading the journal's key {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("writing a new key of the journal to {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("the journal's key {path} is not one: it must hold 64 hexadecimal digits")]
    Form { path: PathBuf },
}

/// Signs. Cheap to clone; never printed.
#[derive(Clone)]
pub struct JournalKey(Arc<Ed25519KeyPair>);

impl std::fmt::Debug for JournalKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "JournalKey({})", hex::encode(self.signer()))
    }
}

impl JournalKey {
    /// `None` when the system has no use for such a seed.
    pub fn from_seed(seed: &[u8; 32]) -> Option<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(|pair| Self(Arc::new(pair)))
    }

    /// Reads the key in a file, and draws one into a new file when there is none.
    pub fn of_file(path: &Path) -> Result<Self, KeyError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let text = hex::encode(random::<32>());
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
                let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
                written.map_err(|source| KeyError::Write { path: path.to_owned(), source })?;
                text
            }
            Err(source) => return Err(KeyError::Read { path: path.to_owned(), source }),
        };
        let seed = hex::decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        seed.and_then(|seed| Self::from_seed(&seed)).ok_or_else(|| KeyError::Form { path: path.to_owned() })
    }

    /// The public key: what stands in the journal as the signer.
    pub fn signer(&self) -> Hash {
        self.0.public_key().as_ref().try_into().expect("an Ed25519 public key is 32 bytes long")
    }

    pub(crate) fn sign(&self, hash: &Hash) -> Vec<u8> {
        self.0.sign(hash).as_ref().to_vec()
    }
}

pub(crate) fn is_signed(signer: &Hash, hash: &Hash, signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, signer).verify(hash, signature).is_ok()
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_drawn_once_and_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("books.db.key");
        let (first, second) = (JournalKey::of_file(&path).expect("draws"), JournalKey::of_file(&path).expect("reads"));
        assert_eq!(first.signer(), second.signer());
        assert_eq!(fs::metadata(&path).expect("exists").permissions().mode() & 0o777, 0o600);
        assert!(is_signed(&second.signer(), &[7; 32], &first.sign(&[7; 32])));
        assert!(!is_signed(&second.signer(), &[8; 32], &first.sign(&[7; 32])));
        fs::write(&path, "not a key").expect("writes");
        assert!(JournalKey::of_file(&path).expect_err("is refused").to_string().ends_with("it must hold 64 hexadecimal digits"));
    }
}
