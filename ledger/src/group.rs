//! Group commit: whoever posts while a transaction is being written waits for the next one, which carries all of them. A
//! caller is answered when its postings are on the disk, and not before. What a group has read stays in memory for the next,
//! as long as nobody else writes.

use crate::posting::{Charge, Outcome, Posting};
use crate::store::Store;
use crate::working::Working;
use crate::{Fence, LedgerError, Result};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use supercargo_market::receipt::tag;
use tokio::sync::{mpsc, oneshot};

/// The most callers that one transaction answers.
const MOST_CALLERS: usize = 2_048;
const COMMITTING: &str = "committing postings";

struct Request {
    fence: Fence,
    postings: Vec<(Posting, Option<Written>)>,
    answer: oneshot::Sender<Result<Vec<Outcome>>>,
}

/// What was metered, as the books keep it, and of its digest as much as tells it apart. Each caller writes its own, so that
/// the one that commits does not write everybody's.
pub(crate) struct Written {
    pub(crate) text: String,
    pub(crate) tag: String,
}

impl Written {
    fn of(posting: &Posting) -> Option<Self> {
        let Posting::Charge(Charge { metered: Some(metered), .. }) = posting else { return None };
        let text = metered.text();
        let tag = tag(&Sha256::digest(&text).into());
        Some(Self { text, tag })
    }
}

/// The way to the one task that commits postings. A caller that goes away leaves its postings to be committed.
#[derive(Debug, Clone)]
pub(crate) struct Writer(mpsc::Sender<Request>);

impl Writer {
    pub(crate) fn start(store: Arc<Store>) -> Self {
        let (sender, requests) = mpsc::channel(MOST_CALLERS);
        tokio::spawn(run(store, requests));
        Self(sender)
    }

    pub(crate) async fn commit(&self, fence: Fence, postings: Vec<Posting>) -> Result<Vec<Outcome>> {
        let (answer, answered) = oneshot::channel();
        let written = |posting: Posting| {
            let metered = Written::of(&posting);
            (posting, metered)
        };
        let postings = postings.into_iter().map(written).collect();
        self.0.send(Request { fence, postings, answer }).await.map_err(|_| LedgerError::Closing)?;
        answered.await.map_err(|_| LedgerError::Closing)?
    }
}

/// Ends when the last of the books' handles is gone.
async fn run(store: Arc<Store>, mut requests: mpsc::Receiver<Request>) {
    let mut group = Vec::with_capacity(MOST_CALLERS);
    let mut working = Working::default();
    while requests.recv_many(&mut group, MOST_CALLERS).await > 0 {
        // Those that were answered together ask again together: whoever is about to ask comes along.
        tokio::task::yield_now().await;
        while group.len() < MOST_CALLERS
            && let Ok(request) = requests.try_recv()
        {
            group.push(request);
        }
        let results = match commit(&store, &mut working, &group).await {
            // One caller's postings that the database refuses are no reason to refuse the others'.
            Err(error) if error.is_of_the_request() && group.len() > 1 => {
                let mut results = Vec::with_capacity(group.len());
                for request in &group {
                    let alone = std::slice::from_ref(request);
                    results.push(commit(&store, &mut working, alone).await.and_then(|mut one| one.remove(0)));
                }
                results
            }
            Err(error) => group.iter().map(|_| Err(error.clone())).collect(),
            Ok(results) => results,
        };
        for (request, result) in group.drain(..).zip(results) {
            // Nobody listens any more: what was committed stays so, and is found again by its id.
            let _ = request.answer.send(result);
        }
    }
}

async fn commit(store: &Store, working: &mut Working, requests: &[Request]) -> Result<Vec<Result<Vec<Outcome>>>> {
    store.in_time(COMMITTING, commit_all(store, working, requests)).await
}

/// All requests in one transaction. An old leader's are refused, and nothing of them is applied.
async fn commit_all(store: &Store, working: &mut Working, requests: &[Request]) -> Result<Vec<Result<Vec<Outcome>>>> {
    let mut writing = store.begin_writing().await?;
    // Taken away: an error, or a caller that ends here, leaves nothing behind that is not written.
    let mut ours = std::mem::take(working).at(writing.mark);
    let current = writing.mark.fence;
    let leads = |request: &&Request| request.fence.0 == current;
    ours.fetch(&mut writing, requests.iter().filter(leads).flat_map(|request| &request.postings).map(|(posting, _)| posting)).await?;
    let mut results = Vec::with_capacity(requests.len());
    for request in requests {
        if request.fence.0 == current {
            let outcomes: Result<Vec<Outcome>> =
                request.postings.iter().map(|(posting, written)| ours.apply(posting, written.as_ref())).collect();
            results.push(Ok(outcomes?));
        } else {
            results.push(Err(LedgerError::Fenced { ours: request.fence.0, current }));
        }
    }
    ours.save(store, &mut writing).await?;
    writing.commit(COMMITTING).await?;
    *working = ours;
    Ok(results)
}
