//! The local cluster itself: it heals whatever is killed, and leaves nothing behind.

use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use supercargo_e2e::cluster::{self, Layout, Processes, remains};
use supercargo_e2e::{http, kubectl, wait};

/// Two tests of one cluster: the second begins where the first ends.
#[tokio::test]
async fn a_cluster_heals_whatever_is_killed_and_leaves_nothing_behind() {
    http::install_tls();
    let layout = Layout::here().expect("a checkout");
    cluster::down(&layout).await.expect("whatever was there is taken down");
    let before = remains::count(&layout).expect("counts");

    let info = cluster::up(&layout).await.expect("comes up");
    let processes = Processes::new(&layout);
    let ids = || -> BTreeMap<String, Option<u32>> { cluster::status(&layout).expect("a status").into_iter().collect() };
    let first = ids();
    assert!(first.values().all(Option::is_some), "{first:?}");
    cluster::up(&layout).await.expect("comes up again");
    assert_eq!(ids(), first, "a healthy cluster is left as it is");

    kubectl::run(&layout, &["create", "configmap", "kept", "--from-literal=a=b"]).await.expect("something is written");
    for name in cluster::process_names(&info) {
        let pid = processes.alive(&name).unwrap_or_else(|| panic!("{name} runs"));
        let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill starts");
        assert!(killed.success(), "{name} is killed");
        wait::until(format!("{name} to be gone"), Duration::from_secs(5), || async { Ok(processes.alive(&name).is_none().then_some(())) })
            .await
            .expect("it goes");
        cluster::up(&layout).await.unwrap_or_else(|error| panic!("healing {name}: {error:#}"));
        let now = ids();
        assert!(now.values().all(Option::is_some), "after {name}: {now:?}");
        assert_ne!(now[&name], Some(pid), "{name} is another process");
    }
    wait::until("what was written to be read", Duration::from_secs(30), || async {
        let Ok(text) = kubectl::run(&layout, &["get", "configmap", "kept", "-o", "json"]).await else { return Ok(None) };
        let kept: Value = serde_json::from_str(&text)?;
        Ok((kept["data"]["a"] == "b").then_some(()))
    })
    .await
    .expect("nothing was lost");

    cluster::down(&layout).await.expect("goes down");
    let left = remains::left_behind(&before, &remains::count(&layout).expect("counts"));
    println!("figure bedrock.left_behind {} things", left.iter().map(|(_, count)| count).sum::<usize>());
    assert!(left.is_empty(), "left behind: {left:?}");
    cluster::down(&layout).await.expect("going down twice is no error");
}
