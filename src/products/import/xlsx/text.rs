//! The texts of a workbook: shared strings, and the text content of XML elements.

use quick_xml::events::{BytesRef, Event};

use super::package::Package;
use crate::{
    error::Result,
    products::import::{
        budget::{MemoryBudget, Reservation},
        cancel::Limit,
        error::import_error,
    },
};

/// Applies to the XML, with its markup.
const SHARED_STRINGS_LIMIT: Limit =
    Limit { bytes: 128 << 20, exceeded: "The shared strings of the file are larger than 128 MiB" };
/// Applies to the texts, with 8 bytes for each; the rest of the budget is for the rows.
const MAX_SHARED_STRINGS_BYTES: usize = 64 << 20;
/// Texts are stored in chunks, because a single growing buffer takes up to three times its size. Larger than any text.
const CHUNK_BYTES: usize = 1 << 20;
/// Indexes of texts in a chunk of [`SharedStrings::ends`].
const CHUNK_ENDS: usize = 1 << 16;
/// Twice what a spreadsheet's cell can hold.
const MAX_TEXT_BYTES: usize = 256 << 10;
/// The validation error of a text longer than [`MAX_TEXT_BYTES`].
pub(crate) const TOO_LONG: &str = "The text is longer than 256 KiB.";

/// The texts that cells refer to by index.
pub(crate) struct SharedStrings {
    /// All texts, concatenated. A text does not continue in the next chunk.
    chunks: Vec<String>,
    /// The chunk of each text, and the end of the text in it, in chunks of [`CHUNK_ENDS`].
    ends: Vec<Vec<(u32, u32)>>,
    /// The indexes of texts that cannot be read and are not stored, in order, with the reasons.
    unreadable: Vec<(usize, &'static str)>,
    memory: Reservation,
}

impl SharedStrings {
    pub(crate) fn new(budget: &MemoryBudget) -> Self {
        Self {
            chunks: Vec::new(),
            ends: Vec::new(),
            unreadable: Vec::new(),
            memory: budget.reservation("shared strings"),
        }
    }

    /// Reads the part `path`. A missing part has no strings.
    pub(crate) fn read(package: &mut Package, path: &str, budget: &MemoryBudget) -> Result<Self> {
        let mut strings = Self::new(budget);
        let Some(mut part) = package.part(path, SHARED_STRINGS_LIMIT)? else { return Ok(strings) };
        let mut content = TextContent::default();
        loop {
            match part.next()? {
                Event::Eof => return Ok(strings),
                Event::End(end) if end.local_name().as_ref() == "si" => match content.take() {
                    Ok(text) => strings.push(&unescape_xstring(&text))?,
                    Err(reason) => strings.push_unreadable(reason)?,
                },
                event => content.push_event(&event, "t"),
            }
        }
    }

    /// Adds a text that cannot be read: neither can the cells that refer to it.
    fn push_unreadable(&mut self, reason: &'static str) -> Result<()> {
        self.reserve(size_of::<(usize, &str)>())?;
        let index = self.ends.last().map_or(0, |last| (self.ends.len() - 1) * CHUNK_ENDS + last.len());
        self.unreadable.push((index, reason));
        self.push("")
    }

    fn push(&mut self, text: &str) -> Result<()> {
        let is_full = |chunk: &String| chunk.len() + text.len() > CHUNK_BYTES;
        if self.chunks.last().is_none_or(is_full) {
            self.reserve(CHUNK_BYTES)?;
            self.chunks.push(String::with_capacity(CHUNK_BYTES));
        }
        if self.ends.last().is_none_or(|ends| ends.len() == CHUNK_ENDS) {
            self.reserve(CHUNK_ENDS * size_of::<(u32, u32)>())?;
            self.ends.push(Vec::with_capacity(CHUNK_ENDS));
        }
        let index = self.chunks.len() - 1;
        let chunk = &mut self.chunks[index];
        chunk.push_str(text);
        let end = u32::try_from(index).and_then(|index| Ok((index, u32::try_from(chunk.len())?)));
        let end = end.map_err(|_| import_error(SHARED_STRINGS_LIMIT.exceeded))?;
        self.ends.last_mut().unwrap_or_else(|| unreachable!("a chunk was added above")).push(end);
        Ok(())
    }

    fn reserve(&mut self, bytes: usize) -> Result<()> {
        if self.memory.bytes() + bytes > MAX_SHARED_STRINGS_BYTES {
            return Err(import_error("The shared strings of the file take more than 64 MiB of memory"));
        }
        self.memory.grow(bytes)
    }

    fn end(&self, index: usize) -> Option<(u32, u32)> {
        self.ends.get(index / CHUNK_ENDS)?.get(index % CHUNK_ENDS).copied()
    }

    /// Returns the text at `index`, or why the cell that refers to it cannot be read.
    pub(crate) fn get(&self, index: usize) -> Result<&str, &'static str> {
        if let Ok(position) = self.unreadable.binary_search_by_key(&index, |(index, _)| *index) {
            return Err(self.unreadable[position].1);
        }
        self.find(index).ok_or("The cell refers to a shared text that the file does not have.")
    }

