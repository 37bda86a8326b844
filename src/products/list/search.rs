//! The conditions of a search.
//!
//! The index `products_search_idx` finds a term by its trigrams. A term of one or two letters, or without any letter or
//! digit, has none: its condition is evaluated for each row that the rest of the statement reads. Mapping a text to lower
//! case in all scripts (`fold_case`) takes most of that time, so a condition without trigrams avoids it where it can.

use tokio_postgres::types::Type;

use super::{sql::SqlQuery, trigrams::has_trigram};

/// The text that is searched, in the expression of the index. A term contains no line feed.
const TEXT: &str = "p.name || E'\\n' || p.description";
/// The characters beyond ASCII that `fold_case` maps to an ASCII letter, with that letter: the Kelvin sign and the dotted
/// capital I.
const FOLDED_TO_ASCII: [(char, char); 2] = [('k', '\u{212a}'), ('i', '\u{130}')];

impl SqlQuery {
    /// Returns a condition for each term that has trigrams, and one for all others.
    pub(super) fn search_conditions(&mut self, terms: &[String]) -> Vec<String> {
        let (indexed, others): (Vec<&String>, Vec<&String>) = terms.iter().partition(|term| has_trigram(term));
        let mut conditions = Vec::new();
        for term in indexed {
            let pattern = self.bind(like_pattern(term), Type::TEXT);
            conditions.push(format!("fold_case({TEXT}) like fold_case({pattern})"));
        }
        if !others.is_empty() {
            conditions.push(self.condition_without_index(others));
        }
        conditions
    }

    /// Returns a condition that is equal to those of indexed terms. Its parts are evaluated in their order: those that
    /// reject most texts and cost least are first.
    ///
    /// PostgreSQL estimates that half of the rows satisfy a `case`, whatever the terms, so it reads an index in the order
    /// of the list. `Strategy` selects another plan for rare terms.
    fn condition_without_index(&mut self, terms: Vec<&String>) -> String {
        let (mut ascii, others): (Vec<&String>, Vec<&String>) = terms.into_iter().partition(|term| term.is_ascii());
        // longer terms are rarer
        ascii.sort_by_key(|term| std::cmp::Reverse(term.len()));
        let mut parts = Vec::new();
        if !others.is_empty() {
            parts.push(format!("octet_length({TEXT}) > char_length({TEXT})"));
        }
        parts.extend(ascii.into_iter().map(|term| self.ascii_condition(term)));
        if !others.is_empty() {
            // each text is folded once, whatever the number of terms
            let mut bind = |term: &String| self.bind(like_pattern(term), Type::TEXT);
            let patterns: Vec<String> = others.into_iter().map(&mut bind).collect();
            let all = patterns.join(") and folded.text like fold_case(");
            let texts = format!("(select fold_case({TEXT}) as text offset 0) folded");
            parts.push(format!("exists (select from {texts} where folded.text like fold_case({all}))"));
        }
        format!("case when {} then true else false end", parts.join(" and "))
    }

    /// Returns the condition of an ASCII term, which maps a text to lower case only if it has another character that
    /// becomes a letter of the term.
    fn ascii_condition(&mut self, term: &str) -> String {
        let pattern = self.bind(like_pattern(term), Type::TEXT);
        let mut condition = format!("(lower(({TEXT}) collate \"C\") like {pattern}");
        for (letter, folded_to_letter) in FOLDED_TO_ASCII {
            if term.contains(letter) {
                let or =
                    format!(" or {TEXT} like '%{folded_to_letter}%' and fold_case({TEXT}) like fold_case({pattern})");
                condition.push_str(&or);
            }
        }
        condition.push(')');
        condition
    }
}

/// Returns a `like` pattern for texts that contain the term.
fn like_pattern(term: &str) -> String {
    let mut pattern = String::with_capacity(term.len() + 2);
    pattern.push('%');
    for char in term.chars() {
        if matches!(char, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(char);
    }
    pattern.push('%');
    pattern
}
