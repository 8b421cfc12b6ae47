//! Finds what ties the repository to one machine: home folders in paths, and the hosts of package registries.
//! A lock file or a script that names them builds only where it was written.

use super::Finding;

/// Folders that belong to a person or a machine, never to a product.
const MACHINE_FOLDERS: [&str; 4] = ["root", "home", "work", "Users"];
/// First labels of the host names that registries and their mirrors use.
const REGISTRY_LABELS: [&str; 9] = ["registry", "proxy", "mirror", "deb", "static", "index", "sum", "files", "repo1"];
const TOP_LEVEL_DOMAINS: [&str; 4] = ["org", "io", "com", "net"];

/// All findings of one file's text.
pub fn scan(place: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let at = || format!("{place}:{}", index + 1);
        if let Some(path) = machine_path(line) {
            findings.push(Finding { place: at(), words: format!("names the machine path {path}; make it relative or a variable") });
        }
        if let Some(host) = registry_host(line) {
            findings.push(Finding {
                place: at(),
                words: format!("names the registry host {host}; leave hosts to the reader's own configuration"),
            });
        }
    }
    findings
}

fn machine_path(line: &str) -> Option<String> {
    for folder in MACHINE_FOLDERS {
        let needle = format!("/{folder}/");
        for (at, _) in line.match_indices(&needle) {
            let before = line[..at].chars().next_back();
            let after = line[at + needle.len()..].chars().next();
            // "a/root/b" is a relative path, and "/root/" alone says nothing of this machine.
            let starts_a_path = before.is_none_or(|c| !(c.is_ascii_alphanumeric() || "._-}*)/".contains(c)));
            let goes_on = after.is_some_and(|c| c.is_ascii_alphanumeric() || c == '.');
            if starts_a_path && goes_on {
                let rest: String = line[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || "/._-".contains(*c)).collect();
                return Some(rest);
            }
        }
    }
    None
}

fn registry_host(line: &str) -> Option<&str> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-')).find(|token| {
        let labels: Vec<&str> = token.split('.').collect();
        labels.len() >= 3
            && labels.first().is_some_and(|first| REGISTRY_LABELS.contains(first))
            && labels.last().is_some_and(|last| TOP_LEVEL_DOMAINS.contains(last))
            && !labels.contains(&"example")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> usize {
        scan("file", line).len()
    }

    #[test]
    fn a_home_folder_is_found_and_a_relative_path_is_not() {
        assert_eq!(words(&["cp /", "root", "/.kube/config ."].concat()), 1);
        assert_eq!(words(&["x=/", "home", "/ann/x"].concat()), 1);
        assert_eq!(words("target/root/bin and /root in words"), 0);
        assert_eq!(words("$(STATE)/work/dir"), 0);
    }

    #[test]
    fn a_registry_host_is_found_and_an_image_name_or_api_group_is_not() {
        assert_eq!(words(&["\"resolved\": \"https://registry", ".npmjs.org/x\""].concat()), 1);
        assert_eq!(words("image: ghcr.io/acme/train:2.3"), 0);
        assert_eq!(words("supercargo.node-restriction.kubernetes.io/gpu"), 0);
        assert_eq!(words("push to registry.example.com/supercargo"), 0);
    }
}
