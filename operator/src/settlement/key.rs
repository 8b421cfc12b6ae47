//! The settler's hot key, as its file has it: in hex, or as an encrypted keystore whose password is in another file. The files are
//! read with every look, so that another key is taken up without a restart; a keystore is opened once, since that takes long.

use super::SettlementError;
use crate::runtime::config::ChainConfig;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use supercargo_contracts::{B256, PrivateKeySigner, keccak256};
use tokio::sync::Mutex;

/// What is opened in more memory than this could end the operator: Ethereum's common keystores take so much.
const MOST_BYTES: u64 = 256 << 20;

/// One at a time, however many chains there are.
static OPENING: Mutex<()> = Mutex::const_new(());

/// A key file, and what came of opening it the last time.
#[derive(Default)]
pub struct KeyFile {
    opened: Option<(B256, Result<PrivateKeySigner, String>)>,
}

impl KeyFile {
    /// What is in the files is never printed.
    pub async fn read(&mut self, config: &ChainConfig) -> Result<PrivateKeySigner, SettlementError> {
        let path = &config.settler_key_file;
        let text = text_of(path, "the settler's key")?;
        let password = config.settler_password_file.as_deref();
        let password = password.map(|file| text_of(file, "the password of the settler's keystore")).transpose()?;
        let seal = keccak256([text.as_bytes(), b"\0", password.as_deref().unwrap_or_default().as_bytes()].concat());
        let known = self.opened.as_ref().filter(|(known, _)| *known == seal).map(|(_, key)| key.clone());
        let key = match (known, password) {
            (Some(key), _) => key,
            (None, Some(password)) => opened(path.clone(), &text, password).await,
            (None, None) => text.trim().parse().map_err(|_| format!("{} does not hold a private key in hex", path.display())),
        };
        self.opened = Some((seal, key.clone()));
        key.map_err(SettlementError::Stalled)
    }
}

fn text_of(path: &Path, what: &str) -> Result<String, SettlementError> {
    let text = std::fs::read_to_string(path);
    text.map_err(|error| SettlementError::Stalled(format!("reading {what} {}: {error}", path.display())))
}

/// What opening it costs.
#[derive(Deserialize)]
struct Keystore {
    crypto: Crypto,
}

#[derive(Deserialize)]
struct Crypto {
    kdfparams: Cost,
}

#[derive(Deserialize)]
struct Cost {
    #[serde(default)]
    n: u64,
    #[serde(default)]
    r: u64,
}

async fn opened(path: PathBuf, text: &str, password: String) -> Result<PrivateKeySigner, String> {
    let file = path.display().to_string();
    let keystore: Keystore =
        serde_json::from_str(text).map_err(|_| format!("{file} does not hold a keystore, and a password is configured"))?;
    let Cost { n, r } = keystore.crypto.kdfparams;
    if n.saturating_mul(r).saturating_mul(128) > MOST_BYTES {
        return Err(format!("opening the keystore {file} takes more than {} MiB of memory", MOST_BYTES >> 20));
    }
    let _one = OPENING.lock().await;
    let key = tokio::task::spawn_blocking(move || PrivateKeySigner::decrypt_keystore(path, password.trim_end_matches(['\r', '\n']))).await;
    // Why is not repeated: nobody knows what these words hold.
    key.ok().and_then(Result::ok).ok_or_else(|| format!("the keystore {file} does not open with its password"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settlement::course;
    use supercargo_contracts::Address;

    /// One of the keys that every test chain has, with a cost that would not do outside of a test.
    const KEYSTORE: &str = r#"{"crypto": {"cipher": "aes-128-ctr", "cipherparams": {"iv": "000102030405060708090a0b0c0d0e0f"},
"ciphertext": "726a05ef0dd970feb5b49ffa498d09c2ac4016a8f7263620fc86fde49f46870b", "kdf": "scrypt", "kdfparams": {"dklen": 32, "n": 1024,
"p": 1, "r": 8, "salt": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"},
"mac": "3cf75aeaf20969c5d64c176559cb4b257afffc1370af1a5e81b5aa34b6b64a2d"}, "id": "00000000-0000-4000-8000-000000000001", "version": 3}"#;

    struct Desk {
        folder: tempfile::TempDir,
        file: KeyFile,
        config: ChainConfig,
    }

    impl Desk {
        fn with(password: bool) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let settler_password_file = password.then(|| folder.path().join("password"));
            let config = ChainConfig { settler_key_file: folder.path().join("key"), settler_password_file, ..course::tests::config() };
            Self { folder, file: KeyFile::default(), config }
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.folder.path().join(name), text).expect("writes");
        }

        async fn reads(&mut self) -> Result<Address, String> {
            let key = self.file.read(&self.config).await;
            key.map(|key| key.address()).map_err(|error| error.to_string().replace(&self.folder.path().display().to_string(), "keys"))
        }
    }

    #[tokio::test]
    async fn a_key_in_hex_is_taken_as_its_file_has_it_and_never_printed() {
        let mut desk = Desk::with(false);
        assert!(desk.reads().await.expect_err("there is none").starts_with("reading the settler's key keys/key: "));
        desk.write("key", "a secret that is no key");
        assert_eq!(desk.reads().await, Err("keys/key does not hold a private key in hex".to_owned()));
        for byte in [1, 2] {
            let key = PrivateKeySigner::from_bytes(&B256::repeat_byte(byte)).expect("a key");
            desk.write("key", &format!("{}\n", key.to_bytes()));
            assert_eq!(desk.reads().await, Ok(key.address()));
        }
    }

    #[tokio::test]
    async fn a_keystore_is_opened_with_its_password_and_only_again_when_it_or_the_password_is_another() {
        let mut desk = Desk::with(true);
        desk.write("key", KEYSTORE);
        assert!(desk.reads().await.expect_err("there is none").starts_with("reading the password of the settler's keystore keys/password"));
        desk.write("password", "another");
        assert_eq!(desk.reads().await, Err("the keystore keys/key does not open with its password".to_owned()));
        desk.write("password", "a password\n");
        let address: Address = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".parse().expect("an address");
        assert_eq!(desk.reads().await, Ok(address));
        // What it came to is known by what the files hold: here it is another's, and is believed.
        let seal = desk.file.opened.as_ref().expect("it was opened").0;
        desk.file.opened = Some((seal, Err("known".to_owned())));
        assert_eq!(desk.reads().await, Err("known".to_owned()), "it is not opened again");
        desk.write("password", "a password");
        assert_eq!(desk.reads().await, Ok(address), "the password's file is another");
    }

    #[tokio::test]
    async fn what_is_no_keystore_or_takes_too_much_memory_to_open_is_told() {
        let mut desk = Desk::with(true);
        desk.write("password", "a password");
        desk.write("key", &B256::repeat_byte(1).to_string());
        assert_eq!(desk.reads().await, Err("keys/key does not hold a keystore, and a password is configured".to_owned()));
        desk.write("key", &KEYSTORE.replace("1024", "262145"));
        assert_eq!(desk.reads().await, Err("opening the keystore keys/key takes more than 256 MiB of memory".to_owned()));
    }
}
