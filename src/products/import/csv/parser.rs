//! Splits a CSV file into records.
//!
//! Uses no CSV library, because such libraries accept a quote that is never closed and do not count the lines that a
//! spreadsheet shows: rows would be lost or mixed up without an error.

use std::io::{self, BufRead};

use memchr::{memchr, memchr3};

use crate::products::import::header::MAX_COLUMNS;

/// Bytes of a record. The longest description takes half of it.
const MAX_RECORD_BYTES: usize = 2 << 20;
const QUOTE: u8 = b'"';

/// Why a file cannot be split.
#[derive(Debug)]
pub(super) enum SplitError {
    Io(io::Error),
    /// The quote that opens in this row and column, from 0, is not closed.
    UnclosedQuote(u32, usize),
    /// A quote of this row and column, from 0, is followed by text after line breaks, so it may close another text.
    MisplacedQuote(u32, usize),
    /// The row has too many bytes, or the quote that opens in this column is not closed.
    TooLong(u32, Option<usize>),
    TooManyColumns(u32),
    TooManyRows,
}

impl From<io::Error> for SplitError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Where the parser is in a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the start of a cell.
    Start,
    /// In a cell without quotes.
    Plain,
    /// Inside quotes.
    Quoted,
    /// After a quote inside quotes: a further one stands for a quote, anything else ends the quotes.
    Closing,
    /// After quotes, with text that does not belong to them.
    AfterQuotes,
}

/// Reads the records of a file one after the other. `,` or another byte separates cells; LF, CR and CRLF end records,
/// outside of quotes.
pub(super) struct Parser<R> {
    source: R,
    delimiter: u8,
    /// The number of the current row: records and empty lines count, line breaks in cells do not.
    row: u32,
    /// The cells of the record, concatenated.
    text: Vec<u8>,
    /// The end of each cell in `text`.
    ends: Vec<u32>,
    /// The columns, from 0, that have text after their quotes, in order.
    malformed: Vec<usize>,
    state: State,
    /// Whether the last byte was a CR that ended a record.
    is_after_cr: bool,
    /// Bytes that have been read.
    bytes_read: u64,
    /// Bytes of the record that have been read.
    record_bytes: usize,
    /// Whether the quotes of the current cell contain a line break.
    has_line_break: bool,
}

impl<R: BufRead> Parser<R> {
    pub(super) fn new(source: R, delimiter: u8) -> Self {
        Self {
            source,
            delimiter,
            row: 0,
            text: Vec::new(),
            ends: Vec::new(),
            malformed: Vec::new(),
            state: State::Start,
            is_after_cr: false,
            bytes_read: 0,
            record_bytes: 0,
            has_line_break: false,
        }
    }

    /// Returns the number of the current row, from 1.
    pub(super) fn row(&self) -> u32 {
        self.row
    }

    /// Returns the number of bytes read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Returns the cells of the current record.
    pub(super) fn cells(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.text[start as usize..*end as usize])
    }

    /// Returns whether text follows the quotes of a cell.
    pub(super) fn is_malformed(&self, column: usize) -> bool {
        self.malformed.binary_search(&column).is_ok()
    }

    /// Reads the next record that is not an empty line. Returns whether there is one.
    pub(super) fn next(&mut self) -> Result<bool, SplitError> {
        loop {
            self.start_record()?;
            let has_ended = self.read_record()?;
            if self.state != State::Start || !self.ends.is_empty() {
                self.end_cell()?;
                return Ok(true);
            }
            if !has_ended {
                return Ok(false);
            }
        }
    }

    fn start_record(&mut self) -> Result<(), SplitError> {
        self.row = self.row.checked_add(1).ok_or(SplitError::TooManyRows)?;
        self.text.clear();
        self.ends.clear();
        self.malformed.clear();
        (self.state, self.record_bytes, self.has_line_break) = (State::Start, 0, false);
        Ok(())
    }

    /// Reads up to the end of the record. Returns whether a line break ended it, not the end of the file.
    fn read_record(&mut self) -> Result<bool, SplitError> {
        loop {
            let input = match self.source.fill_buf() {
                Ok(input) => input,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if input.is_empty() {
                let is_open = self.state == State::Quoted;
                return if is_open { Err(SplitError::UnclosedQuote(self.row, self.ends.len())) } else { Ok(false) };
            }
            if std::mem::take(&mut self.is_after_cr) && input[0] == b'\n' {
                self.source.consume(1);
                self.bytes_read += 1;
                continue;
            }
            // the borrow of `source` ends before the other fields change
            let mut splitter = Splitter {
                delimiter: self.delimiter,
                state: &mut self.state,
                text: &mut self.text,
                ends: &mut self.ends,
                malformed: &mut self.malformed,
                has_line_break: &mut self.has_line_break,
            };
            let (used, end) = splitter.split(input);
            self.source.consume(used);
            self.bytes_read += used as u64;
            self.record_bytes += used;
            self.check_limits()?;
            match end {
                End::Open => {}
                End::Record { is_cr } => {
                    self.is_after_cr = is_cr;
                    return Ok(true);
                }
                End::MisplacedQuote => return Err(SplitError::MisplacedQuote(self.row, self.ends.len())),
            }
        }
    }

    fn check_limits(&self) -> Result<(), SplitError> {
        if self.record_bytes > MAX_RECORD_BYTES {
            let column = (self.state == State::Quoted).then_some(self.ends.len());
            return Err(SplitError::TooLong(self.row, column));
        }
        if self.ends.len() > MAX_COLUMNS as usize {
            return Err(SplitError::TooManyColumns(self.row));
        }
        Ok(())
    }

    fn end_cell(&mut self) -> Result<(), SplitError> {
        let end = u32::try_from(self.text.len()).map_err(|_| SplitError::TooLong(self.row, None))?;
        self.ends.push(end);
        self.check_limits()
    }
}

