//! The audit of `make check`: what a reviewer would otherwise have to look for by eye in every change.
//! Each part takes text and returns findings; an empty list is a pass.

pub mod licences;
pub mod modules;
pub mod repetition;
pub mod stray;
pub mod versions;

/// One thing that has to be mended before the check passes: where it is and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub place: String,
    pub words: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.words)
    }
}
