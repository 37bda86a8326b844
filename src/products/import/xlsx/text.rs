//! The texts of a workbook: shared strings, and the text content of XML elements.

use quick_xml::events::{BytesRef, Event};

use super::package::Package;
use crate::{
    error::Result,
    products::import::{cancel::Limit, error::import_error},
};

const SHARED_STRINGS_LIMIT: Limit =
    Limit { bytes: 64 << 20, exceeded: "The shared strings of the file are larger than 64 MiB" };
/// Twice what a spreadsheet's cell can hold.
const MAX_TEXT_BYTES: usize = 256 << 10;

/// The texts that cells refer to by index.
#[derive(Default)]
pub(crate) struct SharedStrings {
    /// All texts, concatenated.
    text: String,
    /// The end of each text.
    ends: Vec<u32>,
}

impl SharedStrings {
    /// Reads the part `path`. A missing part has no strings.
    pub(crate) fn read(package: &mut Package, path: &str) -> Result<Self> {
        let mut strings = Self::default();
        let Some(mut part) = package.part(path, SHARED_STRINGS_LIMIT)? else { return Ok(strings) };
        let mut content = TextContent::default();
        loop {
            match part.next()? {
                Event::Eof => return Ok(strings),
                Event::End(end) if end.local_name().as_ref() == "si" => {
                    strings.text.push_str(&unescape_xstring(&content.take()));
                    let end = u32::try_from(strings.text.len());
                    strings.ends.push(end.map_err(|_| import_error(SHARED_STRINGS_LIMIT.exceeded))?);
                }
                event => content.push_event(&event, "t")?,
            }
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<&str> {
        let start = index.checked_sub(1).map_or(Some(0), |previous| self.ends.get(previous).copied())?;
        self.text.get(start as usize..*self.ends.get(index)? as usize)
    }
}

/// Collects the text of an element that may be split into several events.
#[derive(Default)]
pub(crate) struct TextContent {
    text: String,
    is_inside: bool,
    /// Inside `rPh`, a pronunciation guide that is not part of the text.
    is_phonetic: bool,
}

impl TextContent {
    /// Adds the text of an event inside an element of this name.
    pub(crate) fn push_event(&mut self, event: &Event<'_>, element: &str) -> Result<()> {
        match event {
            Event::Start(start) if start.local_name().as_ref() == element => self.is_inside = !self.is_phonetic,
            Event::End(end) if end.local_name().as_ref() == element => self.is_inside = false,
            Event::Start(start) if start.local_name().as_ref() == "rPh" => self.is_phonetic = true,
            Event::End(end) if end.local_name().as_ref() == "rPh" => self.is_phonetic = false,
            Event::Text(text) if self.is_inside => self.text.push_str(&text.xml10_content()),
            Event::CData(text) if self.is_inside => self.text.push_str(&text.xml10_content()),
            Event::GeneralRef(entity) if self.is_inside => self.text.push(resolve_entity(entity)?),
            _ => {}
        }
        if self.text.len() > MAX_TEXT_BYTES {
            return Err(import_error("The file contains a text longer than 256 KiB"));
        }
        Ok(())
    }

    /// Returns the text collected so far and starts a new one.
    pub(crate) fn take(&mut self) -> String {
        self.is_inside = false;
        std::mem::take(&mut self.text)
    }
}

/// Returns the character that `&...;` stands for: a character reference or one of XML's five predefined entities.
fn resolve_entity(entity: &BytesRef<'_>) -> Result<char> {
    match entity.resolve_char_ref() {
        Ok(Some(character)) => return Ok(character),
        Ok(None) => {}
        Err(error) => return Err(import_error(format!("A text contains an invalid character reference: {error}"))),
    }
    match &**entity {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => Err(import_error("A text refers to an undefined XML entity")),
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

    #[test]
    fn xstring_escapes_are_replaced() {
        assert_eq!(unescape_xstring("a_x000D_b_x005F_x0041_"), "a\rb_x0041_");
        assert_eq!(unescape_xstring("_x_x00_xD800__xzzzz__x000"), "_x_x00_xD800__xzzzz__x000");
        assert_eq!(unescape_xstring("_xé000_"), "_xé000_");
    }
}
