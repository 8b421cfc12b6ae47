//! Finds runs of equal lines in two places of the sources: one idea written twice, of which one will be forgotten.

use super::Finding;
use std::collections::HashMap;

/// So many equal lines in a row are no accident.
const RUN_LINES: usize = 18;

/// `files` are (path, text) pairs.
pub fn scan(files: &[(String, String)]) -> Vec<Finding> {
    let meaningful: Vec<(&str, Vec<(usize, &str)>)> = files.iter().map(|(path, text)| (path.as_str(), lines(text))).collect();
    let mut first_seen: HashMap<Vec<&str>, (usize, usize)> = HashMap::new();
    let mut findings = Vec::new();
    for (file, (path, lines)) in meaningful.iter().enumerate() {
        let mut skip_until = 0;
        for (at, window) in lines.windows(RUN_LINES).enumerate() {
            let key: Vec<&str> = window.iter().map(|(_, line)| *line).collect();
            match first_seen.get(&key) {
                Some(&(other_file, other_at)) if at >= skip_until && (other_file != file || other_at + RUN_LINES <= at) => {
                    let (other_path, other_lines) = &meaningful[other_file];
                    findings.push(Finding {
                        place: format!("{path}:{}", window[0].0),
                        words: format!(
                            "repeats {RUN_LINES} lines or more of {other_path}:{}; let one piece of code serve both",
                            other_lines[other_at].0
                        ),
                    });
                    skip_until = at + RUN_LINES;
                }
                Some(_) => {}
                None => {
                    first_seen.insert(key, (file, at));
                }
            }
        }
    }
    findings
}

/// Lines that say something, with their numbers: no blanks, comments, imports or lone punctuation.
fn lines(text: &str) -> Vec<(usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| {
            line.chars().any(char::is_alphanumeric) && !["//", "#", "use ", "import ", "/*", "*"].iter().any(|p| line.starts_with(p))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, from: usize, count: usize) -> (String, String) {
        (name.to_owned(), (from..from + count).map(|n| format!("let x{n} = {n};\n")).collect())
    }

    #[test]
    fn a_long_run_in_two_files_is_found_once_and_a_short_one_is_not() {
        assert_eq!(scan(&[file("a.rs", 0, 30), file("b.rs", 0, 30)]).len(), 1);
        assert_eq!(scan(&[file("a.rs", 0, 30), file("b.rs", 15, 30)]).len(), 0);
        assert_eq!(scan(&[file("a.rs", 0, 60)]).len(), 0);
    }
}
