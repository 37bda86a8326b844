//! Tests of the parser.

use std::io::BufReader;

use proptest::prelude::*;

use super::parser::{Parser, SplitError};

/// A row number and the cells of the row.
type Record = (u32, Vec<String>);

fn parse(text: &str, delimiter: u8, chunk_bytes: usize) -> Result<Vec<Record>, SplitError> {
    let mut parser = Parser::new(BufReader::with_capacity(chunk_bytes, text.as_bytes()), delimiter);
    let mut records = Vec::new();
    while parser.next()? {
        let cells = parser.cells().map(|cell| String::from_utf8(cell.to_vec()).unwrap()).collect();
        records.push((parser.row(), cells));
    }
    assert_eq!(parser.bytes_read(), text.len() as u64);
    Ok(records)
}

fn expected(records: &[(u32, &[&str])]) -> Vec<Record> {
    records.iter().map(|(row, cells)| (*row, cells.iter().map(|cell| (*cell).to_owned()).collect())).collect()
}

#[test]
fn records_end_at_any_line_break_outside_of_quotes() {
    for chunk_bytes in 1..8 {
        let parsed = parse("a,b\r\nc\rd,\n\n\r\n\"e\r\n\"\"f\"\",\",\"\"\rg", b',', chunk_bytes).unwrap();
        let records: &[(u32, &[&str])] =
            &[(1, &["a", "b"]), (2, &["c"]), (3, &["d", ""]), (6, &["e\r\n\"f\",", ""]), (7, &["g"])];
        assert_eq!(parsed, expected(records));
        assert_eq!(parse("", b',', chunk_bytes).unwrap(), []);
        assert_eq!(parse("\r\r\n\n", b',', chunk_bytes).unwrap(), []);
        assert_eq!(parse("\"\"", b',', chunk_bytes).unwrap(), expected(&[(1, &[""])]));
    }
}

#[test]
fn quotes_inside_of_a_cell_are_text() {
    let parsed = parse("5\" pipe; \"x\";\"q\" ;a,b", b';', 3).unwrap();
    assert_eq!(parsed, expected(&[(1, &["5\" pipe", " \"x\"", "q", "a,b"])]), "blanks after quotes are dropped");
    let mut parser = Parser::new(&b"a,\"b\"c,\"d\"\n\"e\",f"[..], b',');
    assert!(parser.next().unwrap());
    assert_eq!([0, 1, 2].map(|column| parser.is_malformed(column)), [false, true, false]);
    assert!(parser.next().unwrap());
    assert_eq!([0, 1].map(|column| parser.is_malformed(column)), [false, false]);
}

#[test]
fn unclosed_and_misplaced_quotes_are_errors() {
    for chunk_bytes in [1, 100] {
        assert!(matches!(parse("a\n\nb,\"c\nd", b',', chunk_bytes), Err(SplitError::UnclosedQuote(3, 1))));
        assert!(matches!(parse("a\nb,\"c\nd,\"e\"\n", b',', chunk_bytes), Err(SplitError::MisplacedQuote(2, 1))));
        assert!(matches!(parse("\"", b',', chunk_bytes), Err(SplitError::UnclosedQuote(1, 0))));
    }
    let long = format!("a\n\"{}", "x\n".repeat(2 << 20));
    assert!(matches!(parse(&long, b',', 8192), Err(SplitError::TooLong(2, Some(0)))));
    assert!(matches!(parse(&",".repeat(20_000), b',', 8192), Err(SplitError::TooManyColumns(1))));
}

/// Returns a cell with quotes if it needs them or `is_quoted`.
fn write_cell(cell: &str, is_quoted: bool) -> String {
    if is_quoted || cell.is_empty() || cell.contains(['"', '\r', '\n', ',', ';', '\t']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

proptest! {
    #[test]
    fn each_record_is_read_once(
        records in prop::collection::vec(prop::collection::vec("[a\"\r\n,;\té ]{0,5}", 1..4), 0..8),
        endings in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n", "\r", "\n\n", "\r\n\r"]), 8),
        is_quoted in any::<bool>(),
        delimiter in prop::sample::select(vec![',', ';', '\t']),
        chunk_bytes in 1_usize..20,
    ) {
        let (mut text, mut row, mut written) = (String::new(), 1, Vec::new());
        for (cells, ending) in records.iter().zip(&endings) {
            let line: Vec<_> = cells.iter().map(|cell| write_cell(cell, is_quoted)).collect();
            text += &(line.join(&delimiter.to_string()) + ending);
            written.push((row, cells.clone()));
            row += if matches!(*ending, "\n\n" | "\r\n\r") { 2 } else { 1 };
        }
        let parsed = parse(&text, u8::try_from(delimiter).unwrap(), chunk_bytes).unwrap();
        prop_assert_eq!(parsed, written);
    }
}
