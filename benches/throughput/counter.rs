//! Counting a text in a flow of bytes, without looking at them twice.

use memchr::memmem::Finder;

/// Counts how often a text occurs in bytes that come in pieces.
pub(crate) struct Counter {
    finder: Finder<'static>,
    /// The last bytes that were seen: the text may begin there. One byte shorter than the text, so that
    /// nothing is counted twice.
    carried: Vec<u8>,
}

impl Counter {
    pub(crate) fn of(text: &'static str) -> Self {
        Self {
            finder: Finder::new(text),
            carried: Vec::new(),
        }
    }

    /// How many more there are with this piece.
    pub(crate) fn count(&mut self, piece: &[u8]) -> u64 {
        let carried_max = self.finder.needle().len() - 1;
        let head = &piece[..piece.len().min(carried_max)];
        self.carried.extend_from_slice(head);
        let across = self.finder.find_iter(&self.carried).count();
        let inside = self.finder.find_iter(piece).count();
        if piece.len() >= carried_max {
            self.carried.clear();
            self.carried
                .extend_from_slice(&piece[piece.len() - carried_max..]);
        } else {
            let surplus = self.carried.len().saturating_sub(carried_max);
            self.carried.drain(..surplus);
        }
        u64::try_from(across + inside).unwrap_or(u64::MAX)
    }
}
