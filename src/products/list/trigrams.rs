//! Which search terms the trigram index finds.

/// Whether `pg_trgm` finds a trigram in the pattern `%term%`: three word characters in a row, or a word that begins
/// inside the term, which is padded with two spaces before it, or one of two characters that ends inside the term, which
/// is padded with one after it.
pub(super) fn has_trigram(term: &str) -> bool {
    let chars: Vec<char> = term.chars().collect();
    let words: Vec<&[char]> = chars.chunk_by(|left, right| left.is_alphanumeric() == right.is_alphanumeric()).collect();
    words.iter().enumerate().any(|(index, word)| {
        let is_last = index + 1 == words.len();
        word[0].is_alphanumeric() && (index > 0 || word.len() > 2 || word.len() == 2 && !is_last)
    })
}

#[cfg(test)]
mod tests {
    use super::has_trigram;

    #[test]
    fn short_terms_and_those_without_letters_have_no_trigram() {
        for term in ["a", "ab", "7", "ж", "жя", "%", "--", "-----", "a-", "\\", "é"] {
            assert!(!has_trigram(term), "{term}");
        }
        for term in ["abc", "жяю", "ab-", "-a", "a-b", "-ab-", "10%", "a1b"] {
            assert!(has_trigram(term), "{term}");
        }
    }
}
