//! A settler's key of which these books know that somebody else signs with it, too. What is known of a key stays true: it is kept
//! by its address, and another key is another address.

use crate::batch::FACTS;
use crate::journal::POSTING;
use crate::posting::Line;
use crate::store::fact;
use crate::{Fence, Ledger, LedgerError, Result};
use sqlx::Row;

/// The fact's name: its value is the first nonce that somebody else used.
fn name(chain: &str, signer: &str) -> String {
    format!("used elsewhere:{chain}:{signer}")
}

impl Ledger {
    /// The hashes of all that was ever signed with a nonce of a key, for whichever post.
    pub async fn signed_with(&self, signer: &str, nonce: u64) -> Result<Vec<String>> {
        let query = "SELECT hash FROM attempts WHERE signer = $1 AND nonce = $2 ORDER BY hash";
        let rows = sqlx::query(query).bind(signer).bind(nonce.cast_signed()).fetch_all(self.pool()).await;
        let rows = rows.map_err(LedgerError::database("reading what was signed with a nonce"))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Whether something that is to be on the chain was signed with a nonce of a key: neither what was given up, nor what is there
    /// with an earlier nonce or another key.
    pub async fn is_nonce_wanted(&self, signer: &str, nonce: u64) -> Result<bool> {
        let query = "SELECT COUNT(*) FROM attempts a JOIN posts p ON p.id = a.post LEFT JOIN attempts w ON w.hash = p.winner \
                     WHERE a.signer = $1 AND a.nonce = $2 AND p.state <> 'VOID' \
                     AND (p.winner IS NULL OR (w.signer = a.signer AND w.nonce >= a.nonce))";
        let row = sqlx::query(query).bind(signer).bind(nonce.cast_signed()).fetch_one(self.pool()).await;
        Ok(row.map_err(LedgerError::database("reading what a nonce is for"))?.get::<i64, _>(0) > 0)
    }

    /// Bytes that these books don't know have used the nonce of a post for good: the post is given up, and from then on the key is
    /// known to be used elsewhere.
    pub async fn note_foreign_nonce(&self, fence: Fence, post: &str, chain: &str, signer: &str, nonce: u64) -> Result<()> {
        let doing = "noting that somebody else signs with our key";
        let mut writing = self.store.begin(fence).await?;
        self.give_up(&mut writing, post).await?;
        let known = sqlx::query("SELECT value FROM facts WHERE name = $1").bind(name(chain, signer));
        let known = known.fetch_optional(&mut *writing.transaction).await.map_err(LedgerError::database(doing))?;
        if known.is_none() {
            let fact = vec![name(chain, signer).into(), nonce.to_string().into()];
            FACTS.put(&mut writing.transaction, fact, doing).await?;
            let line = Line::ForeignNonce { post: post.to_owned(), chain: chain.to_owned(), signer: signer.to_owned(), nonce };
            self.store.append(&mut writing, POSTING, &[line]).await?;
        }
        writing.commit(doing).await
    }

    /// The first nonce of a key of ours that somebody else used on a chain.
    pub async fn foreign_nonce(&self, chain: &str, signer: &str) -> Result<Option<u64>> {
        let value = fact(self.pool(), &name(chain, signer)).await?;
        let broken = |value: &String| LedgerError::Broken(format!("{value:?} is no nonce of {signer}"));
        value.map(|value| value.parse().map_err(|_| broken(&value))).transpose()
    }
}