    fn find(&self, index: usize) -> Option<&str> {
        let (chunk, end) = self.end(index)?;
        let previous = index.checked_sub(1).and_then(|previous| self.end(previous));
        let start = previous.filter(|previous| previous.0 == chunk).map_or(0, |previous| previous.1);
        self.chunks.get(chunk as usize)?.get(start as usize..end as usize)
    }
}

/// Collects the text of an element that may be split into several events.
#[derive(Default)]
pub(crate) struct TextContent {
    text: String,
    /// Why the text cannot be read and was dropped.
    fault: Option<&'static str>,
    is_inside: bool,
    /// Inside `rPh`, a pronunciation guide that is not part of the text.
    is_phonetic: bool,
}

impl TextContent {
    /// Adds the text of an event inside an element of this name.
    pub(crate) fn push_event(&mut self, event: &Event<'_>, element: &str) {
        match event {
            Event::Start(start) if start.local_name().as_ref() == element => self.is_inside = !self.is_phonetic,
            Event::End(end) if end.local_name().as_ref() == element => self.is_inside = false,
            Event::Start(start) if start.local_name().as_ref() == "rPh" => self.is_phonetic = true,
            Event::End(end) if end.local_name().as_ref() == "rPh" => self.is_phonetic = false,
            Event::Text(text) if self.is_inside => self.text.push_str(&text.xml10_content()),
            Event::CData(text) if self.is_inside => self.text.push_str(&text.xml10_content()),
            Event::GeneralRef(entity) if self.is_inside => match resolve_entity(entity) {
                Ok(character) => self.text.push(character),
                Err(reason) => self.fault = Some(reason),
            },
            _ => {}
        }
        if self.text.len() > MAX_TEXT_BYTES {
            self.fault = Some(TOO_LONG);
            self.text = String::new();
        }
    }

    /// Whether the next event is inside an element of the text.
    pub(crate) fn is_inside(&self) -> bool {
        self.is_inside || self.is_phonetic
    }

    /// Returns the text collected so far, or why it cannot be read, and starts a new one.
    pub(crate) fn take(&mut self) -> Result<String, &'static str> {
        self.is_inside = false;
        let text = std::mem::take(&mut self.text);
        self.fault.take().map_or(Ok(text), Err)
    }
}

/// Returns the character that `&...;` stands for: a character reference or one of XML's five predefined entities.
fn resolve_entity(entity: &BytesRef<'_>) -> Result<char, &'static str> {
    match entity.resolve_char_ref() {
        Ok(Some(character)) => return Ok(character),
        Ok(None) => {}
        Err(_) => return Err("The text contains an invalid character reference."),
    }
    match &**entity {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => Err("The text refers to an undefined XML entity."),
    }
}

/// Replaces escapes like `_x000D_` (22.9.2.19, ST_Xstring), which stand for characters that XML cannot contain.
pub(crate) fn unescape_xstring(text: &str) -> String {
    let mut unescaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("_x") {
        let (before, escape) = rest.split_at(start);
        unescaped.push_str(before);
        let digits = escape.get(2..6).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let digits = digits.filter(|_| escape.as_bytes().get(6) == Some(&b'_'));
        if let Some(character) = digits.and_then(|digits| char::from_u32(u32::from_str_radix(digits, 16).ok()?)) {
            unescaped.push(character);
            rest = &escape[7..];
        } else {
            unescaped.push_str("_x");
            rest = &escape[2..];
        }
    }
    unescaped.push_str(rest);
    unescaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ImportPool;

    #[test]
    fn shared_strings_are_found_in_all_chunks() {
        let texts: Vec<String> = (0..70_000_usize).map(|index| "x".repeat(index % 50) + &index.to_string()).collect();
        let mut strings = SharedStrings::new(&MemoryBudget::new(&ImportPool::new()));
        for text in &texts {
            strings.push(text).unwrap();
        }
        assert!(strings.chunks.len() > 1 && strings.ends.len() > 1);
        for (index, text) in texts.iter().enumerate() {
            assert_eq!(strings.get(index), Ok(text.as_str()));
        }
        assert!(strings.get(texts.len()).is_err());
        strings.push_unreadable(TOO_LONG).unwrap();
        strings.push("after").unwrap();
        let index = texts.len();
        assert_eq!((strings.get(index), strings.get(index + 1)), (Err(TOO_LONG), Ok("after")));
    }

    #[test]
    fn shared_strings_are_bounded() {
        let mut strings = SharedStrings::new(&MemoryBudget::new(&ImportPool::new()));
        let error = (0..100 << 20).find_map(|_| strings.push("").err());
        assert!(error.is_some(), "empty texts take memory too");
    }

    #[test]
    fn xstring_escapes_are_replaced() {
        assert_eq!(unescape_xstring("a_x000D_b_x005F_x0041_"), "a\rb_x0041_");
        assert_eq!(unescape_xstring("_x_x00_xD800__xzzzz__x000"), "_x_x00_xD800__xzzzz__x000");
        assert_eq!(unescape_xstring("_xé000_"), "_xé000_");
    }
}