/// Why [`Splitter::split`] has stopped.
enum End {
    /// The input has ended, the record has not.
    Open,
    Record {
        is_cr: bool,
    },
    MisplacedQuote,
}

/// Splits a part of a record into cells.
struct Splitter<'a> {
    delimiter: u8,
    state: &'a mut State,
    text: &'a mut Vec<u8>,
    ends: &'a mut Vec<u32>,
    malformed: &'a mut Vec<usize>,
    has_line_break: &'a mut bool,
}

impl Splitter<'_> {
    /// Returns the number of bytes used and why it is not more.
    fn split(&mut self, input: &[u8]) -> (usize, End) {
        let mut used = 0;
        while let Some(byte) = input.get(used).copied() {
            match *self.state {
                State::Quoted => used += self.copy_quoted(&input[used..]),
                State::Start if byte == QUOTE => {
                    (*self.state, *self.has_line_break) = (State::Quoted, false);
                    used += 1;
                }
                State::Closing if byte == QUOTE => {
                    self.text.push(QUOTE);
                    *self.state = State::Quoted;
                    used += 1;
                }
                _ if byte == self.delimiter => {
                    self.end_cell();
                    used += 1;
                    if self.ends.len() > MAX_COLUMNS as usize {
                        return (used, End::Open);
                    }
                }
                _ if byte == b'\r' || byte == b'\n' => return (used + 1, End::Record { is_cr: byte == b'\r' }),
                State::Closing | State::AfterQuotes if byte != b' ' => {
                    if *self.has_line_break {
                        return (used, End::MisplacedQuote);
                    }
                    self.malformed.push(self.ends.len());
                    *self.state = State::Plain;
                }
                State::Closing | State::AfterQuotes => {
                    *self.state = State::AfterQuotes;
                    used += 1;
                }
                State::Start | State::Plain => {
                    *self.state = State::Plain;
                    let rest = &input[used..];
                    let length = memchr3(self.delimiter, b'\r', b'\n', rest).unwrap_or(rest.len());
                    self.text.extend_from_slice(&rest[..length]);
                    used += length;
                }
            }
        }
        (used, End::Open)
    }

    /// Copies what is inside quotes. Returns the number of bytes used, with the quote at the end.
    fn copy_quoted(&mut self, input: &[u8]) -> usize {
        let quote = memchr(QUOTE, input);
        let content = &input[..quote.unwrap_or(input.len())];
        self.text.extend_from_slice(content);
        *self.has_line_break = *self.has_line_break || content.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
        if quote.is_some() {
            *self.state = State::Closing;
        }
        content.len() + usize::from(quote.is_some())
    }

    fn end_cell(&mut self) {
        // the limit of a record's bytes is checked after each part
        self.ends.push(u32::try_from(self.text.len()).unwrap_or(u32::MAX));
        *self.state = State::Start;
    }
}
